"""The section `schedule`: at which moments a model asks whether there is work, and what counts as a reason to run.

Times are in seconds. docs/schedule.md is the guide.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.domain.cron import Cron
from pipeline.params.section import Count, Section

Seconds = Annotated[float, Field(ge=0, le=366 * 86_400)]


class FreshTrigger(Section):
    """Files that the last snapshot does not have."""

    min_rows: Count = 1
    """So many new rows at least, counted by lines; of files whose rows cannot be counted in passing, one file is enough."""
    quiet: Seconds = 0.0
    """The newest file must have been left alone for so long, so that a batch that is still arriving is not taken in half."""


class DriftTrigger(Section):
    """Windows of drift that tuneline monitor noted since the last run."""

    of: Count = 3
    """So many windows must have drifted, the newest among them …"""
    among: Count = 5
    """… of the last so many."""

    @model_validator(mode="after")
    def _check_order(self) -> DriftTrigger:
        if self.of > self.among:
            raise ValueError("of: more windows than there are among")
        return self


class FeedbackTrigger(Section):
    """Feedback that no snapshot has."""

    rows: Count = 200


class BudgetParams(Section):
    """So many runs in so many days; then nothing runs by itself until the oldest of them is older."""

    runs: Count = 14
    days: Annotated[float, Field(gt=0, le=3660)] = 7.0


class TriggerParams(Section):
    """Each trigger is a reason to run; one is enough. Params or code that changed are one too."""

    fresh: FreshTrigger | None = FreshTrigger()
    """Files that the last snapshot does not have; null: they alone start nothing."""
    drift: DriftTrigger | None = None
    feedback: FeedbackTrigger | None = None
    revocation: bool = False
    """A version was revoked, or a record forgotten, since the last run. Waits for no cool-down."""
    cool_down: Seconds = 0.0
    """After a run began, so long nothing else begins."""
    budget: BudgetParams | None = None


class ScheduleParams(Section):
    cron: str = "0 3 * * *"
    """When a tick is due: minute, hour, day, month, weekday, by the wall clock of the timezone."""
    timezone: str = "UTC"
    """A zone of the IANA database, such as Europe/Berlin. An hour that is skipped or doubled there has one tick."""
    interval: Annotated[float, Field(ge=10, le=31 * 86_400)] | None = None
    """Seconds between ticks; takes the place of the cron."""
    late_after: Seconds = 3600.0
    """A tick that is woken later than this is late; catch_up says what becomes of it."""
    catch_up: Literal["latest", "none"] = "latest"
    """latest: of the ticks that were missed, the first to come takes all there is, and the others find nothing. none: a late tick
    does nothing."""
    lease: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """A run whose heartbeat, every third of this, stands still for so long is taken over. One that died on this machine is taken
    over at once."""
    triggers: TriggerParams = TriggerParams()

    @field_validator("cron")
    @classmethod
    def _readable(cls, cron: str) -> str:
        Cron.read(cron)
        return cron
