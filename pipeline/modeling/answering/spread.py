"""Subjects whose questions are shared out over a crew: each of its members loads the same models and answers a part of the rows.

Answers are remembered here and not where they are made, so a folder of them is one process' alone. Few rows, and the labels of
the bare base, are answered here. Who the members are is the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.domain.record import FileDigest
from pipeline.errors import Misuse
from pipeline.modeling.adapters.handshake import Handshake
from pipeline.modeling.answering.asking import Asking, Call
from pipeline.modeling.answering.generate import BASE, Prediction, Subjects
from pipeline.params import ModelParams
from pipeline.ports import Crew, Engine, Progress, silent

_PIECES = 3
"""So many pieces a member, that those who are quicker answer more."""


@dataclass(slots=True)
class Sharing:
    """With whom: a crew of `engine` whose job is `asking`."""

    crew: Crew
    asking: Asking
    engine: Engine
    begun: bool = field(default=False)

    def ask(self, call: Call, rows: int, batch_size: int, told: Callable[[int], None]) -> list[Any]:
        """The answers to all rows of a call, in their order. told: called with how many there are so far."""
        if not self.begun:
            self.crew.expect(1)
            self.begun = True
        size = max(1, math.ceil(rows / (self.engine.workers * _PIECES) / batch_size)) * batch_size
        pieces = [range(start, min(start + size, rows)) for start in range(0, rows, size)]
        asked = [self.crew.submit(call.only(piece)) for piece in pieces]
        found: list[Any] = []
        for answer in asked:
            found += answer.result()
            told(len(found))
        return found


class Spread(Subjects):
    """Subjects that share their questions out. Each adapter must be one that the crew was told of."""

    def __init__(
        self, path: Path, model: ModelParams, sharing: Sharing, *, root: Path = Path(), cache: Path | None = None
    ) -> None:
        super().__init__(path, model, root=root, cache=cache)
        self._sharing = sharing
        self._call: Call | None = None
        self._alone = False

    def add(self, name: str, adapter: Path, *, files: tuple[FileDigest, ...] | None = None) -> Handshake:
        if name not in self._sharing.asking.adapters:
            raise Misuse(f"the crew does not know {name!r}")
        return super().add(name, adapter, files=files)

    @contextmanager
    def unremembered(self) -> Iterator[None]:
        """What is made anew to be timed is made here."""
        self._alone = True
        try:
            with super().unremembered():
                yield
        finally:
            self._alone = False

    def answers(self, name: str, inputs: Sequence[str], **how: Any) -> list[str]:
        with self._asking("answers", name, [list(inputs)], how):
            return super().answers(name, inputs, **how)

    def log_probs(self, name: str, inputs: Sequence[str], outputs: Sequence[str], **how: Any) -> list[float]:
        with self._asking("log_probs", name, [list(inputs), list(outputs)], how):
            return super().log_probs(name, inputs, outputs, **how)

    def choices(
        self, name: str, prompts: Sequence[str], choices: Sequence[Sequence[str]], **how: Any
    ) -> list[list[tuple[float, int]]]:
        with self._asking("choices", name, [list(prompts), [list(own) for own in choices]], how):
            return super().choices(name, prompts, choices, **how)

    def predict(self, name: str, texts: Sequence[str], *, batch_size: int = 32, progress: Progress = silent) -> list[Prediction]:
        if name == BASE or self._here(len(texts)):
            return super().predict(name, texts, batch_size=batch_size, progress=progress)
        found = self._far(Call("predict", name, [list(texts)], {"batch_size": batch_size}), len(texts), batch_size, progress)
        return [Prediction(str(label), float(score)) for label, score in found]

    def embeddings(
        self, name: str, texts: Sequence[str], *, batch_size: int = 64, progress: Progress = silent
    ) -> npt.NDArray[np.float32]:
        if self._here(len(texts)):
            return super().embeddings(name, texts, batch_size=batch_size, progress=progress)
        call = Call("embeddings", name, [list(texts)], {"batch_size": batch_size})
        return np.asarray(self._far(call, len(texts), batch_size, progress), dtype=np.float32)

    def _once(
        self, what: str, name: str, settings: dict[str, Any], rows: Sequence[Any], make: Callable[[list[int]], list[Any]]
    ) -> tuple[list[Any], int]:
        call = self._call

        def make_there(places: list[int]) -> list[Any]:
            if call is None or self._here(len(places)):
                return make(places)
            plain = {key: value for key, value in call.how.items() if key != "progress"}
            asked = Call(call.method, call.name, [[column[place] for place in places] for column in call.columns], plain)
            return self._far(asked, len(places), int(call.how.get("batch_size", 32)), call.how.get("progress", silent))

        return super()._once(what, name, settings, rows, make_there)

    def _identity(self, name: str) -> dict[str, Any]:
        found = super()._identity(name)
        return found if self._alone else found | {"device": self._sharing.engine.made_by["device"]}

    def _here(self, rows: int) -> bool:
        return self._alone or rows < self._sharing.engine.from_rows

    def _far(self, call: Call, rows: int, batch_size: int, progress: Progress) -> list[Any]:
        what = f"{call.method.replace('_', ' ')} of {call.name}, shared out"
        return self._sharing.ask(call, rows, batch_size, lambda done: progress(what, done, rows))

    @contextmanager
    def _asking(self, method: str, name: str, columns: list[list[Any]], how: Mapping[str, Any]) -> Iterator[None]:
        """Within, what is not remembered is made by the crew."""
        with self._lock:
            before, self._call = self._call, Call(method, name, columns, dict(how))
            try:
                yield
            finally:
                self._call = before
