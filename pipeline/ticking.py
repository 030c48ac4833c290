"""A run in its turn: the tick it stands for, the lease it holds meanwhile, and how it ended, written into the run book.

Who calls, and what a run does, is the flows' to say. Nothing of Prefect stands here, so that ticks can be tried without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pipeline.domain.cron import Cron
from pipeline.domain.outcome import Ending, RunOutcome
from pipeline.domain.ticks import BY_HAND, Due, Unfinished, due, every
from pipeline.errors import Misuse, Stale, TryLater, TunelineError
from pipeline.moving import utc_now
from pipeline.wiring import World

if TYPE_CHECKING:
    from pipeline.backends.run_book import Claim
    from pipeline.params import Params
    from pipeline.params.schedule import ScheduleParams

WAIT_SECONDS = 5.0
"""How often a scheduled tick asks again while another run of its model has the lease."""


@dataclass(frozen=True, slots=True)
class Call:
    """What asked for a run. at: the instant that was meant. scheduled: by a schedule, so that it needs a reason to run."""

    at: datetime
    deployment: str = BY_HAND
    scheduled: bool = False


Work = Callable[[World], RunOutcome]


def in_turn(world: World, params: Params, call: Call, work: Work, *, now: Callable[[], datetime] = utc_now) -> RunOutcome:
    """Do `work` for the tick of `call`, once, under the model's lease: it is given a world whose writes are refused as soon as
    the lease is another's. Raises TryLater where somebody who called by hand would have to wait, and whatever `work` raises."""
    found = due_tick(params.schedule, call, now()) if call.scheduled else None
    if found is not None and found.tick is None:
        return _idle(params, Ending.SKIPPED, found.why)
    at = found.tick if found and found.tick else call.at
    claim = _claimed(world, params, call, at, now)
    if isinstance(claim, RunOutcome):
        return claim
    if claim.done is not None:
        said = f"the tick of {at:%Y-%m-%d %H:%M:%S %Z} has ended before: {claim.done.ending}"
        return _idle(params, Ending.DONE_BEFORE, said).model_copy(update={"version": claim.done.version})
    with world.run_book.kept(claim):
        try:
            outcome, inputs = _run(world, params, call, claim, work, now)
        except Stale:
            raise
        except BaseException as error:
            _failed(world, claim, error)
            raise
    world.run_book.finish(claim, outcome.ending, outcome.version, inputs=inputs, why=outcome.reasons or outcome.facts)
    return outcome


@contextmanager
def leased(world: World, model: str, what: str, *, writes: bool = True) -> Iterator[World]:
    """The model's lease for work that is no run: its runs on this machine and others wait meanwhile. Raises TryLater while
    somebody has it.

    What is given is a world whose writes are refused as soon as the lease is another's. writes: False for work that only looks;
    a fence is something written, and there is none then.
    """
    claim = world.run_book.claim(model, what, utc_now(), watch=False)
    with world.run_book.kept(claim):
        try:
            held = replace(world, claim=claim) if writes else world
            if writes:
                held.git.raise_fence()
            yield held
        except Stale:
            raise
        except BaseException:
            with suppress(TunelineError):
                world.run_book.finish(claim, f"{what} did not end")
            raise
    world.run_book.finish(claim, f"{what} ended")


def due_tick(schedule: ScheduleParams, call: Call, now: datetime) -> Due:
    """Which tick of the schedule a wake-up stands for."""
    return due(call.at, now, latest_of(schedule), late_after=schedule.late_after, catch_up=schedule.catch_up)


def latest_of(schedule: ScheduleParams) -> Callable[[datetime], datetime | None]:
    """What tells the last tick of a schedule at or before an instant. Raises Misuse for an unknown timezone."""
    if schedule.interval is not None:
        seconds = schedule.interval
        return lambda now: every(seconds, now)
    cron, zone = Cron.read(schedule.cron), zone_of(schedule)
    return lambda now: cron.latest(now, zone)


def zone_of(schedule: ScheduleParams) -> ZoneInfo:
    try:
        return ZoneInfo(schedule.timezone)
    except (ValueError, OSError, KeyError):
        fix = "schedule.timezone: UTC, Europe/Berlin and the like"
        raise Misuse(f"{schedule.timezone[:60]!r} is no time zone", where="schedule.timezone", fix=fix) from None


def _claimed(world: World, params: Params, call: Call, at: datetime, now: Callable[[], datetime]) -> Claim | RunOutcome:
    """The claim; for a scheduled tick, the turn is waited for until a newer tick is due or this one is late."""
    model, schedule, began = params.model.name, params.schedule, time.monotonic()
    while True:
        try:
            claim = world.run_book.claim(model, call.deployment, at, lasts=schedule.lease, watch=call.scheduled)
            if claim.took_over is not None:
                claim.took_over.end()
            return claim
        except TryLater as error:
            if not call.scheduled:
                raise
            newest = latest_of(schedule)(now())
            waited = max(time.monotonic() - began, (now() - at).total_seconds())
            if (newest is not None and newest > at) or waited > schedule.late_after:
                return _idle(params, Ending.SKIPPED, f"{error.what}, and this tick's time is over")
        time.sleep(WAIT_SECONDS)


def _run(
    world: World, params: Params, call: Call, claim: Claim, work: Work, now: Callable[[], datetime]
) -> tuple[RunOutcome, str | None]:
    from pipeline.backends.run_locks import one_run_at_a_time
    from pipeline.reasons import inputs_now, look, settled

    held, inputs = replace(world, claim=claim), None
    if call.scheduled:
        decision, inputs = look(held, params, now())
        if not decision.run:
            ending = Ending.NOTHING_NEW if decision.why == ("nothing is new",) else Ending.WAITING
            return _idle(params, ending, *decision.why), None
    inputs = inputs or inputs_now(held, params)
    held.git.raise_fence()
    with one_run_at_a_time(held.project, params.model.name):
        outcome = work(held)
    # Rows that were only taken in are still to be learned from.
    return outcome, None if outcome.ending is Ending.TAKEN_IN else settled(held, params, inputs).text


def _failed(world: World, claim: Claim, error: BaseException) -> None:
    said = str(error).splitlines()[0][:300] if isinstance(error, TunelineError) else type(error).__name__
    with suppress(TunelineError):  # else the lease goes with the process, and the tick with the lease
        world.run_book.finish(claim, Unfinished.FAILED, why=(said,))


def _idle(params: Params, ending: Ending, *why: str) -> RunOutcome:
    return RunOutcome(model=params.model.name, run=params.model.name, ending=ending, facts=why)
