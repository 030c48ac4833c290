"""How numbers, intervals and rows are written on the pages of this room. Plain values in, text out."""

from __future__ import annotations

import json

from pipeline.domain.measured import NET_WINS
from pipeline.evaluation.metrics import METRICS

SHOWN_CHARACTERS = 1500
_KEPT = "\u00a0"


def title_of(metric: str) -> str:
    """What a metric is called; one that is bound to params, or made by a judge, by its name."""
    if metric == NET_WINS:
        return "Net wins, by the judge"
    return METRICS[metric].title if metric in METRICS else metric.replace("_", " ").capitalize()


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str | None:
    """Both ends on one line; None where there is none."""
    if low is None or high is None:
        return None
    sign = "+" if signed else ""
    return f"{low:{sign}.3f} to {high:{sign}.3f}".replace(" ", _KEPT)


def with_interval(value: float, low: float, high: float, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{value:{sign}.3f}{_KEPT}({interval(low, high, signed=signed)})"


def points(share: float) -> str:
    """A share as percentage points: 6 points, 2.5 points."""
    told = f"{100 * share:.1f}".removesuffix(".0")
    return f"{told} point{'' if told == '1' else 's'}"


def counted(number: int, what: str = "row") -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def seconds(value: float | None) -> str | None:
    """A latency: milliseconds below a second."""
    if value is None:
        return None
    return f"{1000 * value:.3g}{_KEPT}ms" if value < 1 else f"{value:.3g}{_KEPT}s"


def short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else text[:most] + " …"


def question(text: str) -> str:
    """What was asked: messages a line each, or the text itself."""
    try:
        parsed = json.loads(text)
        messages = parsed["messages"] if isinstance(parsed, dict) else parsed
        return short("\n".join(f"{m['role']}: {m['content']}" for m in messages))
    except (ValueError, TypeError, KeyError):
        return short(text)
