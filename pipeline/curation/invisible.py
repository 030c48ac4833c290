"""Characters that nobody sees: controls, direction marks, hidden tags, accents piled up. Text in, clean text out.

A model learns them as if they said something, and people use them to hide instructions. Joiners, direction-free scripts and
emoji keep theirs: what stays is what a writer of some language or a font needs.
"""

from __future__ import annotations

import re

# Unicode calls these line ends too (Standard, 5.8): they become the one that everybody knows.
_LINE_ENDS = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_CONTROL = (
    "\x00-\x08\x0e-\x1f\x7f-\x9f"  # C0 and C1 but for tab and line ends
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u3164\uffa0"  # soft hyphen, and fillers that show as nothing
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # zero width, direction, annotation
    "\ufdd0-\ufdef\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f"  # no characters; notation
)
# Joiners make ligatures and emoji; beside a letter of ASCII, a blank, or nothing, they hide something.
_JOINERS = "(?:(?<![^\x00-\x7f])|(?<=[\u200c\u200d]))[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])"
# A selector picks a variant of the character before it. A second one, or one after ASCII, can only carry data; but keycaps
# are digits, # and * with one.
_SELECTOR = "[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
_SELECTORS = f"(?:(?<![^\x00-\x7f])(?<![0-9#*])|(?<={_SELECTOR})){_SELECTOR}+"
# Tags spell the flags of regions after a black flag, and nothing elsewhere.
_TAGS = "(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007f]+"
# No language stacks more than five of these upon one letter.
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"

_UNSEEN = re.compile(f"[{_CONTROL}]+|{_JOINERS}|{_SELECTORS}|{_TAGS}|[{_MARKS}]{{6,}}")
_SUSPECTS = re.compile(
    f"[{_CONTROL}\x0b\x0c\u2028\u2029\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef{_MARKS}]"
)
_ASCII_CONTROLS = bytes([*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
# How canonical JSON writes them; a backslash of the text itself is written twice, which costs a closer look and no more.
_ESCAPED = re.compile(r"\\(?:u00|[bf])")


def may_hold_unseen(text: str) -> bool:
    """False when `strip_unseen` would surely leave `text` as it is. For canonical JSON too, where controls are escaped."""
    if text.isascii():
        data = text.encode()
        if len(data.translate(None, _ASCII_CONTROLS)) != len(data):
            return True
    elif _SUSPECTS.search(text) is not None:
        return True
    return "\\" in text and _ESCAPED.search(text) is not None


def strip_unseen(text: str) -> str:
    """The text without the characters that nobody sees; old line and page ends become line feeds. Doing it twice changes no more.

    Out go controls but tab, line feed and carriage return; characters of no width; direction marks and overrides (the letters
    stay in the order in which they are stored); fillers; noncharacters; tags and selectors that follow nothing that could show
    them; joiners within ASCII; and whole stacks of more than five accents upon one letter. Surrogates cannot come here: no
    reader accepts them.
    """
    while True:
        clean = _UNSEEN.sub("", _LINE_ENDS.sub("\n", text))
        if clean == text:
            return clean
        text = clean
