"""The one local Prefect server: started once, reused, stopped by pid, and never confused with a stranger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.server import Server, running, stop, use_server
from pipeline.workspace import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("PREFECT_HOME", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")
    made = Project(tmp_path, tmp_path / "state")
    yield made
    stop(made)


def test_two_processes_share_one_server_and_down_ends_it(project: Project) -> None:
    code = (
        "import sys; from pathlib import Path; from flows.server import use_server; from pipeline.workspace import Project\n"
        "server = use_server(Project(Path(sys.argv[1]), Path(sys.argv[1]) / 'state'), None); print(server.api, server.pid)"
    )
    command = [sys.executable, "-c", code, str(project.root)]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {starter.communicate(timeout=200)[0] for starter in starters}
    assert len(said) == 1
    server = running(project)
    assert server is not None
    assert server.api.startswith("http://127.0.0.1:")
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    listening = {c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    assert stop(project)
    assert running(project) is None
    assert not stop(project)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)


def test_a_reused_pid_is_not_taken_for_our_server(project: Project) -> None:
    project.prefect.mkdir(parents=True)
    note = {"api": "http://127.0.0.1:1/api", "pid": os.getpid(), "created": time.time() - 10_000}
    (project.prefect / "server.json").write_text(json.dumps(note))
    assert running(project) is None
    assert not stop(project)


def test_a_configured_api_is_used_as_it_is(project: Project) -> None:
    assert use_server(project, "http://127.0.0.1:9/api") == Server("http://127.0.0.1:9/api", None)
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"
    assert running(project) is None
