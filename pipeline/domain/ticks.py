"""Ticks: the moments at which a deployment asks for a run, and how each of them ended. Pure values, and what names a tick.

A tick is an instant in UTC, whatever zone it was reckoned in: neither a doubled hour nor a clock that jumps gives a second one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import AwareDatetime

from pipeline.domain.record import Value, digest_value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEEWAY = timedelta(seconds=1)
"""Schedulers round."""
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


class Due(NamedTuple):
    """The tick that a wake-up stands for; None: it does nothing. why: a sentence for people."""

    tick: datetime | None
    why: str


def due(
    woken_for: datetime,
    now: datetime,
    latest: Callable[[datetime], datetime | None],
    *,
    late_after: float,
    catch_up: Literal["latest", "none"],
) -> Due:
    """Which tick a wake-up that was meant for the instant `woken_for`, and comes `now`, stands for.

    latest: the last tick of the schedule at or before an instant. The tick is told by what the wake-up was meant for, never by
    the clock of whoever is woken: one that is wrong can make a tick late, but not another one. A clock that was set back makes
    nothing late.
    """
    own = latest(woken_for + _LEEWAY) or woken_for
    late = (now - own).total_seconds()
    if late <= late_after:
        return Due(own, f"the tick of {_said(own)}")
    told = f"the tick of {_said(own)} was woken {timedelta(seconds=round(late))} late"
    if catch_up == "none":
        return Due(None, f"{told}, and schedule.catch_up is none")
    return Due(own, told)


def every(seconds: float, now: datetime) -> datetime:
    """The last tick at or before `now` of an interval: multiples of it since 1970, so that all who reckon it agree."""
    return _EPOCH + ((now - _EPOCH) // timedelta(seconds=seconds)) * timedelta(seconds=seconds)


def _said(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
