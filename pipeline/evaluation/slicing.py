"""The primary metric by slices of the test rows: is the candidate worse anywhere? Many slices are many chances to find one that
looks worse by luck, so their p-values are corrected together (Holm).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.domain.measured import CANDIDATE, Comparison, SliceValue
from pipeline.evaluation.metrics import Metric, slice_metric
from pipeline.evaluation.pairing import Paired, Sampling, checked, pair
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Numbers, mean
from pipeline.evaluation.testing import holm, paired_p

SLICE_VALUES = 30
"""Of a field, at most this many values are reported: those with the most rows."""


def measure_slices(
    rows: SplitRows, said: Mapping[str, Said], primary: Metric, fields: Sequence[str], how: Sampling
) -> Iterator[SliceValue]:
    """Every subject on every slice by each of `fields`, by the primary metric or what stands in for it; see slice_metric."""
    if not fields:
        return
    used, places = slice_metric(primary), rows.places(primary.kinds)
    rows, said = rows.only(places), {subject: whole.only(places) for subject, whole in said.items()}
    scores = {
        subject: checked(found, f"{subject}'s {used.name}")
        for subject, given in said.items()
        if (found := used.scores(rows, given)) is not None
    }
    others = [subject for subject in scores if subject != CANDIDATE] if CANDIDATE in scores else []
    for field in dict.fromkeys(fields):
        yield from _by_field(field, rows, scores, others, used.name, how)


def _by_field(
    field: str, rows: SplitRows, scores: Mapping[str, Numbers], others: Sequence[str], metric: str, how: Sampling
) -> Iterator[SliceValue]:
    members: dict[str, list[int]] = {}
    for at, value in enumerate(rows.field(field)):
        if value is not None:
            members.setdefault(value, []).append(at)
    shown = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))[:SLICE_VALUES]
    found: dict[str, Paired] = {}
    worse: dict[tuple[str, str], float] = {}
    for value, places in shown:
        groups = [rows.groups[at] for at in places]
        within = {subject: column[places] for subject, column in scores.items()}
        found[value] = pair(metric, {s: mean(column) for s, column in within.items()}, within, groups, others, how)
        for other in others:
            lead = within[CANDIDATE] - within[other]
            worse[other, value] = paired_p(lead, groups, alternative="less", seed=how.seed)
    adjusted: dict[tuple[str, str], float] = {}
    for other in others:
        together = holm([worse[other, value] for value in found])
        adjusted |= {(other, value): p for value, p in zip(found, together, strict=True)}
    for value, seen in found.items():
        leads: dict[str, Comparison] = {c.other: c for c in seen.comparisons}
        for subject, one in seen.values.items():
            key = (subject, value)
            yield SliceValue(
                field=field,
                value=value,
                subject=subject,
                metric=metric,
                score=one.value,
                low=one.low,
                high=one.high,
                rows=len(members[value]),
                comparison=leads.get(subject),
                worse=round(worse[key], 9) if key in worse else None,
                adjusted=round(adjusted[key], 9) if key in adjusted else None,
            )
