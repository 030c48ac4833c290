"""What models made of prompts' beginnings, kept for the next prompt that begins alike: by adapter digest, never by name.

Keys and values hang on the weights that made them, so what one release read is never found for another (the same prompt right
after a swap is read anew). Only whole blocks of ids are kept; the ones that were used least lately go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from pipeline.modeling.answering.slots import States

BLOCK = 64
"""Ids of a block: shorter beginnings cost less to read again than to look for."""


class PrefixStore:
    """most: how many tokens of states are kept in all; 0 keeps none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], States] = OrderedDict()
        self._places: dict[tuple[str, int], tuple[tuple[str, tuple[int, ...]], int]] = {}
        self._tokens = 0
        self.hits = self.misses = 0

    def find(self, digest: str, ids: Sequence[int]) -> tuple[States | None, int]:
        """The states of the longest beginning of `ids` that is kept, and its length: at least one id is left to be read."""
        for blocks in range((len(ids) - 1) // BLOCK, 0, -1):
            length = blocks * BLOCK
            key, _ = self._places.get((digest, hash(tuple(ids[:length]))), (None, 0))
            # A hash may fit by chance; the ids themselves decide.
            if key is not None and key[0] == digest and key[1][:length] == tuple(ids[:length]) and key in self._kept:
                self._kept.move_to_end(key)
                self.hits += 1
                return [(keys[:, :length], values[:, :length]) for keys, values in self._kept[key]], length
        self.misses += 1
        return None, 0

    def keep(self, digest: str, ids: Sequence[int], states: States) -> None:
        """Keep the whole blocks of a prompt that was read; states [heads, at least so many places, size] are copied."""
        length = len(ids) // BLOCK * BLOCK
        key = (digest, tuple(ids[:length]))
        if not length or length > self._most:
            return
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        self._kept[key] = [(keys[:, :length].clone(), values[:, :length].clone()) for keys, values in states]
        self._tokens += length
        for end in range(BLOCK, length + 1, BLOCK):
            self._places[digest, hash(key[1][:end])] = (key, end)
        while self._tokens > self._most:
            self._drop(next(iter(self._kept)))

    def forget(self, digest: str) -> None:
        """Drop all that is kept of an adapter that left."""
        for key in [key for key in self._kept if key[0] == digest]:
            self._drop(key)

    def _drop(self, key: tuple[str, tuple[int, ...]]) -> None:
        del self._kept[key]
        self._tokens -= len(key[1])
        for end in range(BLOCK, len(key[1]) + 1, BLOCK):
            place = (key[0], hash(key[1][:end]))
            if self._places.get(place, (None, 0))[0] == key:
                del self._places[place]
