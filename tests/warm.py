"""`python -m MODULE …` without the wait for imports: one process imports the libraries once, and each command is a fork of it.

A fork is a process like any other: it has a folder, an environment and pipes of its own, and can be killed. Our own code is not
imported beforehand, so each imports that of its folder. What a command needs that must see its environment at import (prefect)
is left to it as well.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch",
    "transformers.trainer",
    "transformers.models.llama.modeling_llama",
    "transformers.models.bert.modeling_bert",
    "peft",
    "accelerate",
    "datasets",
    "great_expectations",
    "great_expectations.execution_engine",
    "mlflow",
    "mlflow.pyfunc",
    "mlflow.tracking",
    "dvc.repo",
    "dvc.repo.reproduce",
    "sklearn.linear_model",
    "sklearn.feature_extraction.text",
    "scipy.stats",
    "pyarrow.parquet",
    "pandas",
    "jinja2",
    "sqlalchemy.orm",
    "alembic.command",
    "fastapi",
    "httpx",
    "regex",
    "rapidfuzz",
    "phonenumbers",
    "py3langid",
    "lxml.html",
    "rensa",
    "typer.main",
    "pydantic_settings",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "sqlalchemy.dialects.sqlite",
    "scmrepo.git",
    "dulwich.porcelain",
    "dvc.parsing",
    "dvc_render",
    "model_signing",
    "in_toto_attestation.v1.statement",
    "securesystemslib.signer",
    "cyclonedx.model.bom",
    "cyclonedx.output.json",
    "openlineage.client",
    "griffe",
    "graphviz",
    "websockets",
    "pendulum",
    "prometheus_client",
    "coolname",
    "humanize",
    "apprise",
)


class WarmProcess:
    """What a caller of subprocess.Popen(text=True) would hold: pid, pipes, communicate, poll, wait, signals.

    shim and die_at: with drills/kill_at.c preloaded, the process is killed at its so-manieth change of the disk, or, with 0, says
    on stderr how many there were.
    """

    def __init__(
        self, words: list[str], *, cwd: Path, env: Mapping[str, str], shim: Path | None = None, die_at: int | None = None
    ) -> None:
        out, err = os.pipe(), os.pipe()
        with _asking(_server(shim)) as connection:
            order = json.dumps({"words": words, "cwd": str(cwd), "env": dict(env), "die_at": die_at}).encode()
            socket.send_fds(connection, [len(order).to_bytes(8)], [out[1], err[1]])
            connection.sendall(order)
            os.close(out[1])
            os.close(err[1])
            self._connection = connection.makefile("rb")
        self.pid = int(self._line())
        self.args = words
        self.returncode: int | None = None
        self.stdout, self.stderr = os.fdopen(out[0]), os.fdopen(err[0])
        self._ended = threading.Event()
        threading.Thread(target=self._await_end, daemon=True).start()

    def _line(self) -> str:
        return self._connection.readline().decode().strip()

    def _await_end(self) -> None:
        said = self._line()
        self.returncode = int(said) if said else 1
        self._connection.close()
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        said: dict[str, str] = {}

        def read(name: str) -> None:
            said[name] = getattr(self, name).read()

        readers = [threading.Thread(target=read, args=(name,), daemon=True) for name in ("stdout", "stderr")]
        for reader in readers:
            reader.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        for reader in readers:
            reader.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if deadline is None else max(0.1, deadline - time.monotonic()))
        self.stdout.close()
        self.stderr.close()
        return said["stdout"], said["stderr"]

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_KEPT: list[Any] = []
"""The standard inputs of the servers."""


@cache
def _server(shim: Path | None) -> str:
    """The address of this process's own server of forks, started when first asked for. It is nobody's child, as tests look for
    children that were left behind, and ends when this process does, since its standard input then ends."""
    name = f"tuneline-warm-{os.getpid()}-{time.monotonic_ns()}"
    ready, said = os.pipe()
    command = [sys.executable, str(Path(__file__).with_name("warm_server.py")), name, str(said)]
    # pyarrow's allocator would have a thread of its own, and a fork has only the one that forked.
    alone = {"OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    if shim is not None:
        alone["LD_PRELOAD"] = str(shim)
    started = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[said], env=os.environ | alone)
    os.close(said)
    if os.read(ready, 1) != b"1":
        raise RuntimeError("the process that imports the libraries ended")
    os.close(ready)
    started.wait()
    _KEPT.append(started.stdin)
    return name


def _asking(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"\0{name}")
    return connection


def libraries() -> Any:
    """Import them, here."""
    import importlib

    for name in LIBRARIES:
        importlib.import_module(name)
