"""`tuneline doctor`: looks at the machine, the stores and the params, and says how to fix what is wrong.

It changes nothing but temporary files of its own, and it never stops at the first problem.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from pipeline.errors import TunelineError
from pipeline.wiring import World, find_base, read_params
from pipeline.workspace import Workspace

_FREE_BYTES = 2 << 30
_MEMORY_BYTES = 3 << 30
Check = tuple[str, Callable[[], Iterator["Finding"]]]
"""What it looks at, and how."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. where: the file, line or address that it is about, if there is one."""

    name: str
    ok: bool
    detail: str
    fix: str | None = None
    where: str | None = None

    @property
    def line(self) -> str:
        place = f" ({self.where})" if self.where else ""
        line = f"{'ok ' if self.ok else 'NO '} {self.name}: {self.detail}{place}"
        return line if self.ok or not self.fix else f"{line}\n     fix: {self.fix}"


def examine(world: World, params: Path) -> list[Finding]:
    """All findings, good and bad."""
    checks: list[Check] = [
        ("python", _python),
        ("packages", _packages),
        ("git", lambda: _git(world)),
        ("machine", lambda: _machine(world)),
        ("stores", lambda: _stores(world)),
        ("params", lambda: _params(world, params)),
    ]
    return [finding for name, check in checks for finding in guarded(name, check)]


def guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a check finds; that it fails is a finding too."""
    try:
        yield from check()
    except TunelineError as error:
        yield Finding(name, False, f"{error.where + ': ' if error.where else ''}{error.what}", error.fix)
    except Exception as error:
        # A doctor that dies of the patient's illness helps nobody.
        yield Finding(name, False, f"{type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", sys.version_info >= (3, 11), found, "Python 3.11 or newer; remove .venv and run make again")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wrong = []
    for text in requires("tuneline") or []:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            if not need.specifier.contains(version(need.name), prereleases=True):
                wrong.append(f"{need.name} {version(need.name)} (need {need.specifier})")
        except PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
    yield Finding("packages", not wrong, ", ".join(wrong) or "all as pinned", "make install")


def _git(world: World) -> Iterator[Finding]:
    found = subprocess.run(["git", "--version"], capture_output=True, text=True).stdout.strip()
    yield Finding("git", bool(found), found or "not found", "install git 2.30 or newer")
    missing = [name for name in ("dvc.yaml", ".dvc/config") if world.git.show("HEAD", name) is None]
    yield Finding(
        "repository",
        not missing,
        f"lacks {', '.join(missing)}" if missing else str(world.git.root),
        "commit them: runs work from a commit",
    )


def _machine(world: World) -> Iterator[Finding]:
    import psutil

    world.project.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(world.project.state).free
    yield Finding(
        "disk", free > _FREE_BYTES, f"{free >> 30} GiB free at {world.project.state}", "free 2 GiB, or set TUNELINE_HOME"
    )
    memory = psutil.virtual_memory().available
    yield Finding("memory", memory > _MEMORY_BYTES, f"{memory / 2**30:.1f} GiB available", "3 GiB are needed for the demo")
    probe = world.project.state / ".doctor"
    try:
        probe.write_text("")
        probe.unlink()
        yield Finding("state folder", True, str(world.project.state))
    except OSError as error:
        yield Finding("state folder", False, str(error), "make it writable, or set TUNELINE_HOME")


def _stores(world: World) -> Iterator[Finding]:
    for name, path in (("ledger", world.project.ledger), ("mlflow store", world.project.mlflow_db)):
        if path.exists():
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                verdict = database.execute("PRAGMA quick_check").fetchone()[0]
            yield Finding(name, verdict == "ok", f"{path}: {verdict}", "restore it from a backup")
        else:
            yield Finding(name, True, "none yet; the first run makes it")
    if world.settings.ledger_url is not None or world.project.ledger.exists():
        broken = world.ledger.verify()
        yield Finding("ledger chain", not broken, "; ".join(broken) or "whole", "tuneline audit verify names what is affected")
    from flows.server import running

    server = world.settings.prefect_api or getattr(running(world.project), "api", None)
    yield Finding("prefect", True, server or "not running; the first run starts it")


def _params(world: World, path: Path) -> Iterator[Finding]:
    params = read_params(path)
    yield Finding("params", True, f"{path}: {params.model.name}, {params.model.task}")
    base = find_base(world, Workspace(world.project.root), params)
    yield Finding("base model", True, str(base))
    entries = [params.ingest.entry_of(source) for source in params.ingest.sources]
    # What is elsewhere (queries, objects, hubs) is asked by the run, which says what is wrong with it.
    paths = [entry.path for entry in entries if entry.path and not set("*?[") & set(entry.path)]
    missing = [path for path in paths if not (world.git.root / path).exists()]
    yield Finding(
        "sources",
        not missing,
        f"missing: {', '.join(missing)}" if missing else ", ".join(entry.origin for entry in entries),
        "make the folder, or name others in ingest.sources",
    )
