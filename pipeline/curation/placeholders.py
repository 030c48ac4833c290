"""Leftovers of templates in answers: {{name}}, [INSERT DATE], <your company>. A model that learns them says them to customers.

Only what no finished text holds is looked for; code is left out, where braces and brackets mean something.
"""

from __future__ import annotations

import re

_ASKS = "(?:insert|enter|add|your|fill in|replace|specify|choose|name of|date of|company|client|customer|user|recipient|sender)"
_NOUNS = "NAME|DATE|TIME|ADDRESS|EMAIL|PHONE|NUMBER|COMPANY|TITLE|CITY|URL|LINK|AMOUNT|HERE"
# Anything in brackets that begins like words; only then is it asked which words. Not [words](a link).
_BRACKETED = re.compile(r"[\[{<]\{?\s*[^\W\d][^\[\]{}<>\n]{0,64}[\]}>]\}?(?!\()")
_LEFTOVER = re.compile(
    r"\{\{\s*\w[\w .'/-]{0,60}\}\}"  # {{Order Number}}
    rf"|\[\s*{_ASKS}\b[^.!?]*\]"  # [Your Name]
    rf"|\[(?:[A-Z][A-Z0-9]*[ _/-]){{0,5}}(?:{_NOUNS})\]"  # [CUSTOMER NAME], [date and time]
    rf"|<\s*{_ASKS}[ _-][\w '/-]{{1,60}}>",  # <your name>
    re.IGNORECASE,
)
_IPSUM = re.compile(r"\blorem ipsum\b", re.IGNORECASE)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)


def may_hold_placeholder(text: str) -> bool:
    """False when `find_placeholders` would surely find nothing."""
    return "[" in text or "{{" in text or "<" in text or "ipsum" in text


def find_placeholders(text: str) -> list[str]:
    """The leftovers in `text`, as they stand there, outside code."""
    if "`" in text:
        text = _CODE.sub(" ", text)
    found = [match.group() for match in _BRACKETED.finditer(text) if _LEFTOVER.fullmatch(match.group())]
    return found + _IPSUM.findall(text) if "ipsum" in text else found
