"""What people see in a terminal: progress (a live line on a terminal, plain lines elsewhere, on stderr) and tables.

Nothing here knows what the work is, and nothing is printed to stdout: results are __main__'s to print.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports this module, and must answer --help at once
    from pipeline.ports import Progress

_PLAIN_SECONDS = 5.0


def reporter() -> Progress:
    """A Progress that fits where stderr goes."""
    return _live() if sys.stderr.isatty() else _plain()


def say(line: str) -> None:
    """One line for people, on stderr, so that stdout stays for results."""
    print(line, file=sys.stderr, flush=True)


def _plain() -> Progress:
    last: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        started = last.setdefault(what, now)
        if total and done >= total and now - started < _PLAIN_SECONDS:
            return
        if now - last[what] >= _PLAIN_SECONDS or (total and done >= total):
            last[what] = now
            say(f"    {what} {done:,}" + (f" of {total:,}" if total else ""))

    return report


def _live() -> Progress:
    shown = {"width": 0, "at": 0.0}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        finished = bool(total) and done >= total
        if now - shown["at"] < 0.1 and not finished:
            return
        line = f"    {what} {done:,}" + (f" of {total:,}" if total else "")
        print("\r" + line.ljust(int(shown["width"])), end="\n" if finished else "", file=sys.stderr, flush=True)
        shown["width"], shown["at"] = (0 if finished else len(line)), now

    return report


def to_json(value: Any) -> str:
    """JSON text of a record, a list of them, or plain values."""
    import json

    return json.dumps(value, default=_dump, indent=2, ensure_ascii=False)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows with the same keys as aligned lines, a heading first."""
    if not rows:
        return ["none yet"]
    heads = list(rows[0])
    cells = [heads, *[[_cell(row[head]) for head in heads] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def mapping(values: Mapping[str, Any]) -> list[str]:
    """Names and values as lines; a mapping within is shown as name=value."""
    return [f"{name}: {_cell(value)}" for name, value in values.items()]


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_cell(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(v) for v in value)
    return "-" if value is None else str(value)


def _dump(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
