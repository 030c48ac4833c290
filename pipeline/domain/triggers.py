"""Whether a tick is to run: what was seen, against what params ask for. Pure; an answer always says why.

One reason is enough. A cool-down and a budget hold back whatever the reason is, but for a revocation, which waits for no
cool-down. Instants that lie in the future were written by a clock that has been set back since: they hold nothing back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import AwareDatetime

from pipeline.domain.record import Value
from pipeline.domain.signals import Signal


class Fresh(Value):
    """What a look at the sources found. rows: roughly, by lines; None where they cannot be counted in passing. newest: the last
    change of any of the files. unseen: sources that only a run can look into, by name. digest: names this very set of files."""

    files: int = 0
    rows: int | None = 0
    newest: AwareDatetime | None = None
    unseen: tuple[str, ...] = ()
    digest: str = ""


class State(Value):
    """What is known of a model as a tick comes. runs: when the last runs that did something began, oldest first. drift: windows
    since the last of them, oldest first. changed: what else is new since, such as params or code. withdrawn: how many versions
    were revoked, and records forgotten, since."""

    fresh: Fresh = Fresh()
    runs: tuple[AwareDatetime, ...] = ()
    drift: tuple[Signal, ...] = ()
    feedback: int = 0
    changed: tuple[str, ...] = ()
    withdrawn: int = 0


class Wanted(NamedTuple):
    """What params ask for; None: no such trigger. Times in seconds; windows: so many of the last so many; budget: runs, days."""

    min_rows: int | None = 1
    quiet: float = 0.0
    windows: tuple[int, int] | None = None
    feedback: int | None = None
    revocation: bool = False
    cool_down: float = 0.0
    budget: tuple[int, float] | None = None


class Decision(NamedTuple):
    run: bool
    why: tuple[str, ...]


def decide(now: datetime, wanted: Wanted, state: State) -> Decision:
    """Whether to run now."""
    reasons, waits = list[str](), list[str]()
    for said, yes in (*_fresh(now, wanted, state.fresh), *_others(wanted, state)):
        (reasons if yes else waits).append(said)
    if not reasons:
        return Decision(False, tuple(waits) or ("nothing is new",))
    urgent = wanted.revocation and state.withdrawn > 0
    held = [*([] if urgent else _cooling(now, wanted, state.runs)), *_spent(now, wanted, state.runs)]
    return Decision(not held, (*reasons, *held))


def _fresh(now: datetime, wanted: Wanted, fresh: Fresh) -> Iterator[tuple[str, bool]]:
    if wanted.min_rows is None:
        return
    if fresh.unseen:
        yield f"only a run can tell whether {', '.join(fresh.unseen)} has anything new", True
    if not fresh.files:
        return
    files = f"{fresh.files} new file{'' if fresh.files == 1 else 's'}"
    rows = "rows not counted" if fresh.rows is None else f"about {fresh.rows} row{'' if fresh.rows == 1 else 's'}"
    silent = (now - fresh.newest).total_seconds() if fresh.newest else wanted.quiet
    if fresh.rows is not None and fresh.rows < wanted.min_rows:
        yield f"{files}, {rows}: schedule.triggers.fresh.min_rows is {wanted.min_rows}", False
    elif 0 <= silent < wanted.quiet:
        yield f"{files}, the newest changed {silent:.0f} s ago: it is left alone for {wanted.quiet:g} s first", False
    else:
        yield f"{files}, {rows}", True


def _others(wanted: Wanted, state: State) -> Iterator[tuple[str, bool]]:
    for what in state.changed:
        yield what, True
    if wanted.windows and state.drift:
        of, among = wanted.windows
        last = state.drift[-among:]
        fired = sum(one.fired for one in last)
        if fired:
            enough = fired >= of and last[-1].fired
            newest = "" if last[-1].fired else ", but not in the newest"
            yield f"drift in {fired} of the last {len(last)} windows{newest} ({of} of {among} are asked for)", enough
    if wanted.feedback is not None and state.feedback:
        yield f"{state.feedback} rows of feedback wait ({wanted.feedback} are asked for)", state.feedback >= wanted.feedback
    if wanted.revocation and state.withdrawn:
        yield f"{state.withdrawn} revoked or forgotten since the last run", True


def _cooling(now: datetime, wanted: Wanted, runs: Sequence[datetime]) -> Iterator[str]:
    since = [(now - began).total_seconds() for began in runs if began <= now]
    if since and min(since) < wanted.cool_down:
        left = timedelta(seconds=round(wanted.cool_down - min(since)))
        yield f"held back: the last run began {timedelta(seconds=round(min(since)))} ago, so it cools down for {left} yet"


def _spent(now: datetime, wanted: Wanted, runs: Sequence[datetime]) -> Iterator[str]:
    if wanted.budget is None:
        return
    allowed, days = wanted.budget
    within = [began for began in runs if now - timedelta(days=days) < began <= now]
    if len(within) >= allowed:
        free = f"{within[-allowed] + timedelta(days=days):%Y-%m-%d %H:%M} UTC"
        yield f"held back: {len(within)} runs in {days:g} days, as many as the budget has; the next one from {free}"
