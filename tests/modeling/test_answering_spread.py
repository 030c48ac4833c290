"""Questions shared out over a crew are answered as by one: each row its own answer, few rows at home, nothing asked twice."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from modeling_kit import CITIES, model_params
from tuner_kit import SHAPES, build_lively_base, make

from pipeline.domain.data import messages_to_input
from pipeline.modeling.answering.asking import Asking, Call
from pipeline.modeling.answering.generate import BASE, Subjects
from pipeline.modeling.answering.spread import Sharing, Spread

PLACES = [*CITIES.items(), *CITIES.items()]
INPUTS = [messages_to_input([{"role": "user", "content": f"Where is {city}" + "?" * n}]) for n, (city, _) in enumerate(PLACES)]
OUTPUTS = [f"It is in {land}" + "." * n for n, (_, land) in enumerate(PLACES)]
BOUND = 1e-4
"""Of likelihoods and vectors: rows stand in other batches, and sums are rounded in another order."""


class Pair:
    """A crew of two members with models of their own, of whom the last one asked is done first."""

    def __init__(self, job: Callable[[Any], Any]) -> None:
        self.members = [pickle.loads(pickle.dumps(job)) for _ in range(2)]
        self.calls: list[Call] = []
        self.waiting: list[tuple[Call, Future[Any]]] = []
        self.expected = 0

    @property
    def depth(self) -> int:
        return 4

    def expect(self, size: int) -> None:
        self.expected += size

    def submit(self, item: Call) -> Future[Any]:
        answer = Late(self)
        self.waiting.append((item, answer))
        return answer

    def work(self) -> None:
        while self.waiting:
            call, answer = self.waiting.pop()
            self.calls.append(call)
            answer.set_result(self.members[len(self.calls) % 2](pickle.loads(pickle.dumps(call))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None: ...


class Late(Future[Any]):
    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.pair = pair

    def result(self, timeout: float | None = None) -> Any:
        self.pair.work()
        return super().result(timeout)


class Far:
    workers, from_rows, made_by = 2, 4, {"device": "cpu", "threads": "1"}


@pytest.fixture(scope="module")
def home(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("spread")
    build_lively_base(made / "base", tiny_base)
    make(made / "base", made / "lora", by=0.1, **SHAPES["lora"])
    return made


@pytest.fixture(scope="module")
def alone(home: Path) -> Subjects:
    found = Subjects(home / "base", model_params(home / "base"))
    found.add("candidate", home / "lora")
    return found


def spread(home: Path, cache: Path | None = None) -> tuple[Spread, Pair]:
    asking = Asking(home / "base", model_params(home / "base"), {"candidate": (home / "lora", None)}, threads=1)
    pair = Pair(asking)
    found = Spread(home / "base", model_params(home / "base"), Sharing(pair, asking, Far()), cache=cache)  # type: ignore[arg-type]
    found.add("candidate", home / "lora")
    return found, pair


def test_answers_of_a_crew_are_those_of_one(home: Path, alone: Subjects, tmp_path: Path) -> None:
    shared, pair = spread(home, tmp_path)
    for name in ("candidate", BASE):
        how: dict[str, Any] = {"max_new_tokens": 8, "batch_size": 2}
        assert shared.answers(name, INPUTS, **how) == alone.answers(name, INPUTS, **how)
        ours, theirs = (who.log_probs(name, INPUTS, OUTPUTS, batch_size=2) for who in (shared, alone))
        assert ours == pytest.approx(theirs, rel=BOUND)
        choices = [OUTPUTS[:3], *[OUTPUTS[n : n + 2] for n in range(len(INPUTS) - 1)]]
        weighed = [who.choices(name, INPUTS, choices, batch_size=3) for who in (shared, alone)]
        for mine, other in zip(*weighed, strict=True):
            assert [tokens for _, tokens in mine] == [tokens for _, tokens in other]
            assert [value for value, _ in mine] == pytest.approx([value for value, _ in other], rel=BOUND)
        vectors = [who.embeddings(name, OUTPUTS, batch_size=2) for who in (shared, alone)]
        assert np.abs(vectors[0] - vectors[1]).max() <= BOUND * np.abs(vectors[1]).max()
    assert {call.method for call in pair.calls} == {"answers", "log_probs", "choices", "embeddings"}
    assert all(member.subjects is not None for member in pair.members), "both had work"
    assert sum(len(call.columns[0]) for call in pair.calls if call.method == "answers") == 2 * len(INPUTS)


def test_few_rows_and_what_is_timed_or_remembered_are_not_handed_over(home: Path, alone: Subjects, tmp_path: Path) -> None:
    shared, pair = spread(home, tmp_path)
    how: dict[str, Any] = {"max_new_tokens": 6, "batch_size": 4}
    assert shared.answers("candidate", INPUTS[:3], **how) == alone.answers("candidate", INPUTS[:3], **how)
    with shared.unremembered():
        shared.answers("candidate", INPUTS, **how)
    assert (pair.calls, pair.expected) == ([], 0)
    told: list[tuple[int, int]] = []
    shared.answers("candidate", INPUTS, progress=lambda _, done, total: told.append((done, total)), **how)
    handed = sum(len(call.columns[0]) for call in pair.calls)
    assert handed == len(INPUTS) - 3, "three were answered before"
    assert told[-1] == (handed, handed)
    before = len(pair.calls)
    assert shared.answers("candidate", INPUTS, **how) == alone.answers("candidate", INPUTS, **how)
    again, fresh = spread(home, tmp_path)
    assert again.answers("candidate", INPUTS, **how) == alone.answers("candidate", INPUTS, **how)
    assert (len(pair.calls), fresh.calls) == (before, [])
