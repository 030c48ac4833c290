"""Monitor: one window of a release's traffic against what its training read, what it answered at first, and what params allow.

Requests in, a report out. Where requests are read, which window is next, who is told and what is asked of the release are for the
caller (pipeline/monitoring.py); nothing here waits, writes or sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from pipeline.comparing import Side, judge
from pipeline.domain.data import ExampleKind, messages_to_input
from pipeline.domain.drift import DriftReport, Shift
from pipeline.domain.monitoring import Asked, CanaryAnswer, LoggedRequest, Measure, MonitorReport
from pipeline.domain.signals import SignalKind
from pipeline.evaluation import monitoring
from pipeline.evaluation.drift import LEAST_ROWS, Aspect, NameAspect, NumberAspect, compare, shuffles_for
from pipeline.evaluation.metrics.refusals import refuses
from pipeline.params.drift import DriftParams
from pipeline.params.monitor import MonitorParams
from pipeline.spoken.plain_text import input_text

_SHAPES = ("object", "list", "empty", "refusal", "text")


@dataclass(frozen=True, slots=True)
class AnswerLooks:
    """What answers look like, without a word of them: lengths in characters, labels, shapes, how they ended."""

    lengths: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    finish: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.lengths)

    def __add__(self, other: AnswerLooks) -> AnswerLooks:
        return AnswerLooks(
            self.lengths + other.lengths, self.labels + other.labels, self.shapes + other.shapes, self.finish + other.finish
        )


def looks_of(requests: Sequence[LoggedRequest]) -> AnswerLooks:
    """Of all answers that are whole."""
    lengths, labels, shapes, finish = [], [], [], []
    for request in requests:
        if request.error is not None:
            continue
        for number, text in enumerate(request.answered):
            lengths.append(len(text))
            if request.endpoint == "classify":
                labels.append(text)
            else:
                shapes.append(_shape(text))
                finish.append(str(request.finish[number]) if number < len(request.finish) else "")
    return AnswerLooks(tuple(lengths), tuple(labels), tuple(shapes), tuple(finish))


def monitor(
    requests: Sequence[LoggedRequest],
    params: MonitorParams,
    *,
    model: str,
    release: str,
    window: str,
    snapshot: str | None = None,
    reference: Side | None = None,
    first_answers: AnswerLooks | None = None,
    canaries: Sequence[CanaryAnswer] = (),
    drawn: int = 1000,
) -> MonitorReport:
    """Judge a window. reference: rows that the training's snapshot (its digest) holds, drawn; None where that is not to be had.

    first_answers: what the release's own first answers looked like; None for the windows that these come from. canaries: what it
    answered to canary prompts. drawn: of what was asked so many different questions are compared at most.
    """
    answers = sum(len(request.answered) for request in requests if request.error is None)
    errors = sum(request.error is not None for request in requests)
    seconds = [request.seconds for request in requests if request.error is None]
    drift = _inputs(requests, params, snapshot, reference, drawn)
    outputs = _outputs(looks_of(requests), first_answers, params)
    costs = _costs(requests, params)
    measures = [
        _shifted(SignalKind.DRIFT, drift.shifts if drift else None, params, "what is asked"),
        _shifted(SignalKind.ANSWERS, outputs, params, "what is answered"),
        _usable(requests, params),
        monitoring.latency(seconds, p95=params.p95_seconds, false_alarms=params.false_alarms),
    ]
    if costs is not None:
        measures.append(monitoring.cost(costs, per_thousand=params.cost_per_thousand, false_alarms=params.false_alarms))
    if canaries:
        measures.append(monitoring.canaries(canaries, failures=params.canary_failures))
    return MonitorReport(
        model=model,
        release=release,
        snapshot=snapshot,
        window=window,
        begin=min(request.at for request in requests),
        end=max(request.at for request in requests),
        requests=len(requests),
        answers=answers,
        errors=errors,
        p50=round(monitoring.quantile(seconds, 0.5), 6),
        p95=round(monitoring.quantile(seconds, 0.95), 6),
        prompt_tokens=sum(request.prompt_tokens for request in requests),
        answer_tokens=sum(request.answer_tokens for request in requests),
        cost=round(sum(costs), 9) if costs is not None else None,
        measures=tuple(measures),
        inputs=drift.shifts if drift else (),
        outputs=outputs or (),
        canaries=tuple(canaries),
    )


def asked_texts(requests: Sequence[LoggedRequest]) -> list[str]:
    """What was asked, as plain text, each question once, in the order of the window."""
    texts: dict[str, str] = {}
    for request in requests:
        for asked in request.asked:
            text = _plain(asked)
            if text.strip():
                texts.setdefault(" ".join(text.casefold().split()), text)
    return list(texts.values())


def cleaned(side: Side, redact: Callable[[str], str]) -> Side:
    """Reference rows as the log would hold them: personal data that is only redacted on one side would be a difference."""
    columns: Mapping[str, Sequence[str]] = {**side.columns, "text": [redact(text) for text in side.columns["text"]]}
    return Side(side.what, side.rows, columns)


def _inputs(
    requests: Sequence[LoggedRequest], params: MonitorParams, snapshot: str | None, reference: Side | None, drawn: int
) -> DriftReport | None:
    if reference is None or snapshot is None:
        return None
    texts = asked_texts(requests)[:drawn]
    aspects: tuple[Literal["input_length", "language", "text"], ...] = ("input_length", "language")
    if params.text != "off":
        aspects = (*aspects, "text")
    wanted = DriftParams(
        policy="warn", aspects=aspects, false_alarms=params.false_alarms, min_effect=params.min_effect, text="words"
    )
    before = Side(reference.what, reference.rows, {"text": reference.columns["text"]})
    report = judge(snapshot, None, before, Side("traffic", len(texts), {"text": texts}), wanted, None)
    return None if report.too_few else report


def _outputs(now: AnswerLooks, before: AnswerLooks | None, params: MonitorParams) -> tuple[Shift, ...] | None:
    if before is None or min(len(now), len(before)) < LEAST_ROWS:
        return None
    aspects: list[Aspect] = []
    for name, first, later in (
        ("output_length", before.lengths, now.lengths),
        ("label", before.labels, now.labels),
        ("shape", before.shapes, now.shapes),
        ("finish", before.finish, now.finish),
    ):
        # Labels have lengths too, but no others than their names have.
        if name == "output_length" and before.labels:
            continue
        column: tuple[Any, ...] = (*first, *later)
        if first and later and len(set(column)) > 1:
            aspects.append(NumberAspect(name, column) if name == "output_length" else NameAspect(name, column))
    if not aspects:
        return ()
    sides = [False] * len(before) + [True] * len(now)
    found = compare(aspects, sides, shuffles=shuffles_for(params.false_alarms, len(aspects)))  # type: ignore[arg-type]
    return tuple(
        Shift(
            aspect=one.name,
            effect=one.effect,
            p=one.p,
            adjusted=one.adjusted,
            drifted=one.adjusted <= params.false_alarms and one.effect >= params.min_effect,
        )
        for one in found
    )


def _shifted(what: SignalKind, shifts: Sequence[Shift] | None, params: MonitorParams, said: str) -> Measure:
    if shifts is None:
        return Measure(
            what=what, judged=False, fired=False, amount=0.0, allowed=params.min_effect, detail=f"{said}: not compared"
        )
    drifted = [shift for shift in shifts if shift.drifted]
    names = ", ".join(f"{shift.aspect} (effect {shift.effect:.2f})" for shift in drifted)
    return Measure(
        what=what,
        judged=True,
        fired=bool(drifted),
        amount=max((shift.effect for shift in shifts), default=0.0),
        allowed=params.min_effect,
        p=min((shift.adjusted for shift in shifts), default=1.0),
        detail=f"{said} has drifted: {names}" if drifted else f"{said}: no drift",
    )


def _usable(requests: Sequence[LoggedRequest], params: MonitorParams) -> Measure:
    bad = of = 0
    for request in requests:
        if request.error is not None:
            bad, of = bad + 1, of + 1
            continue
        of += len(request.answered)
        if request.json_wanted or (params.json_answers and request.endpoint != "classify"):
            bad += len(request.json_valid) - sum(request.json_valid)
    said = "answers failed, or were no JSON where they must be"
    return monitoring.share(SignalKind.FORMAT, bad, of, allowed=params.unusable, false_alarms=params.false_alarms, said=said)


def _costs(requests: Sequence[LoggedRequest], params: MonitorParams) -> list[float] | None:
    if params.price is None:
        return None
    price = params.price
    return [(one.prompt_tokens * price.prompt + one.answer_tokens * price.answer) / 1e6 for one in requests]


def _shape(text: str) -> str:
    head = text.lstrip()
    if not head:
        return "empty"
    if head[0] in "{[":
        try:
            return "object" if isinstance(orjson.loads(text), dict) else "list"
        except orjson.JSONDecodeError:
            pass
    return "refusal" if refuses(text) else "text"


def _plain(asked: Asked) -> str:
    return asked if isinstance(asked, str) else input_text(messages_to_input(asked), ExampleKind.PROMPT)
