"""A run killed in mid-training, started again; and work that `dvc repro` did before the flow came by. One project, in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.backends.run_folder import STAGES
from tests.story_town import Town, adapter_of
from tests.warm import WarmProcess

pytestmark = pytest.mark.slow  # make drill-chaos; make test kills the flow in drills/test_drill_chaos.py


@pytest.fixture(scope="module")
def second(new_town: Callable[..., Town]) -> Town:
    made = new_town()
    made.batch(1)
    return made


def test_a_run_killed_in_mid_training_ends_with_the_same_adapter_bytes(town: Town, second: Town) -> None:
    run = second.start("run")
    wait_for(lambda: any(second.root.glob(".tuneline/checkpoints/**/complete.json")), run)
    run.kill()
    run.communicate()
    assert second.git("tag") == "", "a killed run must leave no kept run"
    outcome = second("run --json").json
    assert (outcome["run"], outcome["ending"], outcome["version"]) == ("desk-0001", "registered", "1")
    assert adapter_of(second) == adapter_of(town)
    assert not any(second.root.glob(".tuneline/checkpoints/**/complete.json")), "checkpoints are gone when the work is kept"


def test_prefect_shows_the_killed_run_as_crashed(second: Town) -> None:
    script = """
import asyncio, json
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(json.dumps(sorted(run.state.name for run in client.read_flow_runs())))
"""
    api = json.loads((second.root / ".tuneline" / "prefect" / "server.json").read_text())["api"]
    env = {**os.environ, "PREFECT_API_URL": api, "PREFECT_HOME": str(second.root / ".tuneline" / "prefect")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == ["Crashed", "Registered"]


def test_what_dvc_repro_did_first_the_flow_brings_back(second: Town) -> None:
    folder = Path(second("worktree").out.strip())
    for params in (folder / "params.yaml", second.root / "params.yaml"):
        params.write_text(params.read_text().replace("resamples: 200", "resamples: 300"))
    bin_folder = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run([str(bin_folder / "dvc"), "repro"], cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Running stage") == 1, done.stdout
    ran = second("run --json")
    assert ran.json["ending"] == "registered"
    assert ran.err.count("done before, brought back") == len(STAGES), ran.err


def wait_for(condition: Callable[[], bool], process: WarmProcess, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the run ended before: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
