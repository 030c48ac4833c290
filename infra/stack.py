"""The shared stack on one machine: PostgreSQL, an S3 server, MLflow, Prefect and a worker as plain processes, on loopback, with
passwords.

    python infra/stack.py up        start what is not running; says what to put into the environment
    python infra/stack.py env       the environment as shell lines: eval "$(python infra/stack.py env)"
    python infra/stack.py status    what runs, and whether it answers
    python infra/stack.py down      stop all that `up` started, and remove logs, sockets and notes; --wipe: what they held too

What the services are is services.py's knowledge. Only processes that this started are ever ended: each is noted with the time it
was created, since a number alone may belong to somebody else by now.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from services import (
    BUCKETS,
    DATABASES,
    POOL,
    PORTS,
    Service,
    Stack,
    Unavailable,
    free_ports,
    mlflow,
    postgres,
    prefect,
    s3,
    worker,
)

PATIENCE = 180
"""Seconds until a service that does not answer is given up."""
MARK = "TUNELINE_STACK"
"""In the environment of all that a stack starts: its folder."""
SECRETS = ("postgres", *DATABASES, "mlflow-admin", "mlflow-cookies", "prefect-api", "s3-admin", *(f"s3-{who}" for who in BUCKETS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("up", "env", "status", "down"))
    parser.add_argument("--folder", type=Path, default=Path("infra/.stack"), help="where it lives (default: %(default)s)")
    parser.add_argument("--project", type=Path, help="up: whose runs the worker starts (default: the folder one is in)")
    parser.add_argument("--no-worker", action="store_true", help="up: start none")
    parser.add_argument("--wipe", action="store_true", help="down: remove databases, buckets and secrets too")
    said = parser.parse_args()
    folder = said.folder.absolute()
    project = None if said.no_worker else (said.project or Path.cwd()).absolute()
    try:
        if said.verb == "up":
            up(folder, project)
        elif said.verb == "down":
            down(folder, wipe=said.wipe)
        else:
            {"env": env, "status": status}[said.verb](folder)
    except Unavailable as error:
        sys.exit(f"error: {error}")


def up(folder: Path, project: Path | None) -> None:
    """Start each service that is not running, one after the other, and wait until it answers. Safe to repeat."""
    stack = read(folder, make=True)
    stack = replace(stack, project=project or stack.project)
    write_private(folder / "stack.json", json.dumps(_said(stack), indent=1))
    running = alive(folder)
    for kind in kinds(stack):
        service = kind(stack)
        if service.name in running:
            print(f"{service.name:9} runs already")
            continue
        began = time.monotonic()
        start(folder, service)
        print(f"{service.name:9} answers after {time.monotonic() - began:.1f} s")
    write_private(folder / "env", "".join(f"export {key}={shlex.quote(value)}\n" for key, value in stack.settings.items()))
    print(f'\nuse it:    eval "$({Path(sys.executable).name} infra/stack.py env)"')
    print(f"MLflow     {stack.url('mlflow')}   as tuneline; the password is MLFLOW_TRACKING_PASSWORD of that environment")
    print(f"Prefect    {stack.url('prefect')}   the password is PREFECT_API_AUTH_STRING")
    if stack.project is not None:
        print(f"worker     draws from the pool {POOL}, and works in {stack.project}")


def env(folder: Path) -> None:
    """Print the environment; secrets are in it, so to a pipe only."""
    if sys.stdout.isatty():
        sys.exit('error: this prints passwords; use it as  eval "$(python infra/stack.py env)"')
    try:
        print((folder / "env").read_text(), end="")
    except FileNotFoundError:
        sys.exit("error: there is no stack here; python infra/stack.py up")


def status(folder: Path) -> None:
    """Exit code 1 when something does not answer."""
    stack, running, well = read(folder), alive(folder), True
    for kind in kinds(stack):
        service = kind(stack)
        try:
            service.ready()
            said = "answers"
        except Exception as error:
            said, well = f"does not answer: {type(error).__name__}", False
        print(
            f"{service.name:9} {f'process {running[service.name].pid}' if service.name in running else 'not running':16} {said}"
        )
    sys.exit(0 if well else 1)


def down(folder: Path, *, wipe: bool = False) -> None:
    """Stop the services, the last one started first, each with its children, and those whose parent is dead."""
    notes, running = noted(folder), alive(folder)
    for name in reversed(list(notes)):
        if name in running:
            end(running[name], at_once=notes[name]["slow_end"])
        print(f"{name:9} {'stopped' if name in running else 'was not running'}")
    for left in orphans(folder):
        end(left, at_once=True)
    if not notes:
        print("nothing was running")
    # Passwords are in env, and a socket or a log of what is no more helps nobody; what a service that died wrote is kept.
    died = {name for name in notes if name not in running}
    passing = [folder / "env", folder / "processes.json", *(folder / "postgres").glob(".s.PGSQL.*")]
    for path in [*passing, *(log for log in folder.glob("*.log") if log.stem not in died)]:
        path.unlink(missing_ok=True)
    if wipe:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"removed   {folder}")


def start(folder: Path, service: Service) -> None:
    log = folder / f"{service.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            service.command,
            env={**os.environ, **service.environment, MARK: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=service.cwd or folder,
            start_new_session=True,
        )
    born = psutil.Process(process.pid).create_time()
    note = {**noted(folder), service.name: {"pid": process.pid, "created": born, "slow_end": service.slow_end}}
    write_private(folder / "processes.json", json.dumps(note))
    deadline, last = time.monotonic() + PATIENCE, ""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"error: {service.name} ended at once\n  where: {log}\n  fix: read that log")
        try:
            service.ready()
            return
        except Exception as error:
            last = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            time.sleep(0.3)
    sys.exit(
        f"error: {service.name} did not answer within {PATIENCE} s ({last})\n  where: {log}\n  fix: read that log, then run down"
    )


def alive(folder: Path) -> dict[str, psutil.Process]:
    """The services that run and are ours, in the order in which they were started."""
    found = {}
    for name, note in noted(folder).items():
        try:
            process = psutil.Process(note["pid"])
            if abs(process.create_time() - note["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                found[name] = process
        except psutil.NoSuchProcess:
            continue
    return found


def orphans(folder: Path) -> list[psutil.Process]:
    """What carries this stack's mark in its environment: children, too, whose parent died and cannot be asked for them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(process: psutil.Process, *, at_once: bool) -> None:
    family = [process, *process.children(recursive=True)]
    if not at_once:
        # PostgreSQL's SIGINT: roll back what is open and end; its SIGTERM would wait for every client to leave.
        process.send_signal(2 if process.name() == "postgres" else 15)
        _, family = psutil.wait_procs(family, timeout=20)
    for left in family:
        try:
            left.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=5)


def read(folder: Path, *, make: bool = False) -> Stack:
    """The stack's ports and secrets, chosen when it is first started and kept: clients need not learn new ones."""
    path = folder / "stack.json"
    if not path.exists():
        if not make:
            sys.exit("error: there is no stack here; python infra/stack.py up")
        # PostgreSQL's user must be able to reach its folder below this one; what is secret is in files of mode 0600.
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.chmod(0o711)
        chosen = {"ports": free_ports(PORTS), "secrets": {name: secrets.token_urlsafe(24) for name in SECRETS}}
        write_private(path, json.dumps(chosen, indent=1))
        (folder / "dvc").mkdir(mode=0o700, exist_ok=True)
        endpoint = f"http://127.0.0.1:{chosen['ports']['s3']}"
        remote = f"['remote \"stack\"']\n    url = s3://{BUCKETS['tuneline']}\n    endpointurl = {endpoint}\n"
        write_private(folder / "dvc" / "config", remote)
    said: dict[str, Any] = json.loads(path.read_text())
    return Stack(folder, said["ports"], said["secrets"], Path(said["project"]) if said.get("project") else None)


def _said(stack: Stack) -> dict[str, Any]:
    """What is kept of a stack, and read again."""
    return {"ports": stack.ports, "secrets": stack.secrets, "project": str(stack.project) if stack.project else None}


def kinds(stack: Stack) -> list[Callable[[Stack], Service]]:
    """The services, in the order in which each finds what it needs."""
    return [postgres, s3, mlflow, prefect, *([worker] if stack.project is not None else [])]


def noted(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "processes.json").read_text())
        return found
    except FileNotFoundError:
        return {}


def write_private(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


if __name__ == "__main__":
    main()
