"""How a model stands, for one screen: who holds what, what runs, who is waited for, what is unhealthy. Pure values."""

from __future__ import annotations

from pydantic import AwareDatetime

from pipeline.domain.record import Value
from pipeline.domain.ticks import Tick
from pipeline.domain.waiting import Waiting


class Held(Value):
    """Who holds a stage: since when, by which event and whose decision, and why."""

    version: str
    since: AwareDatetime
    how: str
    by: str
    why: str
    event: int


class Wait(Value):
    """A version that waits for people. page: where it can be answered, if a run waits for it in Prefect."""

    waiting: Waiting
    page: str | None = None


class Standing(Value):
    """unhealthy: a sentence each, with what to do. unknown: what could not be looked at, and why. prefect: its page, if up."""

    model: str
    at: AwareDatetime
    stages: dict[str, Held | None]
    running: Tick | None
    waiting: tuple[Wait, ...]
    runs: tuple[Tick, ...]
    unhealthy: tuple[str, ...]
    unknown: tuple[str, ...]
    prefect: str | None
