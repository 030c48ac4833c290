"""What a suite is: named rows, and what a subject's answers to them score. No file and no model enters here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pipeline.domain.data import messages_to_input
from pipeline.domain.measured import SuiteKind
from pipeline.domain.record import digest_value
from pipeline.ports import Judge

Scores = list[float | None]
"""A score a row, 0 to 1, more is better; None where it could not be judged."""
One = TypeVar("One")


class Ways(Protocol):
    """How a suite asks a subject, by the subject's name. A conversation is its canonical JSON; `raw` means plain text."""

    def answers(
        self, name: str, inputs: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = (), raw: bool = False
    ) -> Sequence[str]:
        """What it answers, greedily, up to one of `stop`."""
        ...

    def choices(
        self, name: str, prompts: Sequence[str], choices: Sequence[Sequence[str]], *, raw: bool = False
    ) -> Sequence[Sequence[float]]:
        """The log-probability, in nats, of each of several continuations of each prompt: a sum over tokens."""
        ...

    def log_probs(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> Sequence[float]:
        """The mean log-probability of a token of each output after its input; of a document where the input is empty."""
        ...

    def predict(self, name: str, texts: Sequence[str]) -> Sequence[str]:
        """The label that it gives each text (classify)."""
        ...


class Rows(Protocol):
    """The rows of one suite."""

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        """What `subject` scores, a row each."""
        ...


@dataclass(frozen=True, slots=True)
class Suite:
    """name: as params call it. file: digest of what its rows were read from. metric: what a score means; see docs/suites.md.
    names: of its rows, for people; groups: of rows that are no independent witnesses."""

    name: str
    kind: SuiteKind
    file: str | None
    metric: str
    names: tuple[str, ...]
    groups: tuple[str, ...]
    rows: Rows

    def __len__(self) -> int:
        return len(self.names)


def said_by_user(text: str) -> str:
    """A conversation of one message."""
    return messages_to_input([{"role": "user", "content": text}])


def drawn(rows: Sequence[One], most: int | None, *, of: Sequence[object]) -> list[One]:
    """At most `most` of the rows, in their order: those whose content, `of`, has the least digests. Adding rows moves few."""
    if most is None or most >= len(rows):
        return list(rows)
    order = sorted(range(len(rows)), key=lambda at: (digest_value(of[at]), at))
    return [rows[at] for at in sorted(order[:most])]
