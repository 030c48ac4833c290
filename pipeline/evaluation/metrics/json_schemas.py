"""Whether an answer obeys a JSON Schema. Of all metrics the only one that a file is read for: the schema, once, within bounds.

Answers are whatever a model says: they are parsed within bounds too, nothing is fetched on behalf of a schema, and its patterns
are tried in linear time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import Misuse
from pipeline.evaluation.metrics.json_answers import parse
from pipeline.evaluation.metrics.patterns import matcher

_SCHEMA_BYTES = 1_000_000
_CHARACTERS = 1_000_000
"""A longer answer obeys no schema: nobody has looked."""
_DEPTH = 100
"""JSON that is nested deeper obeys no schema."""


def json_schema(schema: Path, where: str) -> Callable[[str, str], float]:
    """A score: 1 if the answer is one JSON value that obeys the JSON Schema in the file `schema`, by the draft that it names
    (https://json-schema.org; 2020-12 where it names none). `where`: what messages call the file. `expected` is unread.

    Raises Misuse for a file that cannot be read, is no schema, refers to what is not in it (nothing is fetched), or has a pattern
    that needs more than linear time.
    """
    check = schema_check(_read(schema, where), where)
    return lambda expected, answer: float(check(answer))


def schema_check(schema: Any, where: str) -> Callable[[str], bool]:
    """Whether an answer obeys a JSON Schema that is there; as above."""
    obeys = _validator(schema, where)

    def check(answer: str) -> bool:
        if len(answer) > _CHARACTERS:
            return False
        try:
            value = parse(answer)
            return _depth(value) <= _DEPTH and obeys(value)
        except (ValueError, RecursionError):
            return False

    return check


def _read(path: Path, where: str) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(_SCHEMA_BYTES + 1)
        if len(data) > _SCHEMA_BYTES:
            raise ValueError(f"it is longer than {_SCHEMA_BYTES} bytes")
        found = parse(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Misuse(f"the JSON Schema cannot be read: {said}", where=where) from None
    if not isinstance(found, dict | bool) or _depth(found) > _DEPTH:
        raise Misuse("a JSON Schema is an object, or true or false, of moderate depth", where=where)
    return found


def _validator(schema: Any, where: str) -> Callable[[Any], bool]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import extend, validator_for
    from referencing.jsonschema import EMPTY_REGISTRY

    named = schema.get("$schema") if isinstance(schema, dict) else None
    kind = validator_for(schema, default=None) if named is not None else Draft202012Validator
    if kind is None:
        raise Misuse(f"the JSON Schema is of an unknown draft: {named!r}", where=f"{where}: $schema")
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        at = "/".join(str(part) for part in error.absolute_path) or "(the whole)"
        raise Misuse(f"this is no JSON Schema: {error.message[:300]}", where=f"{where}: {at}") from None
    _check_references(schema, kind, where)
    if {"patternProperties", "unevaluatedProperties"} <= set(_keys(schema)):
        # jsonschema tries those patterns with Python's engine, and has no place to give it another.
        raise Misuse("patternProperties and unevaluatedProperties do not go together here", where=where)
    patterns = {pattern: matcher(pattern, where, whole=False) for pattern in set(_patterns(schema))}
    # An empty registry: what stands in other files, or on the net, is not looked for.
    validator = extend(kind, _keywords(patterns))(_undated(schema), registry=EMPTY_REGISTRY)
    probes: tuple[Any, ...] = (None, True, 0, "", [], {})
    for probe in probes:
        try:
            validator.is_valid(probe)
        except RecursionError:
            raise Misuse("the JSON Schema refers to itself without end", where=where) from None
    return lambda value: bool(validator.is_valid(value))


def _keywords(patterns: Mapping[str, Callable[[str], bool]]) -> dict[str, Any]:
    """The keywords that try patterns, with patterns that take linear time."""
    from jsonschema import ValidationError as Wrong

    def pattern(validator: Any, wanted: str, instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "string") and not patterns[wanted](instance):
            yield Wrong(f"{wanted} does not match")

    def pattern_properties(validator: Any, wanted: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "object"):
            for known, inner in wanted.items():
                for key, value in instance.items():
                    if patterns[known](key):
                        yield from validator.descend(value, inner, path=key, schema_path=known)

    def additional(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "object"):
            known, tried = schema.get("properties", {}), schema.get("patternProperties", {})
            for key, value in instance.items():
                if key not in known and not any(patterns[one](key) for one in tried):
                    yield from validator.descend(value, wanted, path=key)

    return {"pattern": pattern, "patternProperties": pattern_properties, "additionalProperties": additional}


def _undated(schema: Any) -> Any:
    """The schema without any $schema: a part that names its draft would be handed to jsonschema's own keywords again."""
    if isinstance(schema, list):
        return [_undated(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: inner for key, inner in schema.items() if key != "$schema" or not isinstance(inner, str)}
    return {key: inner if key in ("const", "enum", "default", "examples") else _undated(inner) for key, inner in kept.items()}


def _patterns(schema: Any) -> Iterator[str]:
    """Whatever may be tried as a pattern, at any depth; what only looks like one must be fit to be one too."""
    for inner in _objects(schema):
        if isinstance(inner.get("pattern"), str):
            yield inner["pattern"]
        if isinstance(inner.get("patternProperties"), dict):
            yield from inner["patternProperties"]


def _keys(schema: Any) -> Iterator[str]:
    for inner in _objects(schema):
        yield from inner


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object in it, at any depth."""
    waiting = [schema]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            yield inner
            waiting += inner.values()
        elif isinstance(inner, list):
            waiting += inner


def _check_references(schema: Any, kind: Any, where: str) -> None:
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012, specification_with

    if not isinstance(schema, dict):
        return
    draft = specification_with(str(kind.META_SCHEMA.get("$schema", "")), default=DRAFT202012)
    root = draft.create_resource(schema)
    waiting = [(root, Registry().resolver_with_root(root))]
    while waiting:
        resource, resolver = waiting.pop()
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            named = resource.contents.get(key) if isinstance(resource.contents, dict) else None
            if isinstance(named, str):
                try:
                    resolver.lookup(named)
                except Unresolvable:
                    fix = "put it into the same file, below $defs: no other file is read, and nothing is fetched"
                    raise Misuse(
                        f"the JSON Schema refers to {named!r}, which is not in it", where=f"{where}: {key}", fix=fix
                    ) from None
        waiting += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        inner, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(inner, dict | list):
            waiting += [(item, depth + 1) for item in (inner.values() if isinstance(inner, dict) else inner)]
    return deepest
