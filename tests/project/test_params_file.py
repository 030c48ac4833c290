"""params.yaml: everything wrong is reported at once, with its line and key; nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from docs.build import methods_page, params_page
from pipeline.backends.params_file import parse_params, read_params, write_params
from pipeline.errors import BadParams
from pipeline.params import Params
from tests.checkouts import ROOT

GOOD = "model: {name: a, task: generate, base: ./x}\n"


def problems(text: str) -> str:
    with pytest.raises(BadParams) as caught:
        parse_params(text)
    assert caught.value.exit_code == 2
    return caught.value.what


def test_all_problems_in_one_error_with_lines_and_keys() -> None:
    said = problems(
        "model:\n  name: Bad Name\n  task: generate\n  base: examples/base\n"
        "train:\n  learning_rate: 1e-4\n  lerning_rate: 0.1\n  rank: '8'\n  rank: 9\n  epochs: -1\n"
        "evaluate:\n  metrics: [accuracy]\ngate:\n  thresholds: {foo: 0.1}\n"
    )
    for line, text in {
        2: "model.name",
        6: "train.learning_rate: 1e-4 is a number to some YAML readers, text to others; write it with a point: 1.0e-4",
        7: "train.lerning_rate: unknown key; did you mean learning_rate?",
        8: "train.rank: input should be a valid integer",
        9: "train.rank: the key stands twice, first in line 8",
        10: "train.epochs: input should be greater than 0, not -1",
    }.items():
        assert f"params.yaml:{line}: {text}" in said
    assert "needs a pinned revision; write ./examples/base for a folder" in said
    assert "evaluate.metrics: accuracy does not fit the task generate" in said
    assert "gate.thresholds.foo: not among evaluate.metrics" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1]\nb: [*x, *x]", "anchors and aliases are not used"),
        ("a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: &d [*c,*c]", "anchors and aliases"),
        ("model: !!python/object/apply:os.system [true]", "the tag"),
        ("", "the file is empty"),
        ("- 1", "must be a mapping"),
        ("model: [", "not YAML"),
        ("model: \0", "not YAML"),
        ("x: " + "[" * 50 + "]" * 50, "nested deeper"),
        (GOOD + "validate: {min_rows: 010}", "octal"),
        (GOOD + "ingest: {sources: [no]}", "truth value"),
        (GOOD + "train: {max_steps: 1_000}", "underscores"),
        (GOOD + "schedule: {cron: 12:30}", "base 60"),
        (GOOD + "train: {learning_rate: .nan}", "valid number"),
        (GOOD + "train: {batch_size: true}", "valid integer"),
        (GOOD + "split: {eval: 0.5, test: 0.5}", "less than a tenth"),
        (GOOD + "release: {promote_on_pass: prod}", "none of the stages"),
        (GOOD + "release: {stages: [latest]}", "MLflow's own"),
        ("model: {name: a, task: classify, base: ./x}\nevaluate: {metrics: [accuracy]}\ningest: {format: chat}", "have no label"),
        ("model: {name: a, task: generate, base: org/m, revision: main}", "full 40-digit commit"),
    ],
)
def test_refused(text: str, said: str) -> None:
    assert said in problems(text)


def test_quoted_text_is_text_and_pointed_exponents_are_numbers() -> None:
    params = parse_params(GOOD + "schedule: {cron: '0 3 * * *', timezone: 'no'}\ntrain: {learning_rate: 1.0e-4}")
    assert params.schedule.timezone == "no"
    assert params.train.learning_rate == 1e-4


def test_write_then_read_gives_the_same_params(tmp_path: Path) -> None:
    params = Params.model_validate({"model": {"name": "a", "task": "generate", "base": "./x"}, "train": {"learning_rate": 1e-5}})
    write_params(params, tmp_path / "params.yaml")
    assert read_params(tmp_path / "params.yaml") == params


def test_a_missing_and_a_huge_file(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match="no such params file"):
        read_params(tmp_path / "none.yaml")
    huge = tmp_path / "huge.yaml"
    huge.write_text("#" * (300 << 10))
    with pytest.raises(BadParams, match="larger than"):
        read_params(huge)


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("examples/**/params*.yaml"))], ids=str)
def test_every_params_file_that_ships_is_valid(path: Path) -> None:
    assert read_params(path).model.name


@pytest.mark.parametrize(("name", "made"), [("params.md", params_page), ("methods.md", methods_page)])
def test_a_page_that_is_made_from_the_code_says_what_the_code_says(name: str, made: Callable[[], str]) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made(), "run python docs/build.py"


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ("gate:\n  suites: {cases: 1.0}\n", "gate.suites.cases: no suite of evaluate.suites"),
        ("gate:\n  slices: {source: {}}\n", "gate.slices.source: not among evaluate.slices"),
        ("gate:\n  exposure: 3.0\n", "gate.exposure: needs a suite of the kind canaries"),
        ("gate:\n  ceilings: {per_thousand: 1.0}\n", "gate.ceilings.per_thousand: needs evaluate.cost.price_per_hour"),
        ("gate:\n  parity: [merged]\n", "gate.parity: merged is not among evaluate.parity_forms"),
        ("gate:\n  parity: [loaded]\nevaluate:\n  parity_rows: 0\n", "gate.parity: with evaluate.parity_rows 0"),
        ("gate:\n  better_than_base: {net_wins: 0.0}\n", "gate.better_than_base.net_wins: not among evaluate.metrics"),
        ("evaluate:\n  metrics: [json_schema]\n", "json_schema needs evaluate.format.schema_file"),
        ("evaluate:\n  suites: [{name: a, kind: text}]\n", "the suite a needs a file"),
    ],
)
def test_the_gate_asks_about_nothing_that_is_not_measured(tmp_path: Path, sections: str, problem: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("model: {name: m, task: generate, base: ./base}\n" + sections)
    with pytest.raises(BadParams) as error:
        read_params(path)
    assert problem in str(error.value)
