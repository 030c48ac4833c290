"""The page of what the monitor saw: what stands, the newest window of each release, and how it went over the windows."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.monitoring import Alarm, CanaryAnswer, MonitorReport
from pipeline.domain.signals import SignalKind
from pipeline.pages import Bar, Bars, Block, Lines, Table, page

_MOST_WINDOWS = 200
_CURVES = (
    (SignalKind.DRIFT, "Drift of what is asked", "effect"),
    (SignalKind.ANSWERS, "Drift of what is answered", "effect"),
    (SignalKind.FORMAT, "Answers that are unusable", "share"),
    (SignalKind.COST, "Cost", "of a thousand requests"),
)


def monitor_page(model: str, reports: Sequence[MonitorReport], alarms: Sequence[Alarm], canaries: Sequence[CanaryAnswer]) -> str:
    """reports: oldest first, of all releases."""
    names = list(dict.fromkeys(report.release for report in reports))
    newest = [[report for report in reports if report.release == name][-1] for name in names]
    blocks: list[Block] = []
    if alarms:
        rows = [(alarm.release, alarm.what.value, alarm.detail) for alarm in alarms]
        blocks.append(Table("Alarms that stand", ("release", "what", "seen"), rows, tones=dict.fromkeys(range(len(rows)), "bad")))
    for report in newest:
        blocks += _window(report)
    if canaries:
        tones = {at: "good" if answer.passed else "bad" for at, answer in enumerate(canaries)}
        answered = [(answer.name, answer.passed, answer.why) for answer in canaries]
        blocks.append(Table("Canary prompts", ("prompt", "holds", "why not"), answered, tones=tones))
    for what, heading, label in _CURVES:
        series = {name: _curve(reports, name, what) for name in names}
        series = {name: points for name, points in series.items() if len(points) > 1}
        if series:
            blocks.append(Lines(heading, series, "window", label))
    times = {
        f"{name} {which}": [
            (float(at), getattr(report, field))
            for at, report in enumerate([report for report in reports if report.release == name][-_MOST_WINDOWS:])
        ]
        for name in names
        for which, field in (("median", "p50"), ("95 in 100", "p95"))
    }
    if any(len(points) > 1 for points in times.values()):
        blocks.append(Lines("Seconds of an answer", times, "window", "seconds"))
    return page(f"Monitor of {model}", _verdict(reports, alarms), None if not reports else not alarms, blocks)


def _verdict(reports: Sequence[MonitorReport], alarms: Sequence[Alarm]) -> str:
    if alarms:
        return "; ".join(f"{alarm.release}: {alarm.detail}" for alarm in alarms) + "."
    return f"Nothing stands after {len(reports)} windows." if reports else "No window is full yet."


def _window(report: MonitorReport) -> list[Block]:
    rows = [
        (m.what.value, m.detail, m.amount if m.judged else None, m.allowed, m.p, "fired" if m.fired else "" if m.judged else "-")
        for m in report.measures
    ]
    tones = {at: "warn" for at, measure in enumerate(report.measures) if measure.fired}
    said = (
        f"{report.requests} requests from {report.begin:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M}, {report.errors} failed; "
        f"{report.prompt_tokens} + {report.answer_tokens} tokens"
    )
    said += f", cost {report.cost:.4g}" if report.cost is not None else ""
    heads = ("what", "seen", "amount", "allowed", "p", "")
    blocks: list[Block] = [Table(f"{report.release}: the newest window", heads, rows, note=said, tones=tones)]
    shifts = [*report.inputs, *report.outputs]
    if shifts:
        bars = [Bar(shift.aspect, shift.effect) for shift in shifts]
        blocks.append(Bars(f"{report.release}: how far apart", bars, note="0: as at first. 1: wholly another.", span=(0.0, 1.0)))
    for shift in report.inputs:
        if shift.drifted and shift.names:
            named = [
                Bar(named.name, share, series=series)
                for named in shift.names
                for series, share in (("snapshot", named.reference), ("traffic", named.fresh))
            ]
            blocks.append(Bars(f"{report.release}: what differs most, {shift.aspect}", named, order=("snapshot", "traffic")))
    return blocks


def _curve(reports: Sequence[MonitorReport], release: str, what: SignalKind) -> list[tuple[float, float]]:
    mine = [report for report in reports if report.release == release][-_MOST_WINDOWS:]
    found = [(float(at), report.measure(what)) for at, report in enumerate(mine)]
    return [(at, measure.amount) for at, measure in found if measure is not None and measure.judged]
