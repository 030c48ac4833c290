"""Self-contained HTML pages: what validation and gate reports are written in. Blocks of plain values in, one HTML text out.

A page opens offline, in ten years, from an artifact store: style and drawings are inline, nothing is fetched, no script runs.
Everything shown may come from untrusted data, so all of it goes through autoescape. No record, no store and no file enters
here; callers turn records into blocks and write the text wherever it belongs.
"""

from __future__ import annotations

from pipeline.pages.blocks import Bar, Bars, Block, Cell, Dot, Lines, Links, Matrix, Pair, Pairs, Scatter, Side, Table, Text
from pipeline.pages.render import page

__all__ = [
    "Bar",
    "Bars",
    "Block",
    "Cell",
    "Dot",
    "Lines",
    "Links",
    "Matrix",
    "Pair",
    "Pairs",
    "Scatter",
    "Side",
    "Table",
    "Text",
    "page",
]
