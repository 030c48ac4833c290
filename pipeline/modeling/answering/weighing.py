"""How likely subjects find texts: several answers to a prompt, answers that are there, whole documents. Nothing is generated.

What was asked before of the very same subject, by content, is remembered where a folder for it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.domain.data import Task
from pipeline.modeling.answering.likelihood import rows_of
from pipeline.modeling.answering.plain_text import pairs
from pipeline.modeling.answering.remembered import Remembered, key
from pipeline.modeling.answering.scoring import Asked, asked_of, score
from pipeline.modeling.answering.standing import Standing
from pipeline.modeling.loading import context_length
from pipeline.params import ModelParams
from pipeline.ports import Progress, silent


class Weighing(Standing):
    """Those who stand here, asked for likelihoods. cache: a folder where what was made is remembered, None for nowhere."""

    def __init__(self, path: Path, model: ModelParams, *, root: Path = Path(), cache: Path | None = None) -> None:
        super().__init__(path, model, root=root)
        self._remembered = Remembered(cache)

    @contextmanager
    def unremembered(self) -> Iterator[None]:
        """Within it all is made anew: what was remembered took no time that could be measured."""
        kept, self._remembered = self._remembered, Remembered(None)
        try:
            yield
        finally:
            self._remembered = kept

    def choices(
        self,
        name: str,
        prompts: Sequence[str],
        choices: Sequence[Sequence[str]],
        *,
        raw: bool = False,
        batch_size: int = 32,
        progress: Progress = silent,
    ) -> list[list[tuple[float, int]]]:
        """How likely `name` finds each of several answers to each prompt: the sum of log-probabilities, in nats, and the tokens.

        prompts: canonical JSON of messages; the answers are then whole ones, their end token included. raw: plain text, and what
        comes next in it, by the rules of lm-evaluation-harness (see plain_text.py). A prompt is read once for all its choices.
        """
        with self._lock:
            self._check_task(Task.GENERATE)
            model = self._model(name)
            room = self._room(model)

            def make(places: list[int]) -> list[Any]:
                some = [(prompts[place], list(choices[place])) for place in places]
                if raw:
                    cutting = [one for row in pairs(self.tokenizer, *map(list, zip(*some, strict=True))) for one in row]
                    asked = [Asked.cut(*one, room=room) for one in cutting]
                else:
                    inputs = [prompt for prompt, own in some for _ in own]
                    outputs = [choice for _, own in some for choice in own]
                    texts = rows_of(self.tokenizer, lambda: self._template_of(name), inputs, outputs, room=room)
                    asked = [one for text in texts for one in asked_of(text)]
                batches = self._in_batches(f"choices of {name}", len(asked), batch_size, progress)
                with self._active(name):
                    sums = score(model, asked, **batches)
                found = iter(zip(sums, [len(one.continuation) for one in asked], strict=True))
                return [[next(found) for _ in own] for _, own in some]

            settings = {"template": None if raw else self._template_of(name).digest, "room": room}
            rows = [[prompt, list(own)] for prompt, own in zip(prompts, choices, strict=True)]
            found, _ = self._once("choices", name, settings, rows, make)
            return [[(float(value), int(tokens)) for value, tokens in row] for row in found]

    def log_probs(
        self,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        total: bool = False,
        batch_size: int = 32,
        progress: Progress = silent,
    ) -> list[float]:
        """How likely `name` finds each output after its input: the mean log-probability a token, in nats; `total`: their sum.

        inputs: canonical JSON of a conversation each; or empty, where the output is a document by itself. An output without a
        token that is predicted counts 0. See likelihood.rows_of for what is cut.
        """
        with self._lock:
            self._check_task(Task.GENERATE)
            model = self._model(name)
            room = self._room(model)

            def make(places: list[int]) -> list[Any]:
                said = [inputs[place] for place in places], [outputs[place] for place in places]
                texts = rows_of(self.tokenizer, lambda: self._template_of(name), *said, room=room)
                asked = [asked_of(text) for text in texts]
                flat = [one for some in asked for one in some]
                batches = self._in_batches(f"likelihoods of {name}", len(flat), batch_size, progress)
                with self._active(name):
                    sums = iter(score(model, flat, **batches))
                return [[sum(next(sums) for _ in some), sum(len(one.continuation) for one in some)] for some in asked]

            settings = {"template": self._template_of(name).digest if any(inputs) else None, "room": room}
            found, _ = self._once("likelihoods", name, settings, [list(row) for row in zip(inputs, outputs, strict=True)], make)
            return [float(value) if total else float(value) / max(int(count), 1) for value, count in found]

    def _once(
        self, what: str, name: str, settings: dict[str, Any], rows: Sequence[Any], make: Callable[[list[int]], list[Any]]
    ) -> tuple[list[Any], int]:
        """What `make` gives for the places of rows that are not remembered, together with what is; and how many are."""
        asked = {"what": what, "of": self._identity(name), **settings}
        keys = [key([asked, row]) for row in rows] if self._remembered.keeps else [str(n) for n in range(len(rows))]
        known = self._remembered.find(keys)
        missing = [place for place, own in enumerate(keys) if own not in known]
        made = dict(zip((keys[place] for place in missing), make(missing) if missing else [], strict=True))
        self._remembered.keep(made)
        return [(known | made)[own] for own in keys], len(rows) - len(missing)

    def _room(self, model: Any) -> int:
        """The tokens that a text may have."""
        return context_length(model) or max([1024, *(s.handshake.max_length for s in self._subjects.values())])

    def _in_batches(self, what: str, total: int, batch_size: int, progress: Progress) -> dict[str, Any]:
        """How texts are put together for a model, and who is told."""
        told = partial(_tell, progress, what, total)
        return {"pad_id": self.tokenizer.pad_token_id, "batch_size": batch_size, "told": told}


def _tell(progress: Progress, what: str, total: int, done: int) -> None:
    progress(what, done, total)
