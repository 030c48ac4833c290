"""Trains a version again, from a clean checkout of its commit, its data from DVC, by the same seeds; is what comes out the same?

The code that runs is the recorded one, in a process of its own, with a state folder of its own: nothing that was made before (nor
checkpoints, nor caches) can stand in for the work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import TrainingRun
from pipeline.domain.rebuilt import Rebuilt, Remeasured, compare, remeasured
from pipeline.domain.release import resolve, version_record
from pipeline.errors import Broken, Misuse
from pipeline.moving import known_events
from pipeline.terminal import say
from pipeline.wiring import World
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.params import Params


def rebuild(world: World, params: Params, version: str, *, keep: Path | None = None) -> Rebuilt:
    """Train `version` again and compare. keep: a new folder for the adapter that this makes.

    Raises Misuse when `keep` is there; Broken when the commit or its data are gone, or the training fails.
    """
    from pipeline.backends.dvc import DvcStore

    if keep is not None and keep.exists():
        raise Misuse("there is something already", where=str(keep), fix="name a folder that does not exist yet")
    events = known_events(params.model.name, world.ledger)
    record = version_record(events, resolve(events, version, params.release.stages))
    if not world.git.has_commit(record.commit):
        raise Broken(f"the commit {record.commit[:12]} is not in this repository", where=record.tag, fix="git fetch its tags")
    with world.scratch() as scratch:
        workspace = Workspace(scratch / "checkout")
        world.git.add_worktree(workspace.root, record.commit)
        try:
            say(f"  checked out {record.commit[:12]}; bringing its data back")
            store = DvcStore(workspace, world.project, remote=world.settings.dvc_remote)
            store.checkout()
            recorded = TrainingRun.read(workspace.training_record, digest=record.training)
            measured = EvaluationReport.read(workspace.evaluation_record, digest=record.evaluation)
            for stage in ("train", "evaluate"):
                store.clear(stage)
            store.close()
            made = _train(workspace, scratch / "state", recorded)
            found = compare(recorded, made, model=record.name, version=record.version, commit=record.commit)
            if not found.same and not found.comparable:
                say("  other bytes on another class of machine or other libraries: measuring it")
                found = found.model_copy(update={"metrics": _measured_again(workspace, scratch / "state", recorded, measured)})
            if keep is not None:
                shutil.copytree(workspace.training / "adapter", keep)
            return found
        finally:
            world.git.remove_worktree(workspace.root)


def _train(workspace: Workspace, state: Path, recorded: TrainingRun) -> TrainingRun:
    say(f"  training again: {recorded.steps} steps")
    _step("train", workspace, state, recorded.versions)
    return TrainingRun.read(workspace.training_record)


def _measured_again(
    workspace: Workspace, state: Path, recorded: TrainingRun, measured: EvaluationReport
) -> tuple[Remeasured, ...]:
    _step("evaluate", workspace, state, recorded.versions)
    again = EvaluationReport.read(workspace.evaluation_record).subject("candidate")
    before = measured.subject("candidate")
    return remeasured(before.metrics, again.metrics) if before and again else ()


def _step(name: str, workspace: Workspace, state: Path, made_with: Mapping[str, str]) -> None:
    """A stage by the code of the checkout itself, as `dvc repro` would run it there. Raises Broken with the last it said."""
    environment = {**os.environ, "TUNELINE_HOME": str(state), "PYTHONPATH": ""}
    for secret in ("TUNELINE_LEDGER_URL", "TUNELINE_MLFLOW_URI"):
        environment.pop(secret, None)  # a rebuild leaves no run behind
    if made_with.get("threads", "").isdecimal():
        # Sums are taken in another order by another number of threads.
        environment["OMP_NUM_THREADS"] = made_with["threads"]
    command = [sys.executable, "-m", "pipeline", "step", name]
    done = subprocess.run(
        command, cwd=workspace.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        said = "\n".join(done.stdout.strip().splitlines()[-5:])
        raise Broken(f"the recorded code's {name} ended with {done.returncode}: {said}", where=str(workspace.root))
