"""Ticks by the real Prefect server. Served: the first tick of a cron retrains on fresh data, the next one finds nothing to do.
From a pool: deployed twice, a worker killed in mid-run, the server started anew; one version for one batch, one turn a tick.
Slow: `make drill-schedule`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from tests.story_town import Town

RUNS = """
import json
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    runs = sorted(client.read_flow_runs(), key=lambda run: run.expected_start_time)
    scheduled = [run for run in runs if run.name.startswith("retrain")]
    print(json.dumps([[run.state.name, str(run.expected_start_time), run.state.is_final()] for run in scheduled]))
"""
TICKS = """
import json
from pipeline.wiring import World
print(json.dumps([[str(tick.at), tick.ending, tick.version] for tick in World.here().run_book.ticks("desk", 100)]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_ticks(new_town: Callable[..., Town]) -> None:
    town = new_town()
    town.batch(1)
    town("up")
    with begun(town, "schedule --cron '* * * * *'") as serving:
        wait_for(lambda: "Nothing new" in endings(town), serving)
    # Ticks that came while the first run was going on waited their turn, until the next one was due.
    assert [ending for ending in endings(town) if ending != "Skipped"][:2] == ["Registered", "Nothing new"]
    assert [row["version"] for row in town("releases --json").json] == ["1"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_pool_whose_worker_is_killed_and_whose_server_starts_anew(new_town: Callable[..., Town]) -> None:
    town = new_town()
    town.batch(1)
    for _ in range(2):
        assert "desk-scheduled" in town("schedule --pool night --cron '* * * * *'").out.splitlines()
    with begun(town, "worker --pool night") as worker:
        wait_for(lambda: (town.root / ".tuneline" / "checkpoints").exists(), worker)
        # A machine that goes down takes the worker and the run with it.
        for process in [*psutil.Process(worker.pid).children(recursive=True), psutil.Process(worker.pid)]:
            process.kill()
    town("down")
    town("schedule --pool night --cron '* * * * *'")
    with begun(town, "worker --pool night") as worker:
        wait_for(lambda: ended(town).count("nothing new") >= 2, worker)
    found = ended(town)
    assert found.count("registered") == 1
    assert set(found) <= {"taken over", "registered", "nothing new"}
    instants = [at for at, _, _ in asked(town, TICKS)]
    assert len(instants) == len(set(instants))
    assert [row["version"] for row in town("releases --json").json] == ["1"]
    assert "Crashed" in [name for name, _, _ in asked(town, RUNS)], "the killed run is shown as what it is"


@contextmanager
def begun(town: Town, command: str) -> Iterator[subprocess.Popen[str]]:
    process = town.start(command)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait_for(done: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(5)


def endings(town: Town) -> list[str]:
    return [name for name, _, final in asked(town, RUNS) if final]


def ended(town: Town) -> list[str]:
    return [ending for _, ending, _ in asked(town, TICKS) if ending != "running"]


def asked(town: Town, code: str) -> Any:
    home = town.root / ".tuneline" / "prefect"
    api = json.loads((home / "server.json").read_text())["api"]
    env = {**os.environ, "PREFECT_API_URL": api, "PREFECT_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True, cwd=town.root)
    return json.loads(done.stdout.splitlines()[-1])
