"""Rows that one loaded model answers at once, each at its own place in its own answer: they join and leave between two tokens.

A newcomer's prompt is read by itself (or together with those who join at the same time), then it goes on in step with the others.
Rows of several LoRAs share a call: see row_adapters.py. Models whose memory cannot be shared go on one row after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache

from pipeline.domain.serving import TokenChance
from pipeline.errors import Broken, TunelineError
from pipeline.modeling.answering.prefix_store import PrefixStore
from pipeline.modeling.answering.row_adapters import RowAdapters
from pipeline.modeling.answering.sampling import choose
from pipeline.modeling.answering.slots import Slots, States
from pipeline.modeling.answering.states import Layer, bare_of, beginning, shareable
from pipeline.modeling.answering.under_way import Bytes, Moved, Row
from pipeline.modeling.loading import device, inference, virtual_tokens
from pipeline.modeling.texts.rows import pad

_AT_ONCE = 4096
"""Tokens of prompts that are read in one call at the most, padding included: rows that go on wait for it."""


class Lane:
    """adapters: which of a shared model's LoRAs speaks for which row, None where the model is one adapter's own.

    mixes: whether several may speak in one call. prefixes: beginnings read before. bytes_of: what a token adds to a text.
    """

    def __init__(
        self,
        model: Any,
        pad_id: int,
        prefixes: PrefixStore,
        bytes_of: Bytes,
        adapters: RowAdapters | None,
        *,
        mixes: bool = True,
    ) -> None:
        self.rows: list[Row] = []
        self._bare = bare_of(model)
        self._pad_id = pad_id
        self._prefixes = prefixes
        self._bytes_of = bytes_of
        self._adapters = adapters
        self._mixes = mixes
        self._slots = Slots()
        self._ahead: States | None = None
        self._own_states: dict[Row, Any] = {}
        self.shared_memory = shareable(model)
        if virtual_tokens(model):
            if not self.shared_memory:
                raise Broken("a soft prompt on a base whose memory is of this kind cannot be served")
            with inference():
                made = beginning(model, [])
            assert made is not None
            self._ahead = [(layer.keys[0], layer.values[0]) for layer in made.layers]

    def join(self, rows: Sequence[Row]) -> list[Moved]:
        """Read the prompts of `rows` and say their first token; who is not done by then goes on with the others."""
        with inference():
            if not self.shared_memory:
                return [moved for row in rows for moved in self._read_alone(row)]
            return [moved for batch in self._batches(rows) for moved in self._read(*batch)]

    def step(self) -> list[Moved]:
        """One token more of every row."""
        if not self.rows:
            return []
        with inference():
            if not self.shared_memory:
                return [moved for row in list(self.rows) for moved in self._step_alone(row)]
            states, places, mask = self._slots.advance(device())
            ids = torch.tensor([[row.made[-1]] for row in self.rows], device=device())
            logits = self._call(self.rows, states, steady=True, input_ids=ids, position_ids=places, attention_mask=mask)
            moved = self._said(self.rows, logits)
        for row, what in moved:
            if _over(what):
                self.leave(row)
        return moved

    def leave(self, row: Row) -> None:
        """Free what `row` holds; it need not be done."""
        at = next((n for n, other in enumerate(self.rows) if other is row), None)
        if at is None:
            return
        if self.shared_memory:
            self._slots.remove(at)
            self.rows[at] = self.rows[-1]
            self.rows.pop()
        else:
            del self.rows[at], self._own_states[row]

    def clear(self) -> list[Row]:
        """Forget all rows, after something went wrong in the middle of a step; returns them."""
        rows, self.rows = self.rows, []
        self._slots.clear()
        self._own_states.clear()
        return rows

    def _batches(self, rows: Sequence[Row]) -> list[tuple[list[Row], list[States], int]]:
        """Newcomers that are read in one call: with as much known before, and not too long together."""
        found: dict[int, list[tuple[Row, States | None]]] = {}
        for row in rows:
            if self._ahead is not None:
                states: States | None = self._ahead
                length = self._ahead[0][0].shape[1]
            else:
                states, length = self._prefixes.find(row.digest, row.prompt)
            found.setdefault(length, []).append((row, states))
        batches = []
        for length, some in found.items():
            own = 0 if self._ahead is not None else length
            some.sort(key=lambda one: -len(one[0].prompt))
            while some:
                count = max(1, _AT_ONCE // max(1, len(some[0][0].prompt) - own))
                taken, some = some[:count], some[count:]
                batches.append(([row for row, _ in taken], [states for _, states in taken if states is not None], length))
        return batches

    def _read(self, rows: list[Row], before: list[States], length: int) -> list[Moved]:
        skipped = 0 if self._ahead is not None else length
        rests = [row.prompt[skipped:] for row in rows]
        batch = {name: tensor.to(device()) for name, tensor in pad(rests, self._pad_id, left=True).items()}
        own = batch["attention_mask"].bool()
        ahead = torch.ones(len(rows), length, dtype=torch.bool, device=device())
        places = (own.long().cumsum(1) - 1).clamp(min=0) + length
        states = _begun(before, own.shape[1])
        mask = None if bool(own.all()) else torch.cat([ahead, own], 1)
        ids = batch["input_ids"]
        logits = self._call(rows, states, steady=False, input_ids=ids, position_ids=places, attention_mask=mask)
        moved = self._said(rows, logits)
        for at, (row, what) in enumerate(moved):
            padding = own.shape[1] - len(rests[at])
            read = [(_without(la.keys[at], length, padding), _without(la.values[at], length, padding)) for la in states.layers]
            if self._ahead is None:
                self._prefixes.keep(row.digest, row.prompt, read)
            if not _over(what):
                self._slots.add(read)
                self.rows.append(row)
        return moved

    def _read_alone(self, row: Row) -> list[Moved]:
        states = DynamicCache(config=self._bare.config)
        ids = torch.tensor([row.prompt], device=device())
        moved = self._said([row], self._call([row], states, steady=False, input_ids=ids))
        if not _over(moved[0][1]):
            self._own_states[row] = states
            self.rows.append(row)
        return moved

    def _step_alone(self, row: Row) -> list[Moved]:
        ids = torch.tensor([[row.made[-1]]], device=device())
        moved = self._said([row], self._call([row], self._own_states[row], steady=False, input_ids=ids))
        if _over(moved[0][1]):
            self.leave(row)
        return moved

    def _call(self, rows: Sequence[Row], states: Any, *, steady: bool, **given: Any) -> torch.Tensor:
        """Logits [rows, vocabulary] of what follows. steady: calls like this one will follow."""

        def call() -> torch.Tensor:
            made = self._bare(past_key_values=states, use_cache=True, logits_to_keep=1, **given)
            return made.logits[:, -1]

        if self._adapters is None:
            return call()
        with self._adapters.speaking([row.name for row in rows], steady=steady or not self._mixes):
            return call()

    def _said(self, rows: Sequence[Row], logits: torch.Tensor) -> list[Moved]:
        """A token for each row. A row that has none (no finite logits, a schema that leads nowhere) has an error instead."""
        wrong: dict[int, Exception] = {}
        finite = torch.isfinite(logits.amax(-1)).tolist()
        for at, fine in enumerate(finite):
            if not fine:
                wrong[at] = Broken("the release gives no finite logits", where=rows[at].name)
        plain = logits
        held = [at for at, row in enumerate(rows) if row.grammar is not None and at not in wrong]
        if held:
            plain, logits = logits, logits.clone()
            for at in held:
                try:
                    allowed = _padded(rows[at].grammar.allowed(), logits.shape[1])  # type: ignore[union-attr]
                except TunelineError as error:
                    wrong[at] = error
                else:
                    logits[at].masked_fill_(~torch.from_numpy(allowed).to(logits.device), float("-inf"))
        tokens = choose(logits, [row.choice for row in rows])
        chances = self._chances(rows, plain, tokens)
        return [
            (row, wrong[at] if at in wrong else row.take(token, chances.get(at)))
            for at, (row, token) in enumerate(zip(list(rows), tokens, strict=True))
        ]

    def _chances(self, rows: Sequence[Row], logits: torch.Tensor, tokens: list[int]) -> dict[int, TokenChance]:
        wanted = [at for at, row in enumerate(rows) if row.logprobs is not None]
        if not wanted:
            return {}
        sure = logits[wanted].float().log_softmax(-1)
        most = max(rows[at].logprobs or 0 for at in wanted)
        best, order = sure.topk(min(most, sure.shape[1]), -1) if most else (None, None)
        found = {}
        for n, at in enumerate(wanted):
            top: list[tuple[str, float]] = []
            if best is not None and order is not None:
                told = zip(order[n].tolist(), best[n].tolist(), strict=True)
                top = [(self._text(token), value) for token, value in told][: rows[at].logprobs]
            raw = self._bytes_of(tokens[at])
            found[at] = TokenChance(_read_bytes(raw), float(sure[n, tokens[at]]), tuple(raw), tuple(top))
        return found

    def _text(self, token: int) -> str:
        return _read_bytes(self._bytes_of(token))


def _over(what: Any) -> bool:
    return isinstance(what, Exception) or what.finish is not None


def _read_bytes(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def _without(part: torch.Tensor, length: int, padding: int) -> torch.Tensor:
    """States [heads, places, size] without the padding that stands behind the first `length` places."""
    if not padding:
        return part
    return part[:, padding:] if not length else torch.cat([part[:, :length], part[:, length + padding :]], 1)


def _begun(before: Sequence[States], room: int) -> Cache:
    """A memory of rows that have read as much each, with room for more."""
    if not before:
        return Cache(layer_class_to_replicate=Layer)
    layers = []
    for states in zip(*before, strict=True):
        layer = Layer()
        parts = [torch.stack([own[part] for own in states]) for part in (0, 1)]
        layer.hold(parts, parts[0].shape[2] + room)
        layers.append(layer)
    return Cache(layers=layers)


def _padded(allowed: Any, width: int) -> Any:
    """A mask as wide as the logits: ids that the tokenizer does not have are not allowed."""
    return allowed if len(allowed) == width else np.pad(allowed[:width], (0, max(0, width - len(allowed))))
