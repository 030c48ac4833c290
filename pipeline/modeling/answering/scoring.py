"""How likely a model finds each of several continuations of a prompt, the prompt read once.

Prompts are read first, with what all continuations of one begin with; what prompts share is read once for all of them. Then a row
holds, after its prompt, the rest of its continuations side by side: each sees the prompt and itself, at the positions it would
have alone. A model whose states cannot be shared reads every pair by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from transformers.cache_utils import Cache

from pipeline.errors import Broken, Misuse
from pipeline.modeling.answering.likelihood import log_probs
from pipeline.modeling.answering.prefixes import grouped
from pipeline.modeling.answering.states import bare_of, beginning, pair_cost, shareable, spread
from pipeline.modeling.forward import before_head
from pipeline.modeling.loading import device, inference
from pipeline.modeling.texts.rows import IGNORED, Row

_SIDE_BY_SIDE = 512
"""Tokens of continuations that are put into one row."""
_TOKENS = 16_384
"""Tokens of one batch, padding included, those read once apart."""
_ENOUGH = {"cpu": 1024}
"""Tokens of one batch that keep a device busy, by its kind (_TOKENS of others): beyond, no shorter line is padded to fill it."""
_LOGITS = 1 << 26
"""Logits of one batch: of large vocabularies they are most of what is held."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt in ids, at least one, and a continuation of it, at least one id."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]

    @classmethod
    def cut(cls, prompt: Sequence[int], continuation: Sequence[int], *, room: int) -> Asked:
        """With room for `room` tokens, of which the continuation's last need not be read: a longer prompt loses its start."""
        if len(continuation) > room:
            raise Misuse(f"a choice has {len(continuation)} tokens, the base has room for {room}", fix="shorten it")
        return cls(tuple(prompt[-(room + 1 - len(continuation)) :]), tuple(continuation))


def asked_of(text: Sequence[Row]) -> list[Asked]:
    """The rows of a text (see likelihood.rows_of) as what is asked: what is labelled stands at the end of each."""
    found = []
    for row in text:
        start = next((n for n, label in enumerate(row.labels) if n and label != IGNORED), len(row.labels))
        if row.labels[start:] != row.input_ids[start:]:
            raise Broken("the labelled tokens of a text are not its last ones")
        if start < len(row.input_ids):
            found.append(Asked(tuple(row.input_ids[:start]), tuple(row.input_ids[start:])))
    return found


@dataclass(slots=True)
class _Line:
    """A prompt, and continuations (ids, with the numbers of those who asked for them) that one row will hold."""

    prompt: tuple[int, ...]
    options: dict[tuple[int, ...], list[int]] = field(default_factory=dict)
    stem: tuple[int, ...] = ()
    """The prompt and what all continuations begin with, but for the last token of any, which need not be read."""
    tails: list[tuple[int, ...]] = field(default_factory=list)
    """What is left of each continuation, its last token included."""
    tokens: int = 0
    """Of continuations that were put in."""

    def close(self) -> None:
        """When all continuations are in."""
        shared = 0
        for column in zip(*(option[:-1] for option in self.options), strict=False):
            if len(set(column)) > 1:
                break
            shared += 1
        self.stem = self.prompt + next(iter(self.options))[:shared]
        self.tails = [option[shared:] for option in self.options]

    @property
    def more(self) -> int:
        """Tokens of tails that are read."""
        return sum(len(tail) - 1 for tail in self.tails)

    @property
    def predicted(self) -> int:
        return len(self.stem) - len(self.prompt) + 1 + self.more


def score(
    model: Any, asked: Sequence[Asked], *, pad_id: int, batch_size: int, told: Callable[[int], None] = lambda _: None
) -> list[float]:
    """The sum of each continuation's log-probabilities after its prompt, in nats. told: called with how many are done."""
    if not shareable(model):
        rows = [[Row([*a.prompt, *a.continuation], [IGNORED] * len(a.prompt) + [*a.continuation])] for a in asked]
        return log_probs(model, rows, pad_id=pad_id, batch_size=batch_size, told=told)[0]
    found, done = [0.0] * len(asked), 0
    lines = _lines(asked)
    vocabulary = int(model.config.get_text_config().vocab_size)
    for group in grouped([line.stem for line in lines], batch_size=batch_size, pair=pair_cost(model)):
        # What is predicted must be read: the first token of any continuation is, from the prompt's last on.
        shared = min([group.length, *(len(lines[place].prompt) - 1 for place in group.places)])
        with inference():
            states = beginning(model, lines[group.places[0]].stem[:shared])
            for batch in _batches([lines[place] for place in group.places], shared, batch_size, vocabulary):
                for line, sums in zip(batch, _Batch(bare_of(model), batch, shared, pad_id).sums(states), strict=True):
                    for value, owners in zip(sums, line.options.values(), strict=True):
                        for owner in owners:
                            found[owner] = value
                        done += len(owners)
                told(done)
    return found


def _lines(asked: Sequence[Asked]) -> list[_Line]:
    lines: list[_Line] = []
    open_lines: dict[tuple[int, ...], _Line] = {}
    for number, one in enumerate(asked):
        line = open_lines.get(one.prompt)
        if line is None or (one.continuation not in line.options and line.tokens + len(one.continuation) > _SIDE_BY_SIDE):
            line = open_lines[one.prompt] = _Line(one.prompt)
            lines.append(line)
        if one.continuation not in line.options:
            line.tokens += len(one.continuation)
        line.options.setdefault(one.continuation, []).append(number)
    for line in lines:
        line.close()
    return lines


def _batches(lines: Sequence[_Line], shared: int, batch_size: int, vocabulary: int) -> list[list[_Line]]:
    """Lines of like length together, longest first, within what may be held at once."""
    batches: list[list[_Line]] = []
    for line in sorted(lines, key=lambda line: (-len(line.stem), -line.more)):
        last = batches[-1] if batches else []
        width = len(last[0].stem) - shared + max(each.more for each in [*last, line]) if last else 0
        predicted = sum(each.predicted for each in last) + line.predicted
        full = len(last) >= batch_size or (len(last) + 1) * width > _TOKENS or predicted * vocabulary > _LOGITS
        enough = len(last) * width >= _ENOUGH.get(device().type, _TOKENS)
        padded = enough and 8 * (len(line.stem) - shared + line.more) < 7 * width
        if last and not full and not padded:
            last.append(line)
        else:
            batches.append([line])
    return batches


class _Batch:
    """Lines that are read at once, after `shared` ids that are read already; targets: what is predicted, and for which option."""

    def __init__(self, bare: Any, lines: Sequence[_Line], shared: int, pad_id: int) -> None:
        self._bare, self._lines, self._shared, self._pad = bare, lines, shared, pad_id
        self._first = [0, *accumulate(len(line.tails) for line in lines)]
        self._sums = torch.zeros(self._first[-1], dtype=torch.float64)

    def sums(self, states: Cache | None) -> list[list[float]]:
        """For each line the sums of its continuations, in their order."""
        width = max(len(line.stem) for line in self._lines) - self._shared
        more = max(line.more for line in self._lines)
        kept, before = spread(states, len(self._lines), width + more)
        self._read_stems(width, kept if before or more else None, before)
        if more:
            self._read_tails(width, more, kept, before)
        found = self._sums.tolist()
        return [found[low:high] for low, high in pairwise(self._first)]

    def _read_stems(self, width: int, kept: Cache | None, before: int) -> None:
        """Padded at their end, where nothing that counts looks; so no mask is needed."""
        ids = torch.full((len(self._lines), width), self._pad)
        targets = list[tuple[int, int, int]]()
        for row, line in enumerate(self._lines):
            own = line.stem[self._shared :]
            ids[row, : len(own)] = torch.tensor(own)
            at = row * width + len(line.prompt) - self._shared - 1
            common = line.stem[len(line.prompt) :]
            for option, tail in enumerate(line.tails, self._first[row]):
                targets += [(at + n, token, option) for n, token in enumerate((*common, tail[0]))]
        positions = torch.arange(before, before + width).expand(len(self._lines), -1)
        self._add(ids, positions, None, kept, targets)

    def _read_tails(self, width: int, more: int, kept: Cache, before: int) -> None:
        shape = (len(self._lines), more)
        ids, positions = torch.full(shape, self._pad), torch.zeros(shape, dtype=torch.long)
        texts = torch.full(shape, -1)  # the number of the tail that each token belongs to
        stems = torch.zeros(len(self._lines), before + width, dtype=torch.bool)
        targets = list[tuple[int, int, int]]()
        for row, line in enumerate(self._lines):
            length, at = len(line.stem) - self._shared + before, 0
            stems[row, :length] = True
            for option, tail in enumerate(line.tails, self._first[row]):
                end = at + len(tail) - 1
                ids[row, at:end] = torch.tensor(tail[:-1], dtype=torch.long)
                positions[row, at:end] = torch.arange(length, length + len(tail) - 1)
                texts[row, at:end] = option
                targets += [(row * more + at + n, token, option) for n, token in enumerate(tail[1:])]
                at = end
        own = (texts.unsqueeze(1) == texts.unsqueeze(2)) & torch.ones(more, more, dtype=torch.bool).tril()
        mask = torch.cat([stems.unsqueeze(1).expand(-1, more, -1), own], 2).unsqueeze(1)
        self._add(ids, positions, mask, kept, targets)

    def _add(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        kept: Cache | None,
        targets: Sequence[tuple[int, int, int]],
    ) -> None:
        """Read ids and add to options' sums. targets: a place in the flattened ids, what is predicted there, and for which."""
        places, tokens, options = torch.tensor(targets).unbind(1)
        needed, which = places.unique(return_inverse=True)
        with before_head(self._bare.get_output_embeddings(), lambda held: held.flatten(0, 1)[needed.to(held.device)]):
            logits = self._bare(
                input_ids=ids.to(device()),
                position_ids=positions.to(device()),
                attention_mask=None if mask is None else mask.to(device()),
                past_key_values=kept,
                use_cache=kept is not None,
            ).logits
        values = logits.float().log_softmax(-1)[which.to(logits.device), tokens.to(logits.device)]
        self._sums.index_add_(0, options, values.double().cpu())
