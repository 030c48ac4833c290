"""The section `monitor`: what of a release's traffic is looked at, by windows, and when somebody is told (docs/monitoring.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.params.section import Count, Fraction, Section

Amount = Annotated[float, Field(ge=0)]


class WindowParams(Section):
    requests: Annotated[int, Field(ge=30, le=100_000)] = 200
    """So many logged requests of a release make a window."""
    hours: Annotated[float, Field(gt=0, le=24 * 31)] | None = None
    """Instead: what was asked within so many hours makes one, however much it is."""


class AlarmParams(Section):
    """One odd window is no alarm."""

    fired: Count = 2
    """So many windows must have fired, the newest among them, …"""
    of: Count = 3
    """… of the last so many."""

    @model_validator(mode="after")
    def _check(self) -> AlarmParams:
        if self.fired > self.of:
            raise ValueError("fired: more windows than `of` can never have fired")
        return self


class PriceParams(Section):
    """Of a million tokens, in whatever currency."""

    prompt: Amount
    answer: Amount


class MonitorParams(Section):
    cron: str | None = None
    """When `tuneline schedule` looks at what was logged since, such as "*/15 * * * *"; default: only `tuneline monitor` does."""
    window: WindowParams = WindowParams()
    false_alarms: Annotated[float, Field(ge=0.001, le=0.2)] = 0.01
    """Of windows in which nothing is wrong, how many may fire all the same, of each sort (drift, answers, …) by itself."""
    alarm: AlarmParams = AlarmParams()
    min_effect: Fraction = 0.1
    """Of drift of what is asked and answered: smaller shifts are none, however sure."""
    text: Literal["words", "off"] = "words"
    """How what is asked is compared, beside its length and language: by its words, or not at all."""
    reference_rows: Annotated[int, Field(ge=100, le=5000)] = 1000
    """So many rows of the training's snapshot, and so many of the release's own first answers, are compared with."""
    json_answers: bool = False
    """Every answer must be JSON, also where the request does not ask for it."""
    unusable: Fraction = 0.02
    """Of answers, how many may fail, or be no JSON where they must be."""
    p95_seconds: Annotated[float, Field(gt=0)] | None = None
    """No more than one request in twenty may take longer."""
    price: PriceParams | None = None
    """Without it tokens are counted, and cost is not told."""
    cost_per_thousand: Amount | None = None
    """What a thousand requests may cost; needs a price."""
    canary_prompts: str | None = None
    """A .jsonl file of the project: fixed questions and what must be answered, put to the release with each look."""
    canary_failures: Annotated[int, Field(ge=0)] = 0
    """So many of them may fail."""

    @model_validator(mode="after")
    def _check(self) -> MonitorParams:
        if self.cost_per_thousand is not None and self.price is None:
            raise ValueError("cost_per_thousand: needs price")
        return self
