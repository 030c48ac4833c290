"""What a page is made of: frozen blocks of plain strings and numbers. No HTML and no geometry enters here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Cell = str | int | float | bool | None
"""True and False are shown as yes and no, None as a dash, floats with four significant digits."""


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs, parted by blank lines; line breaks are kept."""

    heading: str
    body: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under headers. A row named in `tones` (index: good, bad or warn) is coloured."""

    heading: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    tones: Mapping[int, str] | None = None


class Bar(NamedTuple):
    """One value with its interval (drawn as a whisker) and, where there is one, the bound it had to meet (a dashed mark)."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    series: str = ""
    detail: str = ""
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars on one scale. Items are Bars or plain (label, value, low, high) tuples.

    Neighbours of the same label and detail stand together under it. Bars of the same `series` share a colour; `order` lists all
    series where several charts are to use the same colours. span: ends of the scale; by default from the least to the greatest
    thing shown, zero included.
    """

    heading: str
    items: Sequence[Bar | tuple[str, float, float | None, float | None]]
    note: str = ""
    span: tuple[float, float] | None = None
    order: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """Curves over a common x axis. Points that are not finite (or absurdly far) are left out, and the page says how many."""

    heading: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Confusion: counts[i][j] rows that are labels[i] and were called labels[j].

    Many labels are shown as a table of the most frequent confusions, since nobody reads a 77-column grid.
    """

    heading: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    note: str = ""


class Dot(NamedTuple):
    """A point of a map. title: what is shown when it is pointed at. marked: drawn with a ring."""

    x: float
    y: float
    series: str
    title: str
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Scatter:
    """A map of points without axes. order: the series in the order of their colours; those beyond the palette share the last."""

    heading: str
    dots: Sequence[Dot]
    order: Sequence[str] = ()
    note: str = ""


class Side(NamedTuple):
    """One of the answers that stand side by side. tone: good, bad, warn or nothing."""

    name: str
    text: str
    tone: str = ""


class Pair(NamedTuple):
    """What was asked, and the answers to it."""

    title: str
    sides: Sequence[Side]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Answers side by side, one card a question."""

    heading: str
    items: Sequence[Pair]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Links:
    """(text, address) pairs. Only http, https and relative addresses become links; others are shown as text."""

    heading: str
    items: Sequence[tuple[str, str]]


Block = Text | Table | Bars | Lines | Matrix | Scatter | Pairs | Links
