"""How likely a model finds each of several continuations of a prompt, the prompt read once.

A row holds a prompt and, after it, its continuations side by side: each sees the prompt and itself, at the positions it would
have alone. What prompts share is read once for all of them. A model whose states cannot be shared reads every pair by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache

from pipeline.errors import Broken, Misuse
from pipeline.modeling.answering.likelihood import log_probs
from pipeline.modeling.answering.prefixes import grouped
from pipeline.modeling.answering.states import bare_of, beginning, shareable, spread
from pipeline.modeling.forward import before_head
from pipeline.modeling.loading import device, inference
from pipeline.modeling.texts.rows import IGNORED, Row

_SIDE_BY_SIDE = 512
"""Tokens of continuations that are put into one row."""
_TOKENS = 16_384
"""Tokens of one batch, padding included, those read once apart."""
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

    @property
    def more(self) -> int:
        """Tokens that the continuations take in the row: the last of each predicts nothing."""
        return sum(len(option) - 1 for option in self.options)

    @property
    def predicted(self) -> int:
        return 1 + self.more


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
    for group in grouped([line.prompt for line in lines], batch_size=batch_size):
        with inference():
            states = beginning(model, lines[group.places[0]].prompt[: group.length])
            for batch in _batches([lines[place] for place in group.places], group.length, batch_size, vocabulary):
                for line, sums in zip(batch, _read(bare_of(model), states, batch, group.length, pad_id), strict=True):
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
        if line is None or (one.continuation not in line.options and line.more + len(one.continuation) > _SIDE_BY_SIDE):
            line = open_lines[one.prompt] = _Line(one.prompt)
            lines.append(line)
        line.options.setdefault(one.continuation, []).append(number)
    return lines


def _batches(lines: Sequence[_Line], shared: int, batch_size: int, vocabulary: int) -> list[list[_Line]]:
    """Lines of like length together, longest first, within what may be held at once."""
    batches: list[list[_Line]] = []
    for line in sorted(lines, key=lambda line: -(len(line.prompt) + line.more)):
        last = batches[-1] if batches else []
        width = (len(last[0].prompt) + last[0].more - shared) if last else 0
        predicted = sum(each.predicted for each in last) + line.predicted
        full = len(last) >= batch_size or (len(last) + 1) * width > _TOKENS or predicted * vocabulary > _LOGITS
        if last and not full:
            last.append(line)
        else:
            batches.append([line])
    return batches


def _read(bare: Any, beginning: Cache | None, lines: Sequence[_Line], shared: int, pad_id: int) -> list[list[float]]:
    """For each line the sums of its continuations, in their order."""
    width = max(len(line.prompt) - shared + line.more for line in lines)
    ids = torch.full((len(lines), width), pad_id)
    # Which of a line's texts each token belongs to: 0 its prompt, then its continuations; -1 is padding.
    texts = torch.full((len(lines), width), -1)
    positions = torch.zeros((len(lines), width), dtype=torch.long)
    places, targets, owners = list[int](), list[int](), list[int]()
    number = 0
    for row, line in enumerate(lines):
        own = torch.tensor(line.prompt[shared:])
        at = len(own)
        ids[row, :at], texts[row, :at], positions[row, :at] = own, 0, torch.arange(at)
        for text, option in enumerate(line.options, 1):
            more, start = len(option) - 1, row * width + at
            ids[row, at : at + more] = torch.tensor(option[:-1], dtype=torch.long)
            texts[row, at : at + more] = text
            positions[row, at : at + more] = torch.arange(len(own), len(own) + more)
            places += [row * width + len(own) - 1, *range(start, start + more)]
            targets += option
            owners += [number] * len(option)
            number += 1
            at += more
    states, before = spread(beginning, len(lines), width)
    # One continuation a row, or none that need be read, is plain text.
    mask = _mask(texts, before) if any(line.more and len(line.options) > 1 for line in lines) else None
    kept = {"past_key_values": states, "use_cache": True} if before else {"use_cache": False}
    needed, which = torch.tensor(places).unique(return_inverse=True)
    with before_head(bare.get_output_embeddings(), lambda hidden: hidden.flatten(0, 1).index_select(0, needed.to(hidden.device))):
        logits = bare(
            input_ids=ids.to(device()),
            position_ids=(positions + before).to(device()),
            attention_mask=None if mask is None else mask.to(device()),
            **kept,
        ).logits
    spread_out = logits.float().log_softmax(-1).cpu()
    values = spread_out[which, torch.tensor(targets)].double()
    sums = iter(torch.zeros(number, dtype=torch.float64).index_add(0, torch.tensor(owners), values).tolist())
    return [[next(sums) for _ in line.options] for line in lines]


def _mask(texts: torch.Tensor, before: int) -> torch.Tensor:
    """[rows, 1, width, before + width]: a token sees what is shared, its prompt, and its own text, each as far as itself."""
    width = texts.shape[1]
    ours, theirs = texts.unsqueeze(2), texts.unsqueeze(1)
    own = ((theirs == 0) | (theirs == ours)) & torch.ones(width, width, dtype=torch.bool).tril()
    return torch.cat([torch.ones(len(texts), width, before, dtype=torch.bool), own], 2).unsqueeze(1)
