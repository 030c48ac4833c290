"""Files of suites in, rows with their lines out: JSON lines, CSV, YAML and plain text, each within bounds before it is parsed.

YAML is looked through before it is built: anchors (bombs), tags (`!function` would run code) and depth are refused.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from pipeline.errors import BadInput
from pipeline.evaluation.metrics.json_answers import parse

MOST_BYTES = 64 << 20
MOST_YAML_BYTES = 1 << 20
MOST_ROWS = 100_000
MOST_CHARACTERS = 200_000
"""Of one text in a row."""
_DEPTH = 12


@dataclass(frozen=True, slots=True)
class File:
    """path: where it lies. name: as params have it, which messages and its ending go by: a copy may be called otherwise."""

    path: Path
    name: str

    @property
    def suffix(self) -> str:
        return PurePath(self.name).suffix.lower()

    def __str__(self) -> str:
        return self.name

    def beside(self, name: str) -> File:
        """Another file of the same folder, or below it."""
        return File(self.path.parent / name, str(PurePath(self.name).parent / name))


def text_of(file: File, *, most: int = MOST_BYTES) -> str:
    """The text of a file. Raises BadInput for one that is absent, too large, or not UTF-8."""
    try:
        with file.path.open("rb") as opened:
            data = opened.read(most + 1)
    except OSError as error:
        raise BadInput(
            f"the file of a suite cannot be read: {error.strerror}", where=str(file), fix="correct evaluate.suites"
        ) from None
    if len(data) > most:
        raise BadInput(f"the file is larger than {most >> 20} MiB", where=str(file), fix="split it, or ask fewer rows")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput("the file is not UTF-8", where=f"{file}:{line}", fix="save it as UTF-8") from None


def json_lines(file: File) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands, and the row: an object a line; blank lines are left out."""
    found = 0
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if not line.strip():
            continue
        found += 1
        where = f"{file}:{number}"
        if found > MOST_ROWS:
            raise BadInput(f"the file has more than {MOST_ROWS} rows", where=where, fix="keep fewer, or split the suite")
        try:
            row = parse(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"not JSON: {error}", where=where, fix="write one JSON object a line") from None
        if not isinstance(row, dict):
            raise BadInput("the row is no object", where=where, fix='write {"key": …} on each line')
        yield where, row


def csv_rows(file: File) -> Iterator[tuple[str, list[str]]]:
    """Where each row stands, and its cells; blank rows are left out."""
    reader = csv.reader(io.StringIO(text_of(file), newline=""), strict=True)
    found = 0
    while True:
        where = f"{file}:{reader.line_num + 1}"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadInput(f"not CSV: {error}", where=where, fix="quote cells that hold commas, quotes or line ends") from None
        found += bool(row)
        if found > MOST_ROWS:
            raise BadInput(f"the file has more than {MOST_ROWS} rows", where=where, fix="keep fewer, or split the suite")
        if row:
            yield where, row


def yaml_list(file: File) -> list[tuple[str, dict[str, Any]]]:
    """Where each entry of a YAML list stands, and the entry, a mapping."""
    node, data = _yaml(file)
    if not isinstance(node, SequenceNode):
        raise BadInput("the file is no list", where=f"{file}:1", fix="begin each entry with '- name: …'")
    entries = []
    for item, value in zip(node.value, data, strict=True):
        where = f"{file}:{item.start_mark.line + 1}"
        if not isinstance(value, dict):
            raise BadInput("the entry is no mapping", where=where, fix="give it keys, as docs/suites.md shows")
        entries.append((where, _keyed(value, where)))
    return entries


def yaml_mapping(file: File) -> tuple[dict[str, Any], Mapping[str, str]]:
    """A YAML mapping, and where each of its keys stands."""
    node, data = _yaml(file)
    if not isinstance(node, MappingNode) or not isinstance(data, dict):
        raise BadInput("the file is no mapping", where=f"{file}:1")
    return _keyed(data, str(file)), {str(key.value): f"{file}:{key.start_mark.line + 1} {key.value}" for key, _ in node.value}


def _keyed(data: dict[Any, Any], where: str) -> dict[str, Any]:
    if odd := [key for key in data if not isinstance(key, str)]:
        raise BadInput(f"the key {odd[0]!r} is no text", where=where, fix="quote it")
    return data


def _yaml(file: File) -> tuple[Node, Any]:
    text = text_of(file, most=MOST_YAML_BYTES)
    try:
        _look_through(text, file)
        node = YAML(typ="safe", pure=True).compose(text)
        data = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1 if mark else 1}"
        raise BadInput(f"not YAML: {getattr(error, 'problem', None) or error}", where=where) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not YAML: {error}", where=f"{file}:1") from None
    if node is None or data is None:
        raise BadInput("the file is empty", where=f"{file}:1")
    return node, data


def _look_through(text: str, file: File) -> None:
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        where = f"{file}:{event.start_mark.line + 1}"
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            raise BadInput("anchors and aliases are not read", where=where, fix="write the value out")
        tag = str(getattr(event, "tag", None) or "")
        if tag.startswith("!") and tag != "!":
            fix = "write what it does in Jinja, or make the rows beforehand" if tag == "!function" else "write plain YAML"
            raise BadInput(
                f"the tag {tag} would run code, which is never done" if tag == "!function" else f"the tag {tag} is not known",
                where=where,
                fix=fix,
            )
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > _DEPTH:
            raise BadInput(f"nested deeper than {_DEPTH} levels", where=where)


class Fields:
    """The keys of one row, taken one by one, each checked; what is left over at the end is a mistake."""

    def __init__(self, row: Mapping[str, Any], where: str) -> None:
        self._left = dict(row)
        self.where = where

    def text(self, key: str, *, blank: bool = False) -> str:
        """A text that must be there."""
        found = self.optional_text(key, blank=blank)
        if found is None:
            raise BadInput(f"the key {key} is absent", where=self.where, fix=f"give it a {key}")
        return found

    def optional_text(self, key: str, *, blank: bool = False) -> str | None:
        value = self._left.pop(key, None)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise BadInput(f"{key} is no text", where=self.where, fix="quote it")
        if not blank and not value.strip():
            raise BadInput(f"{key} is empty", where=self.where)
        if len(value) > MOST_CHARACTERS:
            raise BadInput(f"{key} is longer than {MOST_CHARACTERS} characters", where=self.where, fix="shorten it")
        return value

    def texts(self, key: str, *, most: int = 200) -> tuple[str, ...]:
        """A text or a list of texts; none where it is absent."""
        value = self._left.pop(key, None)
        values = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) and one for one in values):
            raise BadInput(f"{key} is no text and no list of texts", where=self.where, fix="quote each of them")
        if len(values) > most:
            raise BadInput(f"{key} has more than {most} entries", where=self.where, fix="keep fewer")
        if any(len(one) > MOST_CHARACTERS for one in values):
            raise BadInput(f"an entry of {key} is longer than {MOST_CHARACTERS} characters", where=self.where)
        return tuple(values)

    def count(self, key: str, *, most: int) -> int | None:
        """A whole number from 1 to `most`; None where it is absent."""
        value = self._left.pop(key, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most):
            raise BadInput(f"{key} is no whole number from 1 to {most}", where=self.where)
        return value

    def anything(self, key: str) -> Any:
        """What stands there, unchecked; None where it is absent."""
        return self._left.pop(key, None)

    def conversation(self) -> str:
        """`prompt`, a text, or `messages`, a list of role and content: the canonical JSON of the conversation."""
        from pipeline.domain.data import messages_to_input
        from pipeline.evaluation.suites.suite import said_by_user

        messages, prompt = self._left.pop("messages", None), self.optional_text("prompt")
        if (messages is None) == (prompt is None):
            raise BadInput("the row needs a prompt, or messages", where=self.where, fix="give it one of the two")
        if prompt is not None:
            return said_by_user(prompt)
        good = (
            isinstance(messages, list)
            and messages
            and all(
                isinstance(m, dict) and m.keys() == {"role", "content"} and all(isinstance(v, str) and v for v in m.values())
                for m in messages
            )
        )
        if not good or {m["role"] for m in messages} - {"system", "user", "assistant"} or messages[-1]["role"] != "user":
            fix = "each is {role: system, user or assistant, content: a text}, and the last is the user's"
            raise BadInput("messages are no conversation", where=self.where, fix=fix)
        return messages_to_input(messages)

    def done(self) -> None:
        """Refuse what nobody asked for: most likely it is misspelled."""
        if self._left:
            raise BadInput(f"the key {next(iter(self._left))!r} is not known", where=self.where, fix="see docs/suites.md")
