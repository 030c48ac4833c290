"""A version that was trained again: is it the same? In bytes on the same class of hardware, in metrics on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.domain.measured import MetricValue
from pipeline.domain.model import TrainingRun
from pipeline.domain.record import FileDigest, Value

CLASS = ("device", "threads")
"""Of what a training was made with, what decides whether its bytes repeat; the rest are libraries."""


class Remeasured(Value):
    """A metric of the rebuilt adapter beside the recorded one, on the same test rows. within: inside the recorded interval."""

    metric: str
    recorded: float
    low: float
    high: float
    rebuilt: float

    @property
    def within(self) -> bool:
        return self.low <= self.rebuilt <= self.high


class Rebuilt(Value):
    """same: every byte of the adapter is. comparable: class and libraries are the recorded ones, so its bytes have to be.
    differs: what is not as it was, a sentence each. files: those of the adapter that have other bytes. metrics: measured where
    bytes need not be the same."""

    model: str
    version: str
    commit: str
    recorded: str
    adapter: str
    comparable: bool
    differs: tuple[str, ...]
    files: tuple[str, ...]
    metrics: tuple[Remeasured, ...] = ()

    @property
    def same(self) -> bool:
        return not self.files

    @property
    def ok(self) -> bool:
        """Whether the release was shown to be what its records say."""
        return self.same or (not self.comparable and bool(self.metrics) and all(m.within for m in self.metrics))


def made_otherwise(recorded: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """What of class and libraries is not as it was, a sentence each; the class first."""
    names = [*CLASS, *sorted(name for name in recorded if name not in CLASS)]
    return tuple(
        f"{name}: {recorded.get(name, 'unknown')} then, {now.get(name, 'unknown')} now"
        for name in names
        if recorded.get(name) != now.get(name)
    )


def other_files(recorded: Sequence[FileDigest], made: Sequence[FileDigest]) -> tuple[str, ...]:
    """Paths whose bytes are not the same in both, or that only one of them has."""
    then, now = {f.path: f.sha256 for f in recorded}, {f.path: f.sha256 for f in made}
    return tuple(sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path)))


def compare(recorded: TrainingRun, made: TrainingRun, *, model: str, version: str, commit: str) -> Rebuilt:
    """The two trainings, before anything is measured."""
    differs = made_otherwise(recorded.versions, made.versions)
    return Rebuilt(
        model=model,
        version=version,
        commit=commit,
        recorded=recorded.adapter_digest,
        adapter=made.adapter_digest,
        comparable=not differs,
        differs=differs,
        files=other_files(recorded.adapter, made.adapter),
    )


def remeasured(recorded: Sequence[MetricValue], made: Sequence[MetricValue]) -> tuple[Remeasured, ...]:
    """Every recorded metric that was measured again."""
    now = {m.metric: m.value for m in made}
    told = [m for m in recorded if m.metric in now]
    return tuple(Remeasured(metric=m.metric, recorded=m.value, low=m.low, high=m.high, rebuilt=now[m.metric]) for m in told)
