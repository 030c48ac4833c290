"""One local Prefect server per project: started once, reused by every command, stopped by `tuneline down`.

Prefect's own ephemeral server costs 11 seconds a process and now and then locks its database. This module must not import
prefect: the environment it prepares has to be there before prefect is first imported.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.errors import Broken
from pipeline.workspace import Project

START_SECONDS = 120
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # People read our own lines; Prefect's go to its API, where the UI shows them.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_CLI_PROMPT": "false",
}


@dataclass(frozen=True, slots=True)
class Server:
    api: str
    pid: int | None
    """None for a server that is not ours."""

    @property
    def ui(self) -> str:
        return self.api.removesuffix("/api")


def use_server(project: Project, configured: str | None) -> Server:
    """Point this process at the configured Prefect API, or at the project's own server, starting it if need be."""
    os.environ.update({k: v for k, v in _QUIET.items() if k not in os.environ})
    os.environ["PREFECT_HOME"] = str(project.prefect)
    project.prefect.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = Server(configured, None) if configured else _own_server(project)
    os.environ["PREFECT_API_URL"] = server.api
    return server


def running(project: Project) -> Server | None:
    """The project's own server if it is up."""
    try:
        noted = json.loads(_note(project).read_text())
        process = psutil.Process(noted["pid"])
        # A pid alone may have been given to someone else since.
        ours = abs(process.create_time() - noted["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        return Server(noted["api"], noted["pid"]) if ours else None
    except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
        return None


def stop(project: Project) -> bool:
    """Stop the project's own server and its children. True if it was running."""
    server = running(project)
    _note(project).unlink(missing_ok=True)
    if server is None or server.pid is None:
        return False
    process = psutil.Process(server.pid)
    family = [process, *process.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for left in alive:
        left.kill()
    psutil.wait_procs(alive, timeout=5)
    return True


def _own_server(project: Project) -> Server:
    project.locks.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (project.locks / "prefect-server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = running(project)
        if server is not None and _healthy(server.api):
            return server
        if server is not None:
            stop(project)
        return _start(project)


def _start(project: Project) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    log = project.prefect / "server.log"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "PREFECT_API_URL": api,
        "PREFECT_UI_API_URL": api,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        # What is left of flow runs that `tuneline gc` deletes, logs and artifacts, the server removes itself after 30 days.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=project.state,
            start_new_session=True,
        )
    note = {"api": api, "pid": process.pid, "created": psutil.Process(process.pid).create_time()}
    _note(project).write_text(json.dumps(note))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Broken(
                "the local Prefect server ended at once", where=str(log), fix="read that log; tuneline doctor may know more"
            )
        if _healthy(api):
            return Server(api, process.pid)
        time.sleep(0.1)
    stop(project)
    raise Broken(f"the local Prefect server did not answer within {START_SECONDS} s", where=str(log), fix="read that log")


def _healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _note(project: Project) -> Path:
    return project.prefect / "server.json"
