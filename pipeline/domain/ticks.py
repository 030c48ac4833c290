"""Ticks: the moments at which a deployment asks for a run, and how each of them ended. Pure values, and what names a tick.

A tick is an instant in UTC, whatever zone it was reckoned in: neither a doubled hour nor a clock that jumps gives a second one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import AwareDatetime

from pipeline.domain.record import Value, digest_value

BY_HAND = "by hand"
"""The deployment that `tuneline run` belongs to: its tick is the instant at which it was called."""


class Unfinished(StrEnum):
    """How a tick can stand without having ended: it may be claimed again."""

    RUNNING = "running"
    FAILED = "failed"
    TAKEN_OVER = "taken over"


class Tick(Value):
    """One tick of a model. ending: how it ended, in the words of outcome.py's Ending; else one of Unfinished.

    fence: that of the lease under which it last ran. inputs: digest of what the run was made from, where it is known, by which
    the next tick sees that nothing is new. why: sentences for people.
    """

    key: str
    model: str
    deployment: str
    at: AwareDatetime
    fence: int
    began: AwareDatetime
    ended: AwareDatetime | None = None
    ending: str = Unfinished.RUNNING
    version: str | None = None
    inputs: str | None = None
    why: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return self.ending not in tuple(Unfinished)


def tick_key(model: str, deployment: str, at: datetime) -> str:
    """What names a tick: the same for every process, machine and schedule that means it. Raises ValueError without an offset."""
    if at.tzinfo is None:
        raise ValueError("a tick needs its offset from UTC")
    return digest_value([model, deployment, at.astimezone(UTC).isoformat(timespec="microseconds")])
