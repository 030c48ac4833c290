"""Writes docs/params.md from the params models and docs/methods.md from the tables of domain/tuning.py, so that nothing is said
twice. `python docs/build.py`; a test compares.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.domain.data import ExampleKind
from pipeline.domain.tuning import CAN_LEARN_FROM, LEARNS_FROM, OUTPUT_OF, Objective, Tuner, refusal, start_refusal
from pipeline.params import Params
from pipeline.params.ingest import SourceParams
from pipeline.params.learning import RewardSource
from pipeline.params.release import ApprovalRules, Freeze, StageRules
from pipeline.params.section import Section
from pipeline.params.sweep import SpaceParams
from pipeline.params.train import StageParams

HEAD = """# params.yaml, key by key

Made by `python docs/build.py` from `pipeline/params/`; edit it there. One section a step. A run stores the whole of it,
defaults included, in its own commit. Numbers with an exponent need a point (`1.0e-4`), since YAML readers disagree on `1e-4`;
for the same reason `yes`, `no`, `on`, `off` and numbers with a leading zero are refused unless quoted.
"""


METHODS_HEAD = """# Objectives and tuners: what can be learned, by which weights

Made by `python docs/build.py` from `pipeline/domain/tuning.py`; edit it there. A training stage (docs/params.md, `train`) names
one of each. Every cell marked *yes* trains a few steps in `tests/modeling/test_cells.py`; every other is refused when params are
read, with the reason beneath the table.
"""

BEGINNINGS_HEAD = """
## What a stage may begin from

The stage's tuner downwards, that of what it begins from across. Any may begin from the bare base.

"""


ENTRIES = {
    SourceParams: "below ingest",
    StageParams: "the keys above",
    RewardSource: "below train",
    SpaceParams: "below",
    StageRules: "below",
    ApprovalRules: "below",
    Freeze: "below",
}
"""What lists hold that is a section of its own, and where its keys are explained."""


def methods_page() -> str:
    """The text of docs/methods.md."""
    return "".join([METHODS_HEAD, *_cells(), *_objectives(), *_tuners(), *_beginnings()])


def _cells() -> Iterator[str]:
    yield "\n## What goes together\n\n"
    yield from _matrix("objective", Objective, [f"`{tuner}`" for tuner in Tuner], lambda row, tuner: refusal(row, tuner))


def _objectives() -> Iterator[str]:
    yield "\n## Objectives\n\n| objective | what is learned | a model's output | rows it learns from | may also learn from |\n"
    yield "| --- | --- | --- | --- | --- |\n"
    meanings = _member_docs(Objective)
    for objective in Objective:
        usual = LEARNS_FROM[objective]
        more = [kind for kind in CAN_LEARN_FROM[objective] if kind not in usual]
        cells = [meanings[objective.name], OUTPUT_OF[objective].value, _kinds(usual), _kinds(more)]
        yield f"| `{objective}` | {' | '.join(cells)} |\n"
    yield "\nWhich formats give which kinds of row: docs/formats.md. `train.kinds` chooses among them.\n"


def _tuners() -> Iterator[str]:
    yield "\n## Tuners\n\n| tuner | which weights learn |\n| --- | --- |\n"
    meanings = _member_docs(Tuner)
    yield from (f"| `{tuner}` | {meanings[tuner.name]} |\n" for tuner in Tuner)


def _beginnings() -> Iterator[str]:
    yield BEGINNINGS_HEAD
    yield from _matrix("stage", Tuner, [f"from `{tuner}`" for tuner in Tuner], lambda row, start: start_refusal(row, start))


def _matrix(corner: str, rows: Any, heads: list[str], reason: Callable[[Any, Tuner], str | None]) -> Iterator[str]:
    """A table of yes and no against tuners, and why it is no beneath it."""
    yield f"| {corner} | {' | '.join(heads)} |\n| --- |{' --- |' * len(heads)}\n"
    reasons: dict[str, int] = {}
    for row in rows:
        found = [reason(row, tuner) for tuner in Tuner]
        cells = ["yes" if why is None else f"no ({reasons.setdefault(why, len(reasons) + 1)})" for why in found]
        yield f"| `{row}` | {' | '.join(cells)} |\n"
    yield "\n" + "".join(f"{number}. {why}\n" for why, number in reasons.items())


def _kinds(kinds: typing.Sequence[ExampleKind]) -> str:
    return ", ".join(f"`{kind}`" for kind in kinds) or "-"


def _member_docs(kind: type) -> dict[str, str]:
    """The string beneath each member of an enumeration."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for one, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(one, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            target = one.targets[0]
            assert isinstance(target, ast.Name)
            found[target.id] = " ".join(str(after.value.value).split())
    return found


def params_page() -> str:
    """The text of docs/params.md."""
    parts = [HEAD]
    for name, section in Params.model_fields.items():
        model = section.annotation
        assert model is not None
        parts.append(f"\n## {section.alias or name}\n\n{_table(model)}")
        if name == "ingest":
            parts.append(f"\n### An entry of ingest.sources\n\nWays in: docs/sources.md.\n\n{_table(SourceParams)}")
        if name == "train":
            parts.append(f"\n### An entry of train.ppo.rewards\n\n{_table(RewardSource)}")
        if name == "release":
            parts.append(f"\n### An entry of release.rules\n\nMore: docs/releases.md.\n\n{_table(StageRules)}")
            parts.append(f"\n### release.rules.STAGE.approvals\n\n{_table(ApprovalRules)}")
            parts.append(f"\n### An entry of release.rules.STAGE.freeze\n\n{_table(Freeze)}")
        if name == "sweep":
            parts.append(f"\n### An entry of sweep.space\n\nMore: docs/sweep.md.\n\n{_table(SpaceParams)}")
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
        if section := _optional(field.annotation):
            default = "nothing" if field.default is None else "the keys below"
            about = meaning or (section.__doc__ or "").replace("\n", " ").strip()
            yield f"| `{above}{key}` | the keys below, or nothing | {default} | {about} |\n"
            yield from _rows(section, f"{above}{key}.")
            continue
        yield f"| `{above}{key}` | {_values(field)} | {_default(field)} | {meaning} |\n"


def _optional(kind: Any) -> type[Section] | None:
    """The section that a key holds or not."""
    arguments = typing.get_args(kind)
    found = [one for one in arguments if isinstance(one, type) and issubclass(one, Section)]
    return found[0] if len(arguments) == 2 and type(None) in arguments and found and found[0] not in ENTRIES else None


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
    if kind in ENTRIES:
        return f"entry ({ENTRIES[kind]})"
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return ", ".join(f"`{value}`" for value in kind)
    names = {date: "date", str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "nothing"}
    return names.get(kind, str(kind))


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "*required*"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "nothing" if value is None else f"`{value}`"


if __name__ == "__main__":
    (Path(__file__).parent / "params.md").write_text(params_page(), encoding="utf-8")
    (Path(__file__).parent / "methods.md").write_text(methods_page(), encoding="utf-8")
