"""Answers that are to be JSON, of a schema or of a form: by hand, and with schemas and answers that mean harm."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from asked_rows import asked, value_of

from pipeline.errors import Misuse
from pipeline.evaluation.metrics import METRICS, Metric, chosen, json_fields
from pipeline.evaluation.rows import Said
from pipeline.params import EvaluateParams

TICKET = {
    "type": "object",
    "properties": {"intent": {"enum": ["refund", "repair"]}, "order": {"type": "string", "pattern": "^[A-Z]-[0-9]+$"}},
    "required": ["intent"],
    "additionalProperties": False,
}


def _bound(root: Path, name: str, schema: Any = None, **format: Any) -> Metric:
    if schema is not None:
        (root / "answer.schema.json").write_text(schema if isinstance(schema, str) else json.dumps(schema), encoding="utf-8")
        format["schema_file"] = "answer.schema.json"
    (found,) = chosen(EvaluateParams.model_validate({"metrics": [name], "format": format}), root=root)
    return found


def _score(metric: Metric, answer: str) -> float:
    return value_of(metric, [""], [answer])


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 1),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 3}', 1 / 2),
        ('{"a": 1, "b": 2}', '{"a": 1}', 2 / 3),
        ('{"a": 1}', '{"a": 1, "b": 2, "c": 3}', 2 / 4),
        ('{"a": 1}', '{"a": 1.0}', 1),
        ('{"a": 1}', '{"a": "1"}', 0),
        ('{"a": 1}', '{"a": true}', 0),
        ('{"a": " x  y"}', '{"a": "x y"}', 1),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', 1),
        ('{"a": [1, 1]}', '{"a": [1]}', 2 / 3),
        ('{"a": {"b": 1}}', '{"a.b": 1}', 0),
        ('{"a": []}', '{"a": {}}', 0),
        ('{"a": []}', '{"a": []}', 1),
        ("{}", "{}", 1),
        ('{"a": 1}', "a is 1", 0),
        ('{"a": 1}', "", 0),
        ("hello you", " hello  you", 1),
        ("hello", '{"a": 1}', 0),
        ('{"a": 1}', "[" * 100_000, 0),
        ('{"a": 1}', '{"a": 1, "a": 1}', 0),
    ],
)
def test_json_fields(expected: str, answer: str, score: float) -> None:
    assert json_fields(expected, answer) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"intent": "refund", "order": "A-17"}', 1),
        ('{"intent": "refund"}', 1),
        ('{"intent": "sue"}', 0),
        ('{"intent": "refund", "order": "17"}', 0),
        ('{"intent": "refund", "more": 1}', 0),
        ('{"order": "A-1"}', 0),
        ("refund", 0),
        ("", 0),
        ('{"intent": "refund"} thanks', 0),
        ("[" * 100_000, 0),
        ('{"intent": "refund", "order": "' + "A" * 2_000_000 + '"}', 0),
    ],
)
def test_json_schema(tmp_path: Path, answer: str, score: float) -> None:
    assert _score(_bound(tmp_path, "json_schema", TICKET), answer) == score


def test_parts_of_a_schema_may_refer_to_others_in_it(tmp_path: Path) -> None:
    tree = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/node",
        "$defs": {"node": {"type": "object", "additionalProperties": {"$ref": "#/$defs/node"}}},
    }
    metric = _bound(tmp_path, "json_schema", tree)
    assert _score(metric, '{"a": {"b": {}}}') == 1
    assert _score(metric, '{"a": {"b": 1}}') == 0
    assert _score(metric, '{"a":' * 150 + "{}" + "}" * 150) == 0  # nested deeper than anyone looks


@pytest.mark.parametrize("draft", ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"])
def test_no_pattern_takes_for_ever(tmp_path: Path, draft: str) -> None:
    """Python's own engine would not end on these. The schema comes back to its root, which names its draft."""
    slow = "^(a+)+$"
    schema = {
        "$schema": draft,
        "properties": {"a": {"type": "string", "pattern": slow}, "again": {"$ref": "#"}},
        "patternProperties": {slow: {"type": "number"}},
        "propertyNames": {"pattern": "^(?:(?:a+)+|again)$"},
        "additionalProperties": {"$ref": "#"},
    }
    metric, evil = _bound(tmp_path, "json_schema", schema), "a" * 5000 + "!"
    started = time.perf_counter()
    assert _score(metric, json.dumps({"again": {"again": {"a": evil}}})) == 0
    assert _score(metric, json.dumps({evil: 1})) == 0
    assert _score(metric, json.dumps({"aaa": "no number"})) == 0
    assert _score(metric, json.dumps({"again": {"aa": 7}})) == 1
    assert _score(_bound(tmp_path, "format_adherence", pattern="(a+)+"), evil) == 0
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "is an object, or true or false"),
        ('{"a": 1, "a": 2}', "a key occurs twice"),
        ({"type": "objekt"}, "this is no JSON Schema"),
        ({"properties": {"a": {"minLength": -1}}}, "properties/a/minLength"),
        ({"$schema": "https://example.com/mine"}, "unknown draft"),
        ({"$ref": "#/$defs/absent"}, "refers to '#/\\$defs/absent'"),
        ({"items": {"$ref": "https://example.com/other.json"}}, "which is not in it"),
        ({"$ref": "#"}, "without end"),
        ({"pattern": "(?=a)"}, "cannot be used"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "do not go together"),
        ("[" * 100_000, "cannot be read"),
        (" " * 1_000_001, "longer than 1000000 bytes"),
    ],
)
def test_what_is_no_schema_is_said_with_file_and_path(tmp_path: Path, schema: Any, said: str) -> None:
    with pytest.raises(Misuse, match=said) as caught:
        _bound(tmp_path, "json_schema", schema)
    assert "answer.schema.json" in str(caught.value)


def test_a_schema_lies_in_the_repository(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="No such file"):
        _bound(tmp_path, "json_schema", schema_file="absent.json")
    root = tmp_path / "repository"
    root.mkdir()
    (tmp_path / "outside.json").write_text("{}")
    (root / "link.json").symlink_to(tmp_path / "outside.json")
    for outside in ("../outside.json", str(tmp_path / "outside.json"), "link.json"):
        with pytest.raises(Misuse, match="must lie in the repository"):
            _bound(root, "json_schema", schema_file=outside)


@pytest.mark.parametrize(
    ("format", "answer", "score"),
    [
        ({"pattern": "[0-9]{3}"}, "123", 1),
        ({"pattern": "[0-9]{3}"}, "1234", 0),
        ({"pattern": "[0-9]{3}"}, " 123", 0),
        ({"pattern": "a|b"}, "b", 1),
        ({"pattern": "a|b"}, "ab", 0),
        ({"pattern": "(?i)yes[.!]?"}, "YES!", 1),
        ({"pattern": "a.b"}, "a\nb", 0),
        ({"pattern": "(?s)a.b"}, "a\nb", 1),
        ({"pattern": "a"}, "a\n", 0),
        ({"max_characters": 3}, "äöü", 1),
        ({"max_characters": 3}, "abcd", 0),
        ({"pattern": "a+", "max_characters": 3}, "aaaa", 0),
        ({"pattern": "a*"}, "", 1),
        ({"pattern": ".*"}, "\ud800", 0),
    ],
)
def test_format_adherence(tmp_path: Path, format: dict[str, Any], answer: str, score: float) -> None:
    assert _score(_bound(tmp_path, "format_adherence", **format), answer) == score


def test_all_that_the_form_asks_for_is_held_together(tmp_path: Path) -> None:
    metric = _bound(tmp_path, "format_adherence", TICKET, pattern=r"\{.*\}", max_characters=30)
    assert _score(metric, '{"intent":"refund"}') == 1
    assert _score(metric, '{"intent":"sue"}') == 0
    assert _score(metric, ' {"intent":"refund"}') == 0
    assert _score(metric, '{"intent":"refund","order":"A-123456"}') == 0


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1", "a)|(b"])
def test_a_pattern_that_cannot_be_used_is_said(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(Misuse, match="cannot be used") as caught:
        _bound(tmp_path, "format_adherence", pattern=pattern)
    assert caught.value.where == "evaluate.format.pattern"


@pytest.mark.parametrize("name", ["json_schema", "format_adherence", "no_personal_data"])
def test_a_metric_that_was_given_no_settings_scores_nothing(name: str) -> None:
    with pytest.raises(Misuse, match=f"{name} scores nothing before"):
        METRICS[name].scores(asked(["a"]), Said(["a"]))
