"""What a run came to, in a form that people and machines read. Pure values."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from pipeline.domain.record import Value


class Ending(StrEnum):
    REGISTERED = "registered"
    REFUSED_BY_GATE = "refused by the gate"
    REFUSED_BY_VALIDATION = "refused by validation"
    REFUSED_BY_CURATION = "refused by curation"
    TAKEN_IN = "taken in"
    NOTHING_NEW = "nothing new"
    WAITING = "waiting"
    """There is a reason to run, and something that holds it back: too few rows, a batch still arriving, a cool-down, a budget."""
    DONE_BEFORE = "done before"
    """The tick had ended when it was asked for again."""
    SKIPPED = "skipped"
    """The wake-up came too late, or another run took its turn."""


class RunOutcome(Value):
    """How a run ended. `reasons` are sentences: the failed checks. `links` name pages and folders worth a look."""

    model: str
    run: str
    ending: Ending
    version: str | None = None
    promoted_to: str | None = None
    reasons: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    links: dict[str, str] = Field(default_factory=dict)

    @property
    def said_no(self) -> bool:
        return self.ending in (Ending.REFUSED_BY_GATE, Ending.REFUSED_BY_VALIDATION, Ending.REFUSED_BY_CURATION)
