"""Strings that end an answer: noticed as soon as they are there, and cut off with what follows. No model enters here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any


def ended(tokenizer: Any, stops: Sequence[str]) -> Callable[[list[int]], bool] | None:
    """Whether the text of some ids holds one of `stops`, where the last id may have completed it; None where there are none.

    Only a token with the last character of a stop can complete it, so most are known not to without decoding anything.
    """
    stops = [stop for stop in stops if stop]
    if not stops:
        return None
    lasts = {stop[-1] for stop in stops}
    window = max(len(stop.encode()) for stop in stops) + 8

    @cache
    def may_complete(token: int) -> bool:
        text = tokenizer.decode([token])
        # Decoded by itself a token may lose its space, or be part of a character.
        return any(last in text or last.isspace() for last in lasts) or "\ufffd" in text

    def holds(ids: list[int]) -> bool:
        if not may_complete(ids[-1]):
            return False
        text = tokenizer.decode(ids[-window:], skip_special_tokens=True)
        return any(stop in text for stop in stops)

    return holds


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of each stop, one stop after the other."""
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text
