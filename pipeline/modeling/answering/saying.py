"""The text of an answer while it is made: whole characters only, and nothing that may yet turn out to be a stop string.

Joined, the pieces are what decoding all ids at once gives, cut at the first stop. No model enters here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_TORN = "\ufffd"
_WINDOW = 16
"""Ids that are decoded again with each new one at the most: enough for what a tokenizer makes of neighbours."""


class Saying:
    """What is said of growing ids. stops: strings that end an answer and are no part of it."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stop for stop in stops if stop)
        self._ids: list[int] = []
        self._start = 0  # what is decoded begins here
        self._said = 0  # so many characters of it have been said, or are held
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """What can be said after one more id; `stopped` tells whether a stop came."""
        self._ids.append(token)
        text = self._text(self._start)
        settled = text.rstrip(_TORN)
        new, self._said = settled[self._said :], max(self._said, len(settled))
        if len(self._ids) - self._start >= _WINDOW and settled == text:
            # What follows is decoded beside the last few ids, whose text is known: some tokenizers write a space between.
            self._start = len(self._ids) - _WINDOW // 4
            self._said = len(self._text(self._start))
        return self._through(new)

    def end(self) -> str:
        """What is left to be said when no id will follow, a torn character included."""
        if self.stopped:
            return ""
        said = self._through(self._text(self._start)[self._said :])
        held, self._held = self._held, ""
        return said if self.stopped else said + held

    def _text(self, start: int) -> str:
        return str(self._tokenizer.decode(self._ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _through(self, new: str) -> str:
        """Of what was held and what is new: that which no stop can begin in."""
        if not self._stops:
            return new
        text = self._held + new
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` may be the first of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
