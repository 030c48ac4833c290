"""The step `curve`: what shares of the training rows came to, a power law through them, what is enough. Scores in, Curve out.

Which rows a share has is decided here; how one is trained and measured is the caller's (see pipeline/curves.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from pipeline.domain.curve import Curve, CurvePoint, PowerLaw, Prospect, Share
from pipeline.domain.record import digest_value
from pipeline.errors import Misuse
from pipeline.evaluation.curve_page import curve_blocks, curve_sentence
from pipeline.evaluation.statistics import mean, paired_bootstrap
from pipeline.exploring.power_law import Floats, ahead, fit_law, resampled
from pipeline.pages import Block, Text, page

_LAWS = 2000
"""At most so many draws have a law put through them."""
_DECIMALS = 6


class Sitting(NamedTuple):
    """One training that is asked for: on how many rows, by which draw of them."""

    rows: int
    seed: int


class Measured(NamedTuple):
    """What a training came to. trained: rows it had. training: digest of its record. scores: of each test row."""

    trained: int
    training: str
    scores: tuple[float, ...]


def sizes_of(total: int, fractions: Sequence[float], rows: Sequence[int]) -> tuple[int, ...]:
    """The numbers of rows to train on, least first, all of them last. Raises Misuse for shares that there can not be."""
    if total < 2:
        raise Misuse(f"a curve needs rows to leave out, and the train side has {total}")
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise Misuse(f"{fraction:g} is no share", where="--fractions", fix="shares of the training rows, above 0 and up to 1")
    for number in rows:
        if not 1 < number <= total:
            raise Misuse(f"there are {total} training rows, not {number}", where="--rows", fix=f"a number from 2 to {total}")
    asked = {max(round(fraction * total), 2) for fraction in fractions} | set(rows)
    return tuple(sorted(asked | {total}))


def share_of(groups: Sequence[str], rows: int, seed: int) -> list[int]:
    """The numbers of the rows in a share of `rows`: whole groups, in an order drawn by the seed, until there are so many.

    A smaller share of the same seed lies within a larger one, and a group's place hangs on its name alone.
    """
    if rows >= len(groups):
        return list(range(len(groups)))
    counts: dict[str, int] = {}
    for group in groups:
        counts[group] = counts.get(group, 0) + 1
    taken: set[str] = set()
    number = 0
    for group in sorted(counts, key=lambda name: digest_value([seed, name])):
        if number >= rows:
            break
        taken.add(group)
        number += counts[group]
    return [at for at, group in enumerate(groups) if group in taken]


def sittings(sizes: Sequence[int], seeds: int) -> list[Sitting]:
    """All trainings, a whole curve by one seed before the next, small shares first: stopped early it still shows something."""
    return [Sitting(rows, seed) for seed in range(seeds) for rows in sizes]


def curve(
    wanted: Sequence[Sitting],
    measure: Callable[[Sitting], Measured | None],
    *,
    groups: Sequence[str],
    total: int,
    splits: str,
    params: Mapping[str, Any],
    metric: str,
    margin: float,
    confidence: float,
    resamples: int,
    seed: int,
) -> Curve:
    """Measure every share that is wanted and put the curve through them. measure: None when the budget is spent, which ends it.

    groups: of the test rows. total: of the training rows. Raises Misuse where there is no test row.
    """
    if not groups:
        raise Misuse(f"the test side has no row that {metric} counts", fix="raise split.test, or name another metric first")
    found: dict[Sitting, Measured] = {}
    for sitting in wanted:
        measured = measure(sitting)
        if measured is None:
            break
        found[sitting] = measured
    points = tuple(
        CurvePoint(rows=s.rows, trained=m.trained, seed=s.seed, training=m.training, score=round(float(np.mean(m.scores)), 9))
        for s, m in found.items()
    )
    scores: dict[int, list[tuple[float, ...]]] = {}
    for sitting, one in found.items():
        scores.setdefault(sitting.rows, []).append(one.scores)
    shares: tuple[Share, ...] = ()
    law, doubled = None, None
    if scores:
        drawn = resampled(scores, groups, resamples=resamples, seed=seed)
        shares = _shares(scores, groups, drawn[1], total, margin=margin, confidence=confidence, resamples=resamples, seed=seed)
        law, doubled = _doubled(shares, drawn[1][:_LAWS], confidence)
    return Curve(
        splits=splits,
        params=dict(params),
        metric=metric,
        test_rows=len(groups),
        margin=margin,
        confidence=confidence,
        points=points,
        shares=shares,
        law=law,
        doubled=doubled,
        missing=len(wanted) - len(found),
    )


def curve_page(found: Curve, title: str) -> str:
    """The curve as a page of its own."""
    blocks: list[Block] = [Text("What this is", _explained(found)), *curve_blocks(found)]
    return page(title, curve_sentence(found), None, blocks)


def _shares(
    scores: Mapping[int, Sequence[Sequence[float]]],
    groups: Sequence[str],
    drawn: Floats,
    total: int,
    *,
    margin: float,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[Share, ...]:
    """Each number of rows with its interval: the wider, at each end, of two. BCa over groups of test rows knows what few rows do
    not show, and draws of rows and trainings together know how trainings differ."""
    sizes = sorted(scores)
    means = {str(size): mean(np.mean(np.array(scores[size], float), axis=0)) for size in sizes}
    whole = str(sizes[-1])
    pairs = [(str(size), whole) for size in sizes[:-1]]
    found = paired_bootstrap(means, groups, pairs=pairs, resamples=resamples, confidence=confidence, seed=seed)
    shares = []
    for at, size in enumerate(sizes):
        value = found.values[str(size)]
        low, high = _wider(value.low, value.high, drawn[:, at], confidence)
        behind, behind_low, behind_high = 0.0, 0.0, 0.0
        if size != sizes[-1]:
            lead = found.differences[str(size), whole]
            behind = lead.value
            behind_low, behind_high = _wider(lead.low, lead.high, drawn[:, at] - drawn[:, -1], confidence)
        shares.append(
            Share(
                rows=size,
                fraction=round(size / total, _DECIMALS),
                score=value.value,
                low=low,
                high=high,
                behind=behind,
                behind_low=behind_low,
                behind_high=behind_high,
                enough=_enough(behind_low, behind_high, margin),
            )
        )
    return tuple(shares)


def _wider(low: float, high: float, drawn: Floats, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    least, most = np.quantile(drawn, [tail, 1 - tail]).tolist()
    return round(min(low, least), _DECIMALS), round(max(high, most), _DECIMALS)


def _enough(low: float, high: float, margin: float) -> Literal["yes", "no", "unclear"]:
    return "yes" if low > -margin else "no" if high < -margin else "unclear"


def _doubled(shares: Sequence[Share], drawn: Floats, confidence: float) -> tuple[PowerLaw | None, Prospect | None]:
    """The law through the shares, and what it says of twice the rows; None where they are too few for one."""
    sizes = [share.rows for share in shares]
    law = fit_law(sizes, [1 - share.score for share in shares])
    if law is None:
        return None, None
    at, tail = 2 * sizes[-1], (1 - confidence) / 2
    told, now = 1 - ahead(sizes, 1 - drawn, at), 1 - ahead(sizes, 1 - drawn, sizes[-1])
    score, gain = 1 - law.error(at), law.error(sizes[-1]) - law.error(at)
    low, high = np.quantile(told, [tail, 1 - tail]).tolist()
    gain_low, gain_high = np.quantile(told - now, [tail, 1 - tail]).tolist()
    return PowerLaw(floor=law.floor, gain=law.gain, rate=law.rate), Prospect(
        rows=at,
        score=round(score, _DECIMALS),
        low=round(min(low, score), _DECIMALS),
        high=round(max(high, score), _DECIMALS),
        gain=round(gain, _DECIMALS),
        gain_low=round(min(gain_low, gain), _DECIMALS),
        gain_high=round(max(gain_high, gain), _DECIMALS),
    )


def _explained(found: Curve) -> str:
    told = "Each share was trained on with the same params as all rows, and asked the same test rows."
    if len(found.shares) == 3:
        told += " Three shares fix the three numbers of the law and leave nothing to check it by: name more with --fractions."
    return told + " The test rows tell here how many rows are enough; nothing of it enters the gate."
