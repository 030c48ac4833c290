"""A champion kept fresh: the second week begins from the first release, replays its rows, is held near it; an audit proves it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.domain.model import Starts, TrainingRun
from pipeline.workspace import Workspace
from tests.story_town import PARAMS, Town

CONTINUAL = PARAMS.replace("train: {", "train: {start: champion, mix: {replay: 0.3}, ewc: {weight: 1.0, rows: 16}, ")


@pytest.mark.slow  # make test-slow
def test_the_second_week_begins_from_the_champion_and_an_audit_proves_it(new_town: Callable[..., Town]) -> None:
    town = new_town(CONTINUAL)
    town.batch(1, rows=180)
    first = town("run --json")
    assert first.json["ending"] == "registered"
    assert "nobody holds production" in first.err
    trained = _training(town)
    assert [stage.start_from for stage in trained.stages] == ["base"]
    assert trained.stages[0].start == trained.base.digest

    town("promote 1 --to production --by alice --reason first")
    again = town("run --json").json
    assert again["ending"] == "nothing new", "a promotion is no reason to tune"

    town.batch(2, rows=180)
    second = town("run --json").json
    assert (second["ending"], second["version"]) == ("registered", "2")
    continued, (stage,) = _training(town), _training(town).stages
    assert stage.start == trained.adapter_digest != continued.adapter_digest
    assert stage.start_from == "champion (version 1)"
    assert "penalty" in stage.measures
    starts = Starts.read(_workspace(town).starts_record)
    assert continued.starts == starts.digest
    assert starts.entries[0].shards, "the rows that version 1 was trained on are known"

    said = town("audit show 2").out
    assert f"champion: desk version 1, {trained.adapter_digest[:12]}" in said
    assert f"from champion (version 1) {trained.adapter_digest[:12]}" in said
    report = town("audit verify 2 --json").json
    checks = {check["name"]: check["ok"] for check in report["checks"]}
    assert checks["start champion"]
    assert checks["stage sft began from champion"]

    # Training is a function of files: dvc repro, in the folder of the run, finds nothing to do.
    dvc = str(Path(sys.executable).parent / "dvc")
    words = [dvc, "status", "--json"]
    done = subprocess.run(words, cwd=_workspace(town).root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {}


def _workspace(town: Town) -> Workspace:
    return Workspace(Path(town("worktree").out.strip()))


def _training(town: Town) -> TrainingRun:
    return TrainingRun.read(_workspace(town).training_record)
