"""Blocks into HTML. The only place that knows Jinja; the words and positions it gets are made elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.pages import drawings
from pipeline.pages.blocks import Block, Table

_WEB_ADDRESS = re.compile(r"https?://[^\s\\\x00-\x20\x7f\"'<>]+", re.IGNORECASE)
_RELATIVE_ADDRESS = re.compile(r"(?!//)[\w.~%/#?&=+,@-]+")
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def page(title: str, verdict: str, ok: bool | None, sections: Sequence[Block]) -> str:
    """One self-contained HTML document.

    verdict: the sentence that is read first. ok: True good, False bad, None neither. Everything is escaped; control
    characters, text-direction overrides and lone surrogates are shown as their code points.
    """
    style = _resource("page.css")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            verdict=verdict,
            tone={True: "good", False: "bad", None: "warn"}[ok],
            sections=[(type(block).__name__, block) for block in sections],
            style=Markup(style),
            # The policy names the style by its hash, so that not even markup that slipped through could style or load a thing.
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
    )


def safe_address(address: str) -> str | None:
    """The address if it may become a link (http, https, or relative without a scheme), else None."""
    if _WEB_ADDRESS.fullmatch(address) or _RELATIVE_ADDRESS.fullmatch(address):
        return address
    return None


@cache
def _environment() -> Environment:
    from jinja2 import FunctionLoader

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_showable,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_resource),
    )
    environment.globals.update(drawings=drawings, safe_address=safe_address, numeric_columns=_numeric_columns)
    environment.filters.update(cell=_cell, paragraphs=lambda text: re.split(r"\n\s*\n", text.strip()))
    return environment


@cache
def _resource(name: str) -> str:
    return files("pipeline.pages").joinpath(name).read_text(encoding="utf-8")


def _showable(value: Any) -> Any:
    """Called by Jinja on every expression, before escaping."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _UNSHOWABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", value)


def _numeric_columns(block: Table) -> set[int]:
    """Columns that hold a number somewhere and otherwise only numbers and nothing: they are set to the right."""

    def numeric(column: int) -> bool:
        values = [row[column] for row in block.rows if column < len(row) and row[column] is not None]
        return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)

    return {column for column in range(len(block.headers)) if numeric(column)}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
