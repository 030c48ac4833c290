"""The command line: light to import, clear when misused, one exit code a kind of ending."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import BadInput, BadParams, Broken, Conflict, Misuse, Tampered, TryLater, TunelineError
from pipeline.terminal import mapping, table, to_json

HEAVY = {"torch", "transformers", "peft", "mlflow", "prefect", "dvc", "great_expectations", "pandas", "sqlalchemy", "pydantic"}


def tuneline(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, pipeline.__main__; print(sorted(m for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.strip("'[], \n").split(".")[0] for name in done.stdout.split(",")}
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_unknown_commands_and_options_are_misuse(checkout: Path) -> None:
    assert tuneline(checkout, "nonsense").returncode == 2
    assert tuneline(checkout, "promote", "1").returncode == 2


def test_bad_params_are_misuse_and_say_where(checkout: Path) -> None:
    (checkout / "params.yaml").write_text("model: {name: a}\n")
    done = tuneline(checkout, "releases")
    assert done.returncode == 2
    assert "params.yaml:1: model.task: missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fresh_project_has_no_releases_and_says_what_to_do(checkout: Path) -> None:
    done = tuneline(checkout, "releases")
    assert done.returncode == 2
    assert "tuneline run" in done.stderr
    found = json.loads(tuneline(checkout, "status", "--json").stdout)
    assert found["stages"] == {"staging": None, "production": None}
    assert tuneline(checkout, "worktree").returncode == 2


def test_outside_a_repository(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("model: {name: a, task: generate, base: ./x}\n")
    done = tuneline(tmp_path, "status")
    assert done.returncode == 2
    assert "git init" in done.stderr


def test_the_doctor_finds_what_is_wrong_and_how_to_mend_it(checkout: Path) -> None:
    done = tuneline(checkout, "doctor")
    assert done.returncode == 1
    assert "NO  sources: missing: inbox" in done.stdout
    (checkout / "inbox").mkdir()
    done = tuneline(checkout, "doctor")
    assert done.returncode == 0, done.stdout
    (checkout / "params.yaml").write_text("model: {name: a, task: generate, base: ./nowhere}\n")
    done = tuneline(checkout, "doctor", "--json")
    wrong = [finding for finding in json.loads(done.stdout) if not finding["ok"]]
    assert done.returncode == 1
    assert any("nowhere" in finding["detail"] for finding in wrong)


def test_the_doctor_sees_a_damaged_ledger(checkout: Path) -> None:
    (checkout / "inbox").mkdir()
    (checkout / ".tuneline").mkdir()
    (checkout / ".tuneline" / "ledger.db").write_bytes(b"this is no database" * 100)
    done = tuneline(checkout, "doctor")
    assert done.returncode == 1
    assert "NO  stores" in done.stdout
    assert "ok  params" in done.stdout, "one bad store must not hide the rest"


@pytest.mark.parametrize(
    ("kind", "code"),
    [(Misuse, 2), (BadParams, 2), (BadInput, 2), (TryLater, 3), (Conflict, 3), (Broken, 4), (Tampered, 4)],
)
def test_each_kind_of_error_has_its_exit_code_and_survives_pickling(kind: type[TunelineError], code: int) -> None:
    # Not our format: process pools and Prefect carry exceptions between processes in it.
    import pickle

    error = kind("what is wrong", where="file:3", fix="do this")
    assert error.exit_code == code
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "file:3: what is wrong\n  fix: do this"


def test_tables_and_mappings() -> None:
    assert table([]) == ["none yet"]
    assert table([{"a": 1, "bc": None}, {"a": "xyz", "bc": ["p", "q"]}]) == ["a    bc", "1    -", "xyz  p, q"]
    assert mapping({"a": {"b": 1, "c": None}}) == ["a: b=1, c=-"]
    assert json.loads(to_json({"path": Path("x")})) == {"path": "x"}
