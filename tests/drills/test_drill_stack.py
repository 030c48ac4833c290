"""`make drill-stack`: the shared stack as processes: up, asked, one of it killed, up again, down; nothing is left of it."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.checkouts import ROOT, git, make_checkout
from tests.story_town import PARAMS

pytestmark = pytest.mark.slow


class Stack:
    def __init__(self, root: Path) -> None:
        self.folder, self.project = root / "stack", make_checkout(root / "project", PARAMS)

    def __call__(self, *words: str, code: int = 0) -> str:
        command = [sys.executable, str(ROOT / "infra" / "stack.py"), *words, "--folder", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.project)
        assert done.returncode == code, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def said(self) -> Any:
        return json.loads((self.folder / "stack.json").read_text())

    @property
    def environment(self) -> dict[str, str]:
        lines = [line.removeprefix("export ") for line in self("env").splitlines()]
        return {key: shlex.split(value)[0] for key, _, value in (line.partition("=") for line in lines)}

    def tuneline(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **self.environment}
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *words], cwd=self.project, capture_output=True, text=True, env=env
        )

    def prefect(self) -> httpx.Client:
        env = self.environment
        user, password = env["PREFECT_API_AUTH_STRING"].split(":")
        return httpx.Client(base_url=env["TUNELINE_PREFECT_API"], auth=(user, password), timeout=30)

    def processes(self) -> list[psutil.Process]:
        """All that still carries the stack's mark, and every server of it by its ports."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TUNELINE_STACK") == str(self.folder):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def open_ports(self) -> list[str]:
        found = []
        for name, port in self.said["ports"].items():
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    found.append(name)
        return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("stack")
    # PostgreSQL's own user must be able to reach its folder.
    for folder in (root, *root.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    made = Stack(root)
    try:
        yield made
    finally:
        if (made.folder / "stack.json").exists():
            made("down", "--wipe")


def test_up_status_and_up_again(stack: Stack) -> None:
    told = stack("up")
    for name in ("postgres", "s3", "mlflow", "prefect", "worker"):
        assert f"{name:9} answers after" in told
    assert stack("status").count("answers") == 5
    assert stack("up").count("runs already") == 5
    secrets = set(stack.said["secrets"].values())
    for process in stack.processes():
        command = " ".join(process.cmdline())
        assert not any(secret in command for secret in secrets), "no secret is in a command line, which anybody can read"
    for path in stack.folder.glob("*.json"):
        assert path.stat().st_mode & 0o077 == 0


def test_strangers_do_not_get_in_and_the_security_doctor_says_so(stack: Stack) -> None:
    env = stack.environment
    search = f"{env['TUNELINE_MLFLOW_URI']}/api/2.0/mlflow/experiments/search"
    assert httpx.post(search, json={"max_results": 1}).status_code == 401
    assert httpx.post(f"{env['TUNELINE_PREFECT_API']}/flows/filter", json={}).status_code == 401
    done = stack.tuneline("doctor", "--security", "--json")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    for name in ("MLflow", "Prefect", "ledger", "way to the object store", "key of the object store"):
        assert found[name]["ok"], found[name]
    assert "wants a password" in found["MLflow"]["detail"]
    assert "wants a password" in found["Prefect"]["detail"]
    assert {name for name, one in found.items() if not one["ok"]} <= {"identities"}, "the ledger is shared and nobody is named"


def test_a_model_is_handed_to_the_pool_and_the_worker_runs_it(stack: Stack) -> None:
    """With an empty inbox: the run ends by itself and says why; the rest is the demo's to show."""
    (stack.project / "inbox").mkdir(exist_ok=True)
    git(stack.project, "status")
    done = stack.tuneline("schedule", "--pool", "tuneline")
    assert done.returncode == 0, done.stderr
    assert "desk-scheduled" in done.stdout
    client = stack.prefect()
    made = client.get("/deployments/name/retrain/desk-scheduled").json()
    run = client.post(f"/deployments/{made['id']}/create_flow_run", json={}).json()
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        state = client.get(f"/flow_runs/{run['id']}").json()["state"]
        if state["type"] in ("COMPLETED", "FAILED", "CRASHED"):
            break
        time.sleep(2)
    assert state["type"] in ("COMPLETED", "FAILED"), state
    assert "PENDING" not in state["type"], "the worker took it"


def test_gc_takes_ended_flow_runs_off_the_server_and_those_alone(stack: Stack) -> None:
    """Those of this model that ended longer ago than params keep them; here, at once."""
    (stack.project / "at-once.yaml").write_text(f"{PARAMS}retention: {{flow_days: 0.0}}\n")
    client = stack.prefect()
    before = client.post("/flow_runs/count", json={}).json()
    assert before > 0
    dry = stack.tuneline("gc", "--params", "at-once.yaml", "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert json.loads(dry.stdout)["left"] == []
    assert json.loads(dry.stdout)["totals"]["flow run"][0] > 0
    assert client.post("/flow_runs/count", json={}).json() == before
    assert stack.tuneline("gc", "--params", "at-once.yaml").returncode == 0
    ended = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}}
    left = client.post("/flow_runs/filter", json=ended).json()
    assert [run["name"] for run in left if run["parameters"].get("name") == "desk"] == []


def test_what_dies_is_told_and_started_again(stack: Stack) -> None:
    notes = json.loads((stack.folder / "processes.json").read_text())
    psutil.Process(notes["prefect"]["pid"]).kill()
    told = stack("status", code=1)
    assert "prefect   not running" in told
    assert "prefect   answers after" in stack("up")
    stack("status")


def test_down_leaves_no_process_port_or_socket_and_keeps_data(stack: Stack) -> None:
    # One parent is killed: its children are orphans that nobody can be asked for.
    notes = json.loads((stack.folder / "processes.json").read_text())
    psutil.Process(notes["mlflow"]["pid"]).kill()
    stack("down")
    assert stack.processes() == []
    assert stack.open_ports() == []
    left = {path.relative_to(stack.folder).as_posix() for path in stack.folder.rglob("*") if path.is_socket()}
    assert left == set()
    top = {path.name for path in stack.folder.iterdir()}
    assert top == {"stack.json", "postgres", "s3", "mlflow", "prefect", "dvc", "mlflow.log"}, "the log of what died is kept"
    assert "nothing was running" in stack("down")
    assert (stack.folder / "postgres" / "data" / "PG_VERSION").exists()


def test_wiping_leaves_nothing(stack: Stack) -> None:
    stack("down", "--wipe")
    assert not stack.folder.exists()


def test_the_databases_of_containers_are_made_on_a_real_server(tmp_path: Path) -> None:
    """The script that PostgreSQL's image runs on an empty cluster, with passwords that need quoting."""
    from release_postgres import KillablePostgres

    psql = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/psql"))), None)
    server = KillablePostgres()
    try:
        import psycopg

        words = {"ledger": "l'e\"d $x", "mlflow": "m\\n", "prefect": "p%20"}
        for name, word in words.items():
            (tmp_path / name).write_text(word)
        url = server.url.replace("postgresql+psycopg", "postgresql")
        admin = psycopg.conninfo.conninfo_to_dict(url)
        env = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGPASSWORD": str(admin["password"])}
        env |= {
            "POSTGRES_USER": "tuneline",
            "SECRETS": str(tmp_path),
            "PATH": f"{psql.parent if psql else ''}:{os.environ['PATH']}",
        }
        script = ROOT / "infra" / "kubernetes" / "base" / "10-databases.sh"
        done = subprocess.run(["sh", str(script)], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        where = {"host": "127.0.0.1", "port": server.port}
        for name, word in words.items():
            with psycopg.connect(**where, user=name, password=word, dbname=name) as connection:
                connection.execute("CREATE EXTENSION pg_trgm")
                connection.execute("CREATE TABLE t (n int)")
            other = next(one for one in words if one != name)
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                psycopg.connect(**where, user=name, password=word, dbname=other)
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(**where, user=name, password="postgres", dbname=name)
    finally:
        server.close()
