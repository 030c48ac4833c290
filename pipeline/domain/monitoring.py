"""What the monitor sees of a release: requests as they were logged, windows of them, and what each window came to. Pure values.

How a window is judged is evaluation/monitoring.py's subject; where requests come from, and who is told, is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from pydantic import AwareDatetime

from pipeline.domain.drift import Shift
from pipeline.domain.record import Record, Value
from pipeline.domain.signals import SignalKind

Asked = list[dict[str, str]] | str


class LoggedRequest(Value):
    """One request as the server wrote it down, personal data redacted.

    asked: of each prompt the messages or the text. answered: of each answer the text or the label; of an answer that failed what
    there was of it. json_wanted: JSON was asked for. json_valid: of each answer that is a text, whether it is JSON. seconds: in
    all, and to the first piece. error: the code of what went wrong, where that was no fault of the request.
    """

    at: AwareDatetime
    id: str
    endpoint: str
    release: str | None
    digest: str | None
    role: str | None
    asked: tuple[Asked, ...]
    answered: tuple[str, ...]
    finish: tuple[str | None, ...] = ()
    json_wanted: bool = False
    json_valid: tuple[bool, ...] = ()
    seconds: float
    first: float | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    error: str | None = None


class Measure(Value):
    """One thing that was looked at in a window.

    judged: whether there was enough to say anything. fired: whether it is beyond what params allow. amount: the number behind it,
    and what is allowed of it. p: chance of it, or of more, if nothing was wrong.
    """

    what: SignalKind
    judged: bool
    fired: bool
    amount: float
    allowed: float | None = None
    p: float | None = None
    detail: str


class CanaryPrompt(Value):
    """A fixed question and what must be answered. Exactly one of: expect, the whole answer but for space around it; pattern, a
    regular expression that must be found in it; fields, what a JSON answer must hold at least."""

    name: str
    asked: Asked
    expect: str | None = None
    pattern: str | None = None
    fields: dict[str, Any] | None = None


class CanaryAnswer(Value):
    """What a release answered to a canary prompt, as far as it may be told: the prompt's name, and whether the answer holds."""

    name: str
    passed: bool
    why: str = ""


class MonitorReport(Record):
    """One window of one release.

    release: name@version. snapshot: digest of the snapshot that the release's training read; None where it is not to be had here.
    requests, answers, errors: how many there were. seconds: median and 95th percentile. cost: of all of the window's tokens, in
    the currency of params. inputs, outputs: aspects of what was asked and answered, compared. canaries: see CanaryAnswer.
    """

    kind: ClassVar[str] = "monitor_report"

    model: str
    release: str
    snapshot: str | None
    window: str
    begin: AwareDatetime
    end: AwareDatetime
    requests: int
    answers: int
    errors: int
    p50: float
    p95: float
    prompt_tokens: int
    answer_tokens: int
    cost: float | None = None
    measures: tuple[Measure, ...]
    inputs: tuple[Shift, ...] = ()
    outputs: tuple[Shift, ...] = ()
    canaries: tuple[CanaryAnswer, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot,) if self.snapshot else ()

    @property
    def fired(self) -> tuple[Measure, ...]:
        return tuple(measure for measure in self.measures if measure.fired)

    def measure(self, what: SignalKind) -> Measure | None:
        return next((measure for measure in self.measures if measure.what is what), None)


class Alarm(Value):
    """What stands, since enough of the last windows fired. began: with the newest of them."""

    what: SignalKind
    release: str
    began: bool
    detail: str


def alarm_states(fired: Sequence[bool], *, least: int, of: int) -> list[bool]:
    """Whether an alarm stands after each window, oldest first.

    It begins with a window that fired when `least` of the last `of` have, that one among them, and ends when fewer have.
    """
    states: list[bool] = []
    standing = False
    for at in range(len(fired)):
        enough = sum(fired[max(0, at + 1 - of) : at + 1]) >= least
        standing = enough and (standing or fired[at])
        states.append(standing)
    return states


def hour_of(at: datetime, hours: float) -> tuple[datetime, datetime]:
    """The window of so many hours that an instant lies in: windows follow each other from 1970 on, in UTC."""
    length = timedelta(hours=hours)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    begin = epoch + (at - epoch) // length * length
    return begin, begin + length


def window_name(release: str, begin: datetime, first: str) -> str:
    """What a window is called: the same whenever the same requests are looked at again."""
    return f"{release} {begin.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {first}"
