"""Changes single values in the text of a params file and leaves every other character as it is: comments, order, spacing.

A writer that prints the whole file anew would reformat what a person wrote; here the place of each value is looked up and its
characters are exchanged, or a key is added where its section ends. What the values mean is not known here.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.backends.params_file import is_ambiguous, pointed
from pipeline.errors import Misuse

Path = tuple[str | int, ...]
"""Where a value stands: keys, and numbers of list items: ("train", "stages", 1, "dpo", "beta")."""


def with_values(text: str, values: Mapping[Path, Any]) -> str:
    """The text with each value in its place. Values are scalars or lists of them.

    Raises Misuse when a value cannot be put in its place without touching more.
    """
    for path, value in values.items():
        changed = _with_value(text, path, value)
        if _value_at(changed, path) != (list(value) if isinstance(value, tuple) else value):
            raise Misuse(
                f"{value!r} could not be written there",
                where=_named(path),
                fix="write the section with a key a line, or in { }",
            )
        text = changed
    return text


def difference(before: str, after: str, name: str) -> str:
    """What a reader of patches sees of a change, '' when there is none."""
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, name, n=1)
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _with_value(text: str, path: Path, value: Any) -> str:
    node, rest = YAML().compose(text), list(path)
    if node is None:
        return f"{text}{_nested(rest, value)}\n"
    while rest:
        key, found = _child(node, rest[0])
        if found is None:
            return _added(text, node, rest, value)
        node, rest = found, rest[1:]
        if key is not None and isinstance(node, ScalarNode) and not node.value and node.style is None:  # a key without a value
            at, entry = text.index(":", key.end_mark.index) + 1, f"{{{_nested(rest, value)}}}" if rest else _written(value)
            return f"{text[:at]} {entry}{text[at:]}"
    return f"{text[: node.start_mark.index]}{_written(value)}{text[_end(text, node) :]}"


def _child(node: Node, part: str | int) -> tuple[Node | None, Node | None]:
    """The key and the value of an entry of a mapping, or None and an item of a list; None twice where it is not there."""
    if isinstance(node, MappingNode):
        return next((entry for entry in node.value if entry[0].value == part), (None, None))
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None, None


def _added(text: str, node: Node, rest: list[str | int], value: Any) -> str:
    """The text with the missing keys `rest` at the end of the mapping `node`."""
    entry = _nested(rest, value)
    if not isinstance(node, MappingNode):
        raise Misuse("there is a value where a section is due", where=f"line {node.start_mark.line + 1}", fix="make it a section")
    if node.flow_style:
        at = _end(text, node.value[-1][1]) if node.value else node.end_mark.index - 1
        return f"{text[:at]}{', ' if node.value else ''}{entry}{text[at:]}"
    indent = " " * node.value[0][0].start_mark.column
    at = _end(text, node.value[-1][1])
    line_end = text.find("\n", at)
    at = len(text) if line_end < 0 else line_end
    return f"{text[:at]}\n{indent}{entry}{text[at:]}"


def _end(text: str, node: Node) -> int:
    """Where the last character of a value ends; the library's own marks of blocks run on to the next key."""
    while isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    end = int(node.end_mark.index)
    return end - 1 if isinstance(node, ScalarNode) and text[end - 1 : end] == "\n" and end > node.start_mark.index else end


def _nested(keys: list[str | int], value: Any) -> str:
    inner = _written(value)
    for key in reversed(keys[1:]):
        inner = f"{{{_written(key)}: {inner}}}"
    return f"{_written(keys[0])}: {inner}"


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_written(item) for item in value)}]"
    if isinstance(value, float):
        return pointed(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value) and not is_ambiguous(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _value_at(text: str, path: Path) -> Any:
    found: Any = YAML(typ="safe", pure=True).load(text)
    for part in path:
        found = found[part]
    return found


def _named(path: Path) -> str:
    return ".".join(str(part) for part in path)
