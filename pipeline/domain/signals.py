"""What was seen of a model in one window of time: the ground on which triggers decide. Pure values."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import AwareDatetime

from pipeline.domain.record import Record


class SignalKind(StrEnum):
    DRIFT = "drift"
    ANSWERS = "answers"
    FORMAT = "format"
    LATENCY = "latency"
    COST = "cost"
    CANARY = "canary"
    FEEDBACK = "feedback"


class Signal(Record):
    """One window of one kind. window: names it, the same window always the same. at: its end.

    fired: whether what was seen is beyond what params allow. amount: the number behind it (an effect, a share, a count of rows).
    detail: a sentence for people, without a row's text.
    """

    kind: ClassVar[str] = "signal"

    model: str
    what: SignalKind
    window: str
    at: AwareDatetime
    fired: bool
    amount: float
    detail: str
    release: str | None = None
