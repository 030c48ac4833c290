"""Reads params.yaml into Params and says everything that is wrong with it at once: line, key, and what would be right.

YAML is parsed to nodes, never to Python objects: aliases (bombs), tags, duplicate keys and scalars on whose meaning YAML
readers disagree (`1e-4`, `no`, `010`) are reported, not resolved. No default is invented here; see pipeline/params/.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.errors import BadParams
from pipeline.params import Params

MAX_BYTES = 256 << 10
MAX_DEPTH = 10

_AMBIGUOUS = [
    (re.compile(r"[-+]?\d+[eE][-+]?\d+"), "is a number to some YAML readers, text to others; write it with a point: {fixed}"),
    (
        re.compile(r"(?i)y|n|yes|no|on|off"),
        "is a truth value to some YAML readers, text to others; write true or false, or quote it",
    ),
    (re.compile(r"[-+]?0\d+"), "is octal to some YAML readers, decimal to others; drop the leading zero, or quote it"),
    (re.compile(r"[-+]?\d[\d_]*_\d[\d_]*"), "is a number to some YAML readers, text to others; drop the underscores"),
    (re.compile(r"\d+(:[0-5]?\d)+"), "is a number in base 60 to some YAML readers; quote it"),
]


def read_params(path: Path) -> Params:
    """Read and check a params file. Raises BadParams that lists every problem, each with its line and key."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadParams(f"the file is larger than {MAX_BYTES >> 10} KiB", where=str(path), fix="keep data out of params")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise BadParams("there is no such params file", where=str(path), fix="name one with --params FILE") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadParams(f"the file cannot be read: {error}", where=str(path)) from error
    return parse_params(text, where=str(path))


def parse_params(text: str, *, where: str = "params.yaml") -> Params:
    """Check the text of a params file; see `read_params`."""
    try:
        problems = list(_unsafe(text))
        if problems:
            raise _all(problems, where)
        root = YAML().compose(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise _all([(line, "", f"not YAML: {getattr(error, 'problem', None) or error}")], where) from error
    except ValueError as error:
        raise _all([(1, "", f"not YAML: {error}")], where) from error
    if root is None:
        raise _all([(1, "", "the file is empty")], where)
    lines: dict[tuple[str, ...], int] = {}
    data = _plain(root, (), lines, problems)
    if not isinstance(data, dict):
        raise _all([(1, "", "the file must be a mapping of sections")], where)
    params = _validate(data, lines, problems)
    if params is None or problems:
        raise _all(problems, where)
    return params


def _validate(data: dict[str, Any], lines: dict[tuple[str, ...], int], problems: list[tuple[int, str, str]]) -> Params | None:
    """Validate, and after each failure once more without what was wrong: rules over several keys wait for each to be right."""
    params, removed = None, set[tuple[str, ...]]()
    for _ in range(4):
        try:
            params = Params.model_validate(data)
        except ValidationError as error:
            found = [p for p in error.errors() if not (p["type"] == "missing" and p["loc"] in removed)]
            problems += _explain(found, lines)
            here = {key for p in found if p["type"] != "missing" and (key := _in_file(p["loc"], lines))}
            removed |= here
            if not here:
                return None
            for key in sorted(here, key=len, reverse=True):
                _remove(data, key)
        else:
            break
    return params


def _remove(data: Any, key: tuple[str, ...]) -> None:
    for part in key[:-1]:
        data = data[int(part)] if isinstance(data, list) else data[part]
    if isinstance(data, list):
        data[int(key[-1])] = ""
    else:
        section = data.pop(key[-1], None)
        if key == ("model",):
            task = section.get("task") if isinstance(section, dict) else None
            data["model"] = {"name": "x", "base": "./x", "task": task}
        elif key in _STAND_INS:
            data[key[-1]] = _STAND_INS[key]


def write_params(params: Params, path: Path) -> None:
    """Write the whole of params, defaults included, so that DVC sees a default that changed between versions of the code."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.representer.add_representer(float, _pointed)
    yaml.representer.add_representer(str, _quoted)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params.model_dump(mode="json", by_alias=True), file)


def pointed(value: float) -> str:
    """A number as every YAML reader takes it: 1e-05 without a point is text to some; see _AMBIGUOUS."""
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")


def is_ambiguous(text: str) -> bool:
    """Whether YAML readers disagree on what an unquoted word is, or take it for something else than text."""
    return any(pattern.fullmatch(text) for pattern, _ in _AMBIGUOUS) or text.lower() in ("", "~", "null", "true", "false")


def _pointed(representer: Any, value: float) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:float", pointed(value))


def _quoted(representer: Any, value: str) -> Any:
    # off is a truth value to some YAML readers; see _AMBIGUOUS.
    style = '"' if any(pattern.fullmatch(value) for pattern, _ in _AMBIGUOUS) else None
    return representer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _unsafe(text: str) -> Iterator[tuple[int, str, str]]:
    """Things that may not even be composed: anchors and aliases, tags, depth."""
    depth = 0
    for event in YAML().parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            yield line, "", "anchors and aliases are not used in params; write the value out"
        elif (
            getattr(event, "tag", None)
            and not isinstance(event.tag, bool)
            and getattr(event, "implicit", True) in (False, (False, False))
        ):
            yield line, "", f"the tag {event.tag} is not used in params"
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > MAX_DEPTH:
            yield line, "", f"nested deeper than {MAX_DEPTH} levels"
            return


def _plain(node: Node, key: tuple[str, ...], lines: dict[tuple[str, ...], int], problems: list[tuple[int, str, str]]) -> Any:
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, SequenceNode):
        return [_plain(item, (*key, str(i)), lines, problems) for i, item in enumerate(node.value)]
    if isinstance(node, MappingNode):
        result: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name, line = str(name_node.value), name_node.start_mark.line + 1
            path = (*key, name)
            if name in result:
                problems.append((line, ".".join(path), f"the key stands twice, first in line {lines[path]}"))
                continue
            lines[path] = line
            result[name] = _plain(value_node, path, lines, problems)
        return result
    assert isinstance(node, ScalarNode)
    return _scalar(node, key, problems)


def _scalar(node: ScalarNode, key: tuple[str, ...], problems: list[tuple[int, str, str]]) -> Any:
    text = node.value
    if node.style in ('"', "'", "|", ">"):
        return text
    for pattern, message in _AMBIGUOUS:
        if pattern.fullmatch(text):
            fixed = re.sub(r"[eE]", ".0e", text, count=1)
            problems.append((node.start_mark.line + 1, ".".join(key), f"{text} {message.format(fixed=fixed)}"))
            # Stand in a value of the likely type, so that pydantic does not report the same thing again.
            return float(text.replace("_", "")) if pattern.pattern.startswith(r"[-+]?\d+[eE]") else _SKIP
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?", text):
        return float(text)
    return text


_STAND_INS = {("model", "name"): "x", ("model", "base"): "./x"}
"""Keys without a default, replaced once they are reported, so that the rules which need them can still speak."""

_SKIP = "\0ambiguous"


def _explain(found: Sequence[Any], lines: dict[tuple[str, ...], int]) -> Iterator[tuple[int, str, str]]:
    for problem in found:
        if problem.get("input") == _SKIP:
            continue
        key = tuple(str(part) for part in problem["loc"])
        if problem["type"] != "missing":
            key = _in_file(key, lines)
        line = next((lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in lines), 1)
        for sentence in _sentence(problem, key).split("\n"):
            yield _line_said(sentence, lines) or line, ".".join(key), sentence


def _line_said(sentence: str, lines: dict[tuple[str, ...], int]) -> int | None:
    """The line of the key that a sentence of a rule over several keys begins with, or of the section around it."""
    said = sentence.split(": ", 1)[0]
    within = [key for key in lines if key and (said == ".".join(key) or said.startswith(".".join(key) + "."))]
    return lines[max(within, key=len)] if within else None


def _in_file(loc: Sequence[str | int], lines: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """The key that stands in the file: pydantic puts the names of union members into the path."""
    key: tuple[str, ...] = ()
    for part in loc:
        if (deeper := (*key, str(part))) in lines:
            key = deeper
    return key


def _sentence(problem: Any, key: tuple[str, ...]) -> str:
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key[-1], _known_keys(key[:-1]), n=1)
        return "unknown key" + (f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(_known_keys(key[:-1]))}")
    if problem["type"] == "missing":
        return "missing, and it has no default"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    given = "" if isinstance(problem.get("input"), dict) else f", not {problem.get('input')!r}"
    message = str(problem["msg"]).replace("valid tuple", "list, such as [inbox]")
    return message[0].lower() + message[1:] + given


def _known_keys(section: tuple[str, ...]) -> list[str]:
    model: Any = Params
    field: Any = None
    for name in section:
        # An item of the list, or an entry of the mapping, whose type `model` is already.
        if name.isdecimal() or get_origin(getattr(field, "annotation", None)) is dict:
            field = None
            continue
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == name), None)
        model = _model_in(getattr(field, "annotation", None))
        if model is None:
            return []
    return sorted(f.alias or n for n, f in model.model_fields.items())


def _model_in(annotation: Any) -> Any:
    """The section that a type is, or that it is a list or union of; None without one."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


def _all(problems: list[tuple[int, str, str]], where: str) -> BadParams:
    rows = [f"{where}:{line}: {key + ': ' if key else ''}{text}" for line, key, text in sorted(set(problems))]
    count = f"{len(rows)} problems" if len(rows) > 1 else "1 problem"
    return BadParams(f"{count} in the params\n" + "\n".join(rows), fix="mend the lines above; docs/params.md explains every key")
