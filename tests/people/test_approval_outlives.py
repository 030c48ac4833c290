"""A wait outlives what it runs on: the server is started anew under whoever serves, and who serves is killed, while it waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from desk import MODEL, PARAMS, Desk

from flows.prefect_api import PrefectApi, tags_of
from pipeline.errors import TryLater

pytestmark = pytest.mark.slow

LOGIN = "tuneline:only-for-this-test"
"""The server asks for it; all who speak to it have it from the environment."""
SERVES = """
import sys
from pathlib import Path
from flows.approval import approval_deployment
from pipeline.wiring import read_params
from prefect import serve
file = Path(sys.argv[1])
serve(approval_deployment("desk", file, read_params(file)))
"""


class Stage:
    """A server on one port, whoever serves, and commands: each a process of its own."""

    def __init__(self, root: Path) -> None:
        self.desk = Desk(root / "desk", params=PARAMS + "  promote_when_approved: false\n  approval: {look_minutes: 1}\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        address = f"http://127.0.0.1:{self.port}/api"
        self.api = PrefectApi(address, patience=30.0)
        self.log = (root / "log").open("ab")
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(root / "prefect"),
            "PREFECT_API_URL": address,
            "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
            "PREFECT_API_AUTH_STRING": LOGIN,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "TUNELINE_PREFECT_API": address,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def start(self, *words: str) -> psutil.Popen:
        command = [sys.executable, *words]
        return psutil.Popen(command, cwd=self.desk.root, env=self.environment, stdout=self.log, stderr=self.log)

    @contextmanager
    def server(self) -> Iterator[psutil.Popen]:
        made = self.start("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        try:
            until(lambda: self.api.check() is None)
            yield made
        finally:
            end(made)

    @contextmanager
    def serving(self) -> Iterator[psutil.Popen]:
        made = self.start("-c", SERVES, str(self.desk.params_file))
        try:
            yield made
        finally:
            end(made)

    def tuneline(self, *words: str) -> None:
        command, settings = [sys.executable, "-m", "pipeline", *words], {"cwd": self.desk.root, "env": self.environment}
        subprocess.run(command, **settings, check=True, capture_output=True, timeout=300)

    def state(self, version: str) -> str:
        found = self.api.flow_runs(tags=tags_of(MODEL, version, "production"))
        return found[0].state if found else "none"

    def ask(self, version: str) -> None:
        """A run of the deployment for a version, made as by hand."""
        deployment = self.api._ask(f"/deployments/name/approval/{MODEL}-approval", None)["id"]
        asked = {"version": version, "stage": "production"}
        body = {"parameters": {**asked, "name": MODEL, "params_file": str(self.desk.params_file)}}
        self.api._ask(f"/deployments/{deployment}/create_flow_run", body)


def until(holds: object, seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():  # type: ignore[operator]
                return
        except TryLater:
            pass
        time.sleep(0.3)
    raise AssertionError("it did not come to that")


def end(process: psutil.Popen, how: int = signal.SIGKILL) -> None:
    if not process.is_running():
        return
    family = [*process.children(recursive=True), process]
    for one in family:
        one.send_signal(how)
    psutil.wait_procs(family, timeout=60)


def test_servers_start_anew_and_who_serves_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", LOGIN)
    stage = Stage(tmp_path)
    stage.desk.register()
    stage.desk.register()
    with ExitStack() as server, ExitStack() as serving:
        server.enter_context(stage.server())
        serving.enter_context(stage.serving())
        until(lambda: stage.ask("1") is None)
        until(lambda: stage.state("1") == "Suspended")
        server.close()
        server.enter_context(stage.server())
        # The server is another by now, who serves is the same.
        assert stage.state("1") == "Suspended"
        stage.tuneline("approve", "1", "--to", "production", "--by", "bob", "--reason", "r")
        until(lambda: stage.state("1") == "Ready")
        stage.ask("2")
        until(lambda: stage.state("2") == "Suspended")
    # Who serves was killed, and so was the server. The decision is taken while nobody is there.
    stage.tuneline("refuse", "2", "--to", "production", "--by", "eve", "--reason", "r")
    with stage.server(), stage.serving():
        assert stage.state("2") == "Suspended"
        with monkeypatch.context() as stranger:
            stranger.delenv("PREFECT_API_AUTH_STRING")
            with pytest.raises(TryLater, match="answered 401"):
                stage.state("2")
        until(lambda: stage.state("2") == "Refused")  # a scheduled look finds it
    assert stage.desk.deeds == [("approved", "1", "bob"), ("refused", "2", "eve")]
