"""Geometry of the drawings: values in, positions on the paper out. No HTML and no colour enters here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.pages.blocks import Bar, Bars, Dot, Lines, Matrix, Scatter

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 40
"""Size of a line chart and its margins, in SVG units."""

DRAWABLE = 1e100
"""Points beyond this, and those that are not numbers, are left out: scales would overflow."""

GRID_LABELS = 12
"""A confusion of more labels than this becomes a table."""


@dataclass(frozen=True, slots=True)
class BarMark:
    """Positions are per cent of the scale; None where there is no interval or bound."""

    bar: Bar
    series: int
    start: float
    length: float
    low: float | None
    high: float | None
    bound: float | None


@dataclass(frozen=True, slots=True)
class BarGroup:
    label: str
    detail: str
    marks: tuple[BarMark, ...]


@dataclass(frozen=True, slots=True)
class BarChart:
    """names: (series, colour number) of those that occur."""

    groups: tuple[BarGroup, ...]
    names: tuple[tuple[str, int], ...]
    zero: float
    least: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    series: int
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Tick:
    position: float
    label: str


@dataclass(frozen=True, slots=True)
class LineChart:
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dropped: int
    names: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Confused:
    expected: str
    called: str
    rows: int
    share: float


def bar_chart(block: Bars) -> BarChart:
    """Lay out horizontal bars. Values that are not finite are drawn as nothing, and their text still shows them."""
    bars = [Bar(*item) for item in block.items]
    order = list(dict.fromkeys([*block.order, *(b.series for b in bars if b.series)]))
    used = {b.series for b in bars}
    least, greatest = block.span or _span(bars)

    def place(value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        return round(100 * min(max((value - least) / (greatest - least), 0.0), 1.0), 3)

    zero = place(min(max(0.0, least), greatest)) or 0.0

    def mark(bar: Bar) -> BarMark:
        at = place(bar.value)
        start, end = sorted((zero, zero if at is None else at))
        colour = order.index(bar.series) if bar.series else 0
        return BarMark(bar, colour, start, round(end - start, 3), place(bar.low), place(bar.high), place(bar.bound))

    groups = tuple(
        BarGroup(label, detail, tuple(mark(bar) for bar in together))
        for (label, detail), together in groupby(bars, key=lambda b: (b.label, b.detail))
    )
    return BarChart(groups, tuple((n, at) for at, n in enumerate(order) if n in used), zero, least, greatest)


def line_chart(block: Lines) -> LineChart:
    """Lay out curves, x growing to the right and y upward, on linear axes with round ticks."""
    finite = {
        name: sorted((float(x), float(y)) for x, y in points if abs(x) < DRAWABLE and abs(y) < DRAWABLE)
        for name, points in block.series.items()
    }
    dropped = sum(len(points) for points in block.series.values()) - sum(len(points) for points in finite.values())
    xs = [x for points in finite.values() for x, _ in points]
    ys = [y for points in finite.values() for _, y in points]
    names = tuple((name, at) for at, name in enumerate(block.series))
    if not xs:
        return LineChart((), (), (), dropped, names)
    x_ticks, y_ticks = _round_ticks(min(xs), max(xs)), _round_ticks(min(ys), max(ys))
    x_low, x_high = min(xs[0], min(xs)), max(xs)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def right(x: float) -> float:
        return round(LEFT + (x - x_low) / ((x_high - x_low) or 1.0) * (WIDTH - LEFT - RIGHT), 2)

    def down(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1.0) * (HEIGHT - TOP - BOTTOM), 2)

    curves = []
    for number, (name, points) in enumerate(finite.items()):
        dots = tuple((right(x), down(y)) for x, y in _thinned(points))
        path = " ".join(f"{'L' if i else 'M'}{x:g} {y:g}" for i, (x, y) in enumerate(dots))
        # Few points are easily lost in a line, so they are drawn as dots too.
        curves.append(Curve(name, number, path, dots if len(dots) <= 40 else ()))
    return LineChart(
        tuple(curves),
        tuple(Tick(right(x), f"{x:g}") for x in x_ticks if x_low <= x <= x_high),
        tuple(Tick(down(y), f"{y:g}") for y in y_ticks),
        dropped,
        names,
    )


def scattered(block: Scatter, size: int = 640, margin: int = 10) -> tuple[tuple[float, float, int, Dot], ...]:
    """(x, y, colour number, dot) on a square of `size`; both axes on one scale, so that distances can be compared."""
    dots = [dot for dot in block.dots if math.isfinite(dot.x) and math.isfinite(dot.y)]
    if not dots:
        return ()
    colours = {name: at for at, name in enumerate(dict.fromkeys([*block.order, *(dot.series for dot in dots)]))}
    left, low = min(dot.x for dot in dots), min(dot.y for dot in dots)
    span = max(max(dot.x for dot in dots) - left, max(dot.y for dot in dots) - low) or 1.0
    scale = (size - 2 * margin) / span
    placed = [
        (round(margin + (dot.x - left) * scale, 1), round(margin + (dot.y - low) * scale, 1), colours[dot.series], dot)
        for dot in dots
    ]
    return tuple(sorted(placed, key=lambda one: one[3].marked))


def confusions(block: Matrix, most: int = 30) -> tuple[Confused, ...]:
    """The most frequent off-diagonal cells, most first; share is of the rows that are really `expected`."""
    found = [
        Confused(block.labels[i], block.labels[j], count, count / sum(row))
        for i, row in enumerate(block.counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return tuple(sorted(found, key=lambda c: (-c.rows, c.expected, c.called))[:most])


def heat(block: Matrix) -> tuple[tuple[int, ...], ...]:
    """For every cell of a small matrix, how dark it is: 0 (no rows) to 4 (nearly all rows of that label)."""
    return tuple(tuple(math.ceil(4 * count / (sum(row) or 1)) for count in row) for row in block.counts)


def _span(bars: Sequence[Bar]) -> tuple[float, float]:
    shown = [v for b in bars for v in (b.value, b.low, b.high, b.bound) if v is not None and math.isfinite(v)]
    least, greatest = min([0.0, *shown]), max([0.0, *shown])
    return (least, greatest) if greatest > least else (0.0, 1.0)


def _round_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that cover low to high: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= rough), rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    if not last - first <= 20:  # a range so far from zero that floats can not step through it
        return [low, high]
    return [round(i * step, 12) if abs(step) > 1e-9 else i * step for i in range(first, last + 1)]


def _thinned(points: list[tuple[float, float]], most: int = 1000) -> list[tuple[float, float]]:
    """At most about `most` points, each stretch keeping its least and its greatest, so that no spike is lost."""
    if len(points) <= most:
        return points
    stride = math.ceil(2 * len(points) / most)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stride):
        stretch = points[start : start + stride]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept
