"""A cron of each minute: the first tick retrains on fresh data, the next one finds nothing to do. Slow: `make drill-schedule`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.story_town import Town

ENDINGS = """
import json
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    runs = sorted(client.read_flow_runs(), key=lambda run: run.expected_start_time)
    print(json.dumps([run.state.name for run in runs if run.state.is_final()]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_ticks(new_town: Callable[..., Town]) -> None:
    town = new_town()
    town.batch(1)
    town("up")
    serving = town.start("schedule --cron '* * * * *'")
    try:
        deadline = time.monotonic() + 600
        while len(endings(town)) < 2 and time.monotonic() < deadline:
            assert serving.poll() is None, serving.communicate()
            time.sleep(5)
    finally:
        serving.send_signal(signal.SIGINT)
        try:
            serving.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            serving.kill()
            serving.communicate()
    assert endings(town)[:2] == ["Registered", "Nothing new"]
    assert [row["version"] for row in town("releases --json").json] == ["1"]


def endings(town: Town) -> list[str]:
    home = town.root / ".tuneline" / "prefect"
    api = json.loads((home / "server.json").read_text())["api"]
    env = {**os.environ, "PREFECT_API_URL": api, "PREFECT_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", ENDINGS], capture_output=True, text=True, env=env, check=True)
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found
