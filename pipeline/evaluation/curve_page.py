"""A learning curve as blocks of a page and as a sentence: what shares of the rows were enough for, and where it leads."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain.curve import Curve
from pipeline.evaluation.wording import points, title_of, with_interval
from pipeline.pages import Block, Cell, Lines, Table

_DRAWN = 24


def curve_sentence(curve: Curve) -> str:
    """What is enough, and what twice the rows would buy."""
    whole = curve.whole
    if whole is None:
        return "No share has been trained on yet."
    told = f"{title_of(curve.metric)} on {whole.rows:,} rows is {whole.score:.3f}"
    enough = [share for share in curve.shares[:-1] if share.enough == "yes"]
    if enough:
        told += f"; {enough[0].rows:,} are enough for that within {points(curve.margin)}"
    elif len(curve.shares) > 1 and all(share.enough == "no" for share in curve.shares[:-1]):
        told += "; none of the smaller shares is enough"
    if curve.doubled is None:
        return f"{told}. Where it leads cannot be said: no power law fits so few points."
    ahead = curve.doubled
    gain = f"{100 * ahead.gain:+.1f} points ({100 * ahead.gain_low:+.1f} to {100 * ahead.gain_high:+.1f})"
    return f"{told}. Twice the rows would add {gain}."


def curve_blocks(curve: Curve) -> Iterator[Block]:
    """The shares as a table and as a line, with the law through them."""
    seeds = {share.rows: sum(point.rows == share.rows for point in curve.points) for share in curve.shares}
    rows: list[list[Cell]] = [
        [
            share.rows,
            f"{share.fraction:.0%}",
            seeds[share.rows],
            with_interval(share.score, share.low, share.high),
            None if share is curve.whole else with_interval(share.behind, share.behind_low, share.behind_high, signed=True),
            "all there is" if share is curve.whole else share.enough,
        ]
        for share in curve.shares
    ]
    if curve.doubled is not None:
        ahead = curve.doubled
        told = with_interval(ahead.score, ahead.low, ahead.high)
        gain = with_interval(ahead.gain, ahead.gain_low, ahead.gain_high, signed=True)
        rows.append([ahead.rows, "by the law", None, told, gain, "not trained"])
    heads = ["rows", "share", "trainings", title_of(curve.metric), "against all rows", "enough?"]
    note = (
        f"On {curve.test_rows} test rows. Enough: not shown to be {points(curve.margin)} or more behind all rows. "
        f"Intervals ({curve.confidence:.0%}): bootstrap over groups of test rows and over seeds."
    )
    if curve.missing:
        note += f" {curve.missing} trainings were not made: the budget was spent."
    yield Table("Would more rows help? Would fewer do?", heads, rows, note=note)
    series = {"measured": [(float(share.rows), 1 - share.score) for share in curve.shares]}
    if curve.law is not None and curve.shares:
        first, last = float(curve.shares[0].rows), 2.0 * curve.shares[-1].rows
        steps = [first + (last - first) * at / _DRAWN for at in range(_DRAWN + 1)]
        law = curve.law
        series[f"{law.floor:.3g} + {law.gain:.3g} × rows^-{law.rate:.3g}"] = [(x, 1 - law.score(x)) for x in steps]
    yield Lines("Learning curve", series, "training rows", "error")
