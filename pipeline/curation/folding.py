"""Texts folded so that what nobody would call a difference is none: case, white space, Unicode composition. No row enters here."""

from __future__ import annotations

import unicodedata


def fold(text: str) -> str:
    """The same for texts that differ in case, in the kind and length of white space, or in Unicode composition alone."""
    if text.isascii():
        return " ".join(text.lower().split())
    normal = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(normal.split())
