"""A Ray cluster of two nodes on one machine, as plain processes on loopback with a token: for tests, drills, trying things out.

    python infra/ray_cluster.py up        start the head and a second node; says what to put into the environment
    python infra/ray_cluster.py env       the environment as shell lines: eval "$(python infra/ray_cluster.py env)"
    python infra/ray_cluster.py status    which nodes run
    python infra/ray_cluster.py down      stop all that `up` started, and remove what it held

Each node is one `ray start --block` and its children; it is noted with the time it was created, and only such processes are ever
ended. What Tuneline does with a cluster is docs/ray.md's.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

NODES = {"head": "127.0.0.2", "second": "127.0.0.3"}
"""The nodes and their addresses. Ray turns 127.0.0.1 into the machine's own address, which others may reach; the rest of
loopback, which Linux has without set-up, it takes as it is told."""
_AGENTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export")
PORTS = ("node-manager", "object-manager", *_AGENTS)
"""What a node listens on beside its workers."""
PORT_FILES = {
    "metrics_agent_port": "dashboard-agent-grpc",
    "metrics_export_port": "metrics-export",
    "dashboard_agent_listen_port": "dashboard-agent-listen",
    "runtime_env_agent_port": "runtime-env-agent",
}
"""By these a node's agents tell it where they listen. Ray waits fifteen seconds for them, too short for a busy machine, and then
the node dies; since the ports are given, the files can be written at once."""
PATIENCE = 180
"""Seconds until a node that does not answer is given up."""
STORE_BYTES = 128 << 20
"""Of each node's object store: Ray would take a third of the memory."""


class Unavailable(Exception):
    """The cluster cannot be started here; the text says why, and what to do."""


class RayCluster:
    """A cluster that lives in `folder`. cpus: what each node says it has, whatever the machine has."""

    def __init__(self, folder: Path, *, cpus: int = 1) -> None:
        self.folder = folder.absolute()
        self.cpus = cpus

    @property
    def environment(self) -> dict[str, str]:
        """What `tuneline` needs to use this cluster; a secret is in it."""
        said = self._read()
        return {"TUNELINE_RAY_ADDRESS": f"{NODES['head']}:{said['gcs']}", "TUNELINE_RAY_TOKEN": said["token"]}

    def up(self, nodes: tuple[str, ...] = tuple(NODES)) -> None:
        """Start each of `nodes` that does not run, and wait until it has joined. Safe to repeat."""
        self._make()
        for name in nodes:
            if name not in self.running():
                self._start(name)

    def running(self) -> dict[str, psutil.Process]:
        """The nodes that run and are ours."""
        found = {}
        for name, note in self._noted().items():
            try:
                process = psutil.Process(note["pid"])
                if abs(process.create_time() - note["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                    found[name] = process
            except psutil.NoSuchProcess:
                continue
        return found

    def family(self, name: str) -> list[psutil.Process]:
        """A node's processes: what started it, Ray's own, and the workers on it."""
        process = self.running()[name]
        return [process, *process.children(recursive=True)]

    def kill(self, name: str) -> None:
        """SIGKILL all processes of a node at once, as when its machine is lost."""
        family = self.family(name)
        for one in family:
            one.suspend()  # or children would see their parent die, and take their leave
        for one in self.family(name):
            one.kill()
        psutil.wait_procs(family, timeout=20)

    def down(self) -> None:
        """Stop all nodes, the head last, and remove the folder. What ignores SIGTERM for ten seconds is killed."""
        for name in reversed(tuple(NODES)):
            if name in self.running():
                family = self.family(name)
                family[0].terminate()
                _, left = psutil.wait_procs(family, timeout=10)
                for one in left:
                    _kill(one)
                psutil.wait_procs(left, timeout=10)
        if (self.folder / "cluster.json").exists():
            shutil.rmtree(self._read()["sockets"], ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str) -> None:
        said = self._read()
        ray = shutil.which("ray") or str(Path(sys.executable).with_name("ray"))
        if not Path(ray).exists():
            raise Unavailable("Ray is not installed here: pip install 'tuneline[ray]'")
        command = [ray, "start", "--block", "--disable-usage-stats", f"--node-ip-address={NODES[name]}"]
        command += [
            f"--num-cpus={self.cpus}",
            f"--object-store-memory={STORE_BYTES}",
        ]
        command += [
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--include-log-monitor=false",
        ]  # what workers print stays in Ray's logs on their node
        command += [f"--{port}-port={number}" for port, number in said["ports"][name].items()]
        if name == "head":
            command += ["--head", f"--port={said['gcs']}", "--include-dashboard=false", f"--temp-dir={said['sockets']}"]
        else:
            command += [f"--address={NODES['head']}:{said['gcs']}"]
        identity = secrets.token_hex(28)  # another one each time: a node that was lost may not come back as itself
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": said["token"],
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_MULTI_NODE": "1",
            "RAY_memory_monitor_refresh_ms": "0",  # two nodes of one machine would each take the other's memory for its own
            "RAY_agent_register_timeout_ms": "170000",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": identity,
            "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        }
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )
        born = psutil.Process(process.pid).create_time()
        _write_private(self.folder / "nodes.json", json.dumps({**self._noted(), name: {"pid": process.pid, "created": born}}))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise Unavailable(f"the {name} node ended at once; read {log}")
            self._tell_ports(name, identity)
            if "Ray runtime started." in log.read_text(errors="replace").rpartition("Local node IP")[2]:
                return
            time.sleep(0.2)
        raise Unavailable(f"the {name} node did not start within {PATIENCE} s; read {log}")

    def _tell_ports(self, name: str, identity: str) -> None:
        said = self._read()
        for session in Path(said["sockets"]).glob("session_2*"):
            for file, port in PORT_FILES.items():
                path = session / f"{file}_{identity}"
                if not path.exists():
                    path.write_text(str(said["ports"][name][port]))

    def _make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self.folder / "cluster.json").exists():
            # Ray's sockets lie below this folder, and a socket's path has room for a hundred letters.
            sockets = tempfile.mkdtemp(prefix="tl-ray-", dir="/tmp")
            gcs, *free = _free_ports(1 + len(NODES) * len(PORTS))
            ports = {name: {port: free.pop() for port in PORTS} for name in NODES}
            made = {"gcs": gcs, "ports": ports, "token": secrets.token_hex(32), "sockets": sockets}
            _write_private(self.folder / "cluster.json", json.dumps(made))

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / "cluster.json").read_text())
            return found
        except FileNotFoundError:
            raise Unavailable("there is no cluster here; python infra/ray_cluster.py up") from None

    def _noted(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / "nodes.json").read_text())
            return found
        except FileNotFoundError:
            return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("up", "env", "status", "down"))
    parser.add_argument("--folder", type=Path, default=Path("infra/.ray"), help="where it lives (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=1, help="cores that each node offers (default: %(default)s)")
    said = parser.parse_args()
    cluster = RayCluster(said.folder, cpus=said.cpus)
    try:
        if said.verb == "up":
            cluster.up()
            print(f'use it:    eval "$({Path(sys.executable).name} infra/ray_cluster.py env)"')
            print(f"address    {cluster.environment['TUNELINE_RAY_ADDRESS']}")
        elif said.verb == "env":
            if sys.stdout.isatty():
                sys.exit('error: this prints a token; use it as  eval "$(python infra/ray_cluster.py env)"')
            print("".join(f"export {key}={shlex.quote(value)}\n" for key, value in cluster.environment.items()), end="")
        elif said.verb == "status":
            running = cluster.running()
            for name in NODES:
                print(f"{name:8} {f'process {running[name].pid}' if name in running else 'not running'}")
            sys.exit(0 if len(running) == len(NODES) else 1)
        else:
            cluster.down()
    except Unavailable as error:
        sys.exit(f"error: {error}")


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for probe in held:
            probe.bind(("0.0.0.0", 0))
        return [int(probe.getsockname()[1]) for probe in held]
    finally:
        for probe in held:
            probe.close()


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


if __name__ == "__main__":
    main()
