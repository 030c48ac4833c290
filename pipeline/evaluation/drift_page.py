"""The page of a drift report: what drifted, how far beyond what is allowed, and how the sides look. Records in, HTML out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.domain.drift import DriftReport, Shift
from pipeline.evaluation.drift import LEAST_ROWS
from pipeline.pages import Bar, Bars, Block, Lines, Table, Text, page

_ASPECTS = {
    "input_length": "length of inputs",
    "output_length": "length of outputs",
    "label": "labels",
    "origin": "origins",
    "language": "languages",
    "kind": "kinds of examples",
    "text": "texts",
}
_POINTS = 60


def drift_page(report: DriftReport, lengths: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """lengths: by aspect, those of the reference rows and of the fresh ones."""
    blocks: list[Block] = [_what(report)]
    if report.shifts:
        blocks += [_table(report), _effects(report)]
    for shift in report.shifts:
        if shift.names:
            blocks.append(_shares(shift, report))
        if shift.aspect in lengths:
            blocks.append(_curves(shift, report, lengths[shift.aspect]))
    return page("Drift", verdict(report), None if report.too_few or (report.drifted and report.passed) else report.passed, blocks)


def verdict(report: DriftReport) -> str:
    """One sentence: whether there is drift, in what, and what becomes of it."""
    if report.policy == "off" and not report.shifts:
        return "Not looked for: drift.policy is off."
    if report.too_few:
        return f"Not compared: a side has fewer than {LEAST_ROWS} distinct rows."
    if not report.drifted:
        compared = ", ".join(_ASPECTS[shift.aspect] for shift in report.shifts) or "nothing, since all rows agree in everything"
        return f"No drift of the {report.fresh} from the {report.reference}. Compared: {compared}."
    names = ", ".join(f"{_ASPECTS[shift.aspect]} ({shift.effect:.2f})" for shift in report.drifted)
    end = "; the policy is to block" if not report.passed else ""
    return f"Drift of the {report.fresh} from the {report.reference}: {names}{end}."


def _what(report: DriftReport) -> Text:
    sides = [
        f"{name}: {what}, {rows} rows, {compared} of them compared"
        for name, what, rows, compared in (
            ("Fresh", report.fresh, report.fresh_rows, report.fresh_compared),
            ("Reference", report.reference, report.reference_rows, report.reference_compared),
        )
    ]
    refused = [f"{report.refused} rows of traffic could not be read"] if report.refused else []
    return Text("What was compared", "\n".join([*sides, *refused, f"Snapshot {report.snapshot}."]))


def _table(report: DriftReport) -> Table:
    rows = [
        (_ASPECTS[s.aspect], s.reference, s.fresh, s.psi, s.effect, s.p, s.adjusted, "drift" if s.drifted else "")
        for s in report.shifts
    ]
    return Table(
        "Aspects",
        ("aspect", "median before", "median now", "PSI", "effect", "p", "adjusted p", ""),
        rows,
        note=(
            f"Drift is an adjusted p of at most {report.false_alarms:g} and an effect of at least {report.min_effect:g}. "
            f"If nothing had changed, at most {report.false_alarms:.1%} of such tables would show any. "
            f"{report.permutations} shuffles of the sides."
        ),
        tones={i: "warn" if report.passed else "bad" for i, s in enumerate(report.shifts) if s.drifted},
    )


def _effects(report: DriftReport) -> Bars:
    bars = [Bar(_ASPECTS[s.aspect], s.effect, bound=report.min_effect) for s in report.shifts]
    return Bars("How far apart", bars, note="0: a row's side cannot be guessed. 1: it can always be.", span=(0.0, 1.0))


def _shares(shift: Shift, report: DriftReport) -> Bars:
    what = "words, by the share of texts that have them" if shift.aspect == "text" else _ASPECTS[shift.aspect]
    bars = [
        Bar(named.name, share, series=series)
        for named in shift.names
        for series, share in ((report.reference, named.reference), (report.fresh, named.fresh))
    ]
    return Bars(f"What differs most: {what}", bars, order=(report.reference, report.fresh))


def _curves(shift: Shift, report: DriftReport, sides: Sequence[Sequence[int]]) -> Lines:
    """Share of rows that are no longer than x; the longest hundredth is left out, so that the rest can be seen."""
    everything = sorted(length for side in sides for length in side)
    most = everything[int(len(everything) * 0.99)]
    steps = sorted({round(most * step / _POINTS) for step in range(_POINTS + 1)})
    series = {
        name: [(float(x), sum(length <= x for length in side) / len(side)) for x in steps]
        for name, side in zip((report.reference, report.fresh), sides, strict=True)
    }
    return Lines(f"{_ASPECTS[shift.aspect].capitalize()}: share of rows up to it", series, "characters", "share of rows")
