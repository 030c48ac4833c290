"""When a run looks anew for what training begins from: when there is something to learn, never because of a promotion."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.backends.git import Git
from pipeline.backends.run_folder import RunFolder, keep_run, open_run
from pipeline.domain.data import Snapshot, Task
from pipeline.domain.model import Start, Starts
from pipeline.params import Params
from pipeline.workspace import Project
from tests.checkouts import git

STAGES = """
stages:
  train:
    cmd: 'false'
    deps: [data/snapshot, data/starts]
    params: [train]
    outs: [work/train]
  evaluate:
    cmd: 'false'
    deps: [work/train]
    params: [evaluate]
    outs: [work/evaluate]
"""
NOBODY = Starts()
FIRST = Starts(
    entries=(Start(name="champion", model="m", version="1", training="t" * 64, adapter_digest="a" * 64, folder="champion"),)
)


@pytest.fixture
def project(checkout: Path) -> Project:
    (checkout / "dvc.yaml").write_text(STAGES)
    git(checkout, "commit", "--quiet", "--all", "--message", "two stages")
    return Project(checkout, checkout / ".tuneline")


def begin(project: Project, **sections: object) -> RunFolder:
    said = {"model": {"name": "m", "task": "generate", "base": "./x"}, "train": {"start": "champion"}, **sections}
    return open_run(Git(project.root), project, Params.model_validate(said), remote=None)


def take_in(run: RunFolder, text: str) -> Snapshot:
    snapshot = Snapshot(dataset=text, task=Task.GENERATE, parent=None, sources=(), shards=(), quarantine=())
    shutil.rmtree(run.workspace.snapshot, ignore_errors=True)
    snapshot.write(run.workspace.snapshot_record)
    run.store.add(run.workspace.snapshot)
    return snapshot


def place(run: RunFolder, starts: Starts) -> None:
    shutil.rmtree(run.workspace.starts, ignore_errors=True)
    starts.write(run.workspace.starts_record)
    run.store.add(run.workspace.starts)


def finish(project: Project, run: RunFolder) -> None:
    for stage in ("train", "evaluate"):
        run.store.clear(stage)
        folder = run.workspace.root / "work" / stage
        folder.mkdir(parents=True)
        (folder / "made").write_text(f"{stage} of {run.key}")
        run.store.commit(stage)
    keep_run(Git(project.root), run, "run", run.key)


def test_what_training_begins_from_changes_with_rows_or_params_and_not_with_promotions(project: Project) -> None:
    first = begin(project)
    snapshot = take_in(first, "week 1")
    assert first.starts_anew(), "nothing was placed yet"
    place(first, NOBODY)
    finish(project, first)

    # Version 1, which that run made, now holds production. Without fresh rows there is nothing to do.
    second = begin(project)
    assert second.nothing_new(take_in(second, "week 1"), ["train", "evaluate"])
    assert Starts.read(second.workspace.starts_record) == NOBODY, "the record of the last run is carried along"

    # The same after a change that only concerns what comes after training: version 1 is measured again, not tuned further.
    measured = begin(project, evaluate={"resamples": 500})
    assert not measured.nothing_new(take_in(measured, "week 1"), ["train", "evaluate"])
    assert not measured.starts_anew()
    assert measured.store.stale(["train", "evaluate"]) == ["evaluate"]

    fresh = begin(project)
    assert take_in(fresh, "week 2") != snapshot
    assert fresh.starts_anew()
    place(fresh, FIRST)
    finish(project, fresh)
    assert not begin(project).starts_anew()

    changed = begin(project, train={"start": "champion", "learning_rate": 0.1})
    assert changed.starts_anew(), "a person asked for another training"
