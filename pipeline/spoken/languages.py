"""Which language a text is written in, and in which scripts. A kept library with its model inside; nothing is downloaded.

Identification follows langid.py (Lui & Baldwin 2012, "langid.py: An Off-the-shelf Language Identification Tool"), as py3langid
carries it on. Short texts without context are often undecidable, so a guess that is not sure enough is `und`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

UNKNOWN = "und"
"""ISO 639's code for undetermined."""

_SURE = 0.5
_CHARS = 300
_NO_LANGUAGE = "zxx"
_SCRIPTS = {
    "ARABIC", "ARMENIAN", "BENGALI", "CJK", "CYRILLIC", "DEVANAGARI", "ETHIOPIC", "GEORGIAN", "GREEK", "GUJARATI", "GURMUKHI",
    "HANGUL", "HEBREW", "HIRAGANA", "KANNADA", "KATAKANA", "KHMER", "LAO", "LATIN", "MALAYALAM", "MONGOLIAN", "MYANMAR", "ORIYA",
    "SINHALA", "SYRIAC", "TAMIL", "TELUGU", "THAANA", "THAI", "TIBETAN",
}  # fmt: skip


def language(text: str) -> str:
    """ISO 639 code of the language of a text's first 300 characters; `und` when there is no telling."""
    code, sure = _identifier().classify(text[:_CHARS])
    return UNKNOWN if sure < _SURE or code == _NO_LANGUAGE else str(code)


def scripts(texts: Iterable[str]) -> dict[str, int]:
    """How many letters of each script the texts hold, `Other` for rare ones. A script is the first word of a letter's name."""
    letters: Counter[str] = Counter()
    for text in texts:
        letters.update(text)
    found: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            found[_script(letter)] += count
    return dict(sorted(found.items()))


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").removeprefix("FULLWIDTH ").split(" ")[0]
    return name.capitalize() if name in _SCRIPTS and name != "CJK" else "Han" if name == "CJK" else "Other"


@cache
def _identifier() -> Any:
    # Loaded when first asked: unpacking the model takes most of a second.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
