"""A PostgreSQL server that can be killed and started again on its data, as often as one likes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.data.source_bench import free_ports


class KillablePostgres:
    """Debian's binaries, run as an unprivileged user, since the server refuses root. fsync is on: what it says is stored, is."""

    def __init__(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not binaries:
            pytest.skip("no PostgreSQL server is installed here (Debian: postgresql)")
        root = os.geteuid() == 0
        if root and shutil.which("setpriv") is None:
            pytest.skip("PostgreSQL may not run as root, and there is no setpriv to become another user")
        self._as_other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if root else []
        self._binary, [self.port], self._password = binaries[-1], free_ports(1), "pw-" + secrets.token_hex(8)
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        (self.folder / "pw").write_text(self._password)
        if root:
            for path in (self.folder, self.folder / "pw"):
                os.chown(path, 65534, 65534)
        options = ["-D", self.folder / "db", "-U", "tuneline", "--pwfile", self.folder / "pw", "-A", "scram-sha-256", "--no-sync"]
        made = subprocess.run([*self._as_other, self._binary.with_name("initdb"), *options], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://tuneline:{self._password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [*self._as_other, self._binary, "-D", self.folder / "db", "-p", str(self.port), "-k", self.folder]
        deadline = time.monotonic() + 120
        while True:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*command, "-c", "listen_addresses=127.0.0.1"],
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                )
            while self._process.poll() is None:
                if self._answers():
                    return
                time.sleep(0.1)
                assert time.monotonic() < deadline, self._said()
            # Right after a kill the shared memory of the dead may still be there.
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.5)

    def kill(self) -> None:
        """SIGKILL to the server and all its processes, as a machine's memory watcher does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT is PostgreSQL's immediate shutdown: every session is dropped, nothing is written back."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(60)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _answers(self) -> bool:
        import psycopg

        try:
            self.run("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def _said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]
