"""The lineage of a release as a picture: an SVG of its records, sources on the left, the release on the right. Pure text.

Shown without a script, a font or an address from elsewhere, so that it can be mailed, printed and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pipeline.domain.lineage import Lineage, LineageNode

WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 236, 78, 64, 22, 16
"""Of a box, of the room between boxes, and of the margin, in SVG units."""
MOST_SOURCES = 12
"""Further sources are told in one box."""
_CHARS = 34
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1a1a1a}.kind{font-weight:600}.digest{font-family:ui-monospace,monospace;fill:#555}"
    "rect{fill:#f6f7f9;stroke:#8b94a3}.release rect{fill:#e3f1e6;stroke:#2e7d43}.source rect{fill:#fdf3e1;stroke:#b7791f}"
    "path{fill:none;stroke:#8b94a3}"
)


@dataclass(frozen=True, slots=True)
class Box:
    """A node and where it lies. lines: kind, digest, and what is told of it."""

    key: str
    role: str
    lines: tuple[str, ...]
    x: int
    y: int


def lineage_svg(lineage: Lineage) -> str:
    """The whole picture. Every text of a record is escaped; a long one is cut, with the whole of it as a tooltip."""
    boxes = layout(lineage)
    width = EDGE + max(box.x + WIDTH for box in boxes)
    height = EDGE + max(box.y + HEIGHT for box in boxes)
    title = f"{lineage.model} version {lineage.version}" + (f", holds {', '.join(lineage.stages)}" if lineage.stages else "")
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        *_edges(lineage.nodes, {box.key: box for box in boxes}),
        *(line for box in boxes for line in _drawn(box)),
        "</svg>",
    ]
    return "\n".join(drawn) + "\n"


def layout(lineage: Lineage) -> tuple[Box, ...]:
    """Boxes in columns, the furthest from the release first."""
    columns: dict[int, list[LineageNode]] = {}
    for node in lineage.nodes:
        columns.setdefault(node.depth, []).append(node)
    deepest, tallest = max(columns), max(min(len(column), MOST_SOURCES + 1) for column in columns.values())
    boxes: list[Box] = []
    for depth, column in columns.items():
        shown = column if len(column) <= MOST_SOURCES + 1 else column[-MOST_SOURCES:]
        x = EDGE + (deepest - depth) * (WIDTH + GAP_X)
        rows = len(shown) + (len(shown) < len(column))
        top = EDGE + (tallest - rows) * (HEIGHT + GAP_Y) // 2
        for row, node in enumerate(shown):
            boxes.append(_box(node, lineage, x, top + row * (HEIGHT + GAP_Y)))
        if len(shown) < len(column):
            said = ("sources", f"… and {len(column) - len(shown)} earlier ones")
            boxes.append(Box(f"more {depth}", "source", said, x, top + len(shown) * (HEIGHT + GAP_Y)))
    return tuple(boxes)


def _box(node: LineageNode, lineage: Lineage, x: int, y: int) -> Box:
    role = "release" if node.depth == 0 else "source" if node.kind == "source" else "record"
    facts = {"": node.where} if role == "source" else node.facts
    if role == "release":
        facts = {"version": lineage.version, "holds": ", ".join(lineage.stages) or "nothing"}
    told = [f"{key}: {value}" if key else value for key, value in list(facts.items())[:2]]
    return Box(f"{node.kind} {node.digest}", role, (node.kind.replace("_", " "), node.digest[:12], *told), x, y)


def _edges(nodes: Sequence[LineageNode], boxes: Mapping[str, Box]) -> Iterator[str]:
    """A curve from each record to every one that names it."""
    by_digest: dict[str, list[Box]] = {}
    for node in nodes:
        if (box := boxes.get(f"{node.kind} {node.digest}")) is not None:
            by_digest.setdefault(node.digest, []).append(box)
    for node in nodes:
        to = boxes.get(f"{node.kind} {node.digest}")
        for parent in dict.fromkeys(node.parents) if to else ():
            for of in by_digest.get(parent, ()):
                if of != to and to is not None:
                    start, end = (of.x + WIDTH, of.y + HEIGHT // 2), (to.x, to.y + HEIGHT // 2)
                    middle = (start[0] + end[0]) // 2
                    yield f'<path d="M{start[0]},{start[1]} C{middle},{start[1]} {middle},{end[1]} {end[0]},{end[1]}"/>'


def _drawn(box: Box) -> Iterator[str]:
    yield f'<g class="{box.role}"><title>{escape(" · ".join(box.lines))}</title>'
    yield f'<rect x="{box.x}" y="{box.y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
    for row, line in enumerate(box.lines):
        style = ("kind", "digest", "", "")[row]
        cut = line if len(line) <= _CHARS else line[: _CHARS - 1] + "…"
        yield f'<text class="{style}" x="{box.x + 10}" y="{box.y + 19 + row * 17}">{escape(cut)}</text>'
    yield "</g>"
