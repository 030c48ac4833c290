"""Writes docs/params.md from the params models, so that no key is explained twice. `python docs/build.py`; a test compares."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.params import Params
from pipeline.params.ingest import SourceParams
from pipeline.params.section import Section

HEAD = """# params.yaml, key by key

Made by `python docs/build.py` from `pipeline/params/`; edit it there. One section a step. A run stores the whole of it,
defaults included, in its own commit. Numbers with an exponent need a point (`1.0e-4`), since YAML readers disagree on `1e-4`;
for the same reason `yes`, `no`, `on`, `off` and numbers with a leading zero are refused unless quoted.
"""


def params_page() -> str:
    """The text of docs/params.md."""
    parts = [HEAD]
    for name, section in Params.model_fields.items():
        model = section.annotation
        assert model is not None
        parts.append(f"\n## {section.alias or name}\n\n{_table(model)}")
        if name == "ingest":
            parts.append(f"\n### An entry of ingest.sources\n\nWays in: docs/sources.md.\n\n{_table(SourceParams)}")
    return "".join(parts)


def _table(model: type[BaseModel]) -> str:
    return "| key | values | default | meaning |\n| --- | --- | --- | --- |\n" + "".join(_rows(model))


def _rows(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """A row a key; the keys of a section within the section are written with a dot."""
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _rows(field.annotation, f"{above}{key}.")
            continue
        meaning = (field.description or "").replace("\n", " ").replace("|", "\\|")
        yield f"| `{above}{key}` | {_values(field)} | {_default(field)} | {meaning} |\n"


def _values(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for kind, sign, name in ((Ge, "≥", "ge"), (Gt, ">", "gt"), (Le, "≤", "le"), (Lt, "<", "lt"))
        if isinstance(limit, kind)
    ]
    return " ".join([_type(field.annotation), *bounds]).replace("|", "\\|")


def _type(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if arguments:
        return " or ".join(_type(part) for part in arguments)
    if kind is SourceParams:
        return "entry (below ingest)"
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return ", ".join(f"`{value}`" for value in kind)
    return {str: "text", int: "whole number", float: "number", type(None): "nothing"}.get(kind, str(kind))


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "*required*"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "nothing" if value is None else f"`{value}`"


if __name__ == "__main__":
    (Path(__file__).parent / "params.md").write_text(params_page(), encoding="utf-8")
