"""Processes that are woken for ticks, do them through the real run book, and come to harm in the middle; and bugs to plant.

A tick that has a reason takes the new file in for real, keeps its snapshot as a commit under a tag, and registers a small adapter
in a folder registry. What a run makes is light; claims, fences, the look for reasons, ledger and refs are those of every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "release"))

from folder_registry import FolderRegistry
from release_world import MODEL
from release_world import World as Releases

from pipeline import ticking
from pipeline.backends import run_book, run_book_holder
from pipeline.backends.git import Git
from pipeline.backends.run_folder import head_data, kept_runs
from pipeline.domain.data import Snapshot, Task, empty_snapshot
from pipeline.domain.outcome import Ending, RunOutcome
from pipeline.domain.release import registrations, version_record
from pipeline.errors import TunelineError
from pipeline.params import Params
from pipeline.settings import Settings
from pipeline.steps.ingest import ingest
from pipeline.ticking import Call, in_turn
from pipeline.wiring import World
from tests.checkouts import git

PLACES = ("claimed", "ingested", "numbered", "kept", "registered", "ended")
"""Where in a run harm is done."""
EVERY = timedelta(minutes=5)
FIRST = datetime(2026, 3, 1, tzinfo=UTC)
LEASE = 1.0
PARAMS = Params.model_validate(
    {
        "model": {"name": MODEL, "task": "generate", "base": "./x"},
        "schedule": {"interval": EVERY.total_seconds(), "late_after": 2 * EVERY.total_seconds(), "lease": LEASE},
    }
)


@dataclass(frozen=True)
class Order:
    """A wake-up for tick `number`, by a clock that is `skew` off. harm: where the worker is to be killed or stopped."""

    number: int
    skew: float = 0.0
    harm: tuple[str, str] | None = None
    due: int | None = None
    """The tick that is due by now, where the wake-up is late."""

    @property
    def at(self) -> datetime:
        return FIRST + self.number * EVERY

    def now(self) -> datetime:
        late = (self.due if self.due is not None else self.number) - self.number
        return self.at + late * EVERY + timedelta(seconds=self.skew)


@dataclass(frozen=True)
class Place:
    """root: the repository that all workers share. ledger: where the ledger and the run book lie, as a URL."""

    root: Path
    ledger: str

    @classmethod
    def made(cls, root: Path, ledger: str | None = None) -> Place:
        repository = root / "repository"
        (repository / "pipeline").mkdir(parents=True)
        (repository / "inbox").mkdir()
        (repository / "pipeline" / "code.py").write_text("pass\n")
        git(repository, "init", "--quiet")
        git(repository, "add", "pipeline")
        git(repository, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "start")
        return cls(repository, ledger or f"sqlite:///{root / 'shared' / 'ledger.db'}")

    def world(self, state: str) -> World:
        """As a machine with a state folder of its own sees it."""
        return World(self.root, Settings(home=self.root.parent / state, ledger_url=self.ledger))  # type: ignore[arg-type]

    @property
    def registry(self) -> FolderRegistry:
        return FolderRegistry(self.root.parent / "registry")

    def put(self, number: int) -> None:
        """A fresh file, there at once and whole."""
        rows = [{"prompt": f"question {number} {row}", "completion": f"answer {number} {row}"} for row in range(3)]
        file = self.root / "inbox" / f".{number:05d}.tmp"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        file.rename(self.root / "inbox" / f"{number:05d}.jsonl")


def work_off(place: Place, name: str, orders: Connection, bug: str | None) -> None:
    """What a worker is: do what it is told, until told nothing more. name: `far-…` for one that no other can see."""
    ticking.WAIT_SECONDS = 0.05
    if name.startswith("far"):
        run_book_holder._place.cache_clear()
        run_book_holder._place = lambda: name  # type: ignore[assignment]
    if bug:
        BUGS[bug]()
    world = place.world(f"state-{name}" if name.startswith("far") else "state-near")
    while (order := orders.recv()) is not None:
        with contextlib.suppress(TunelineError, OSError, ValueError):
            # Whatever goes wrong, the next wake-up must make it good.
            _do(place, world, order)


def _do(place: Place, world: World, order: Order) -> None:
    def harmed(where: str) -> None:
        if order.harm and order.harm[0] == where:
            os.kill(os.getpid(), signal.SIGKILL if order.harm[1] == "kill" else signal.SIGSTOP)

    call = Call(order.at, "desk-scheduled", scheduled=True)
    in_turn(world, PARAMS, call, lambda held: _run(place, held, harmed), now=order.now)
    harmed("ended")


def _run(place: Place, held: World, harmed: Any) -> RunOutcome:
    harmed("claimed")
    _finish_what_was_killed(place, held)
    parent = _last(held)
    with tempfile.TemporaryDirectory(dir=place.root.parent) as folder:
        snapshot = ingest(
            PARAMS.ingest,
            dataset=MODEL,
            task=Task.GENERATE,
            sources=[place.root / "inbox"],
            parent=parent,
            folder=Path(folder),
            root=place.root,
        )
    harmed("ingested")
    if snapshot == parent:
        return RunOutcome(model=MODEL, run=MODEL, ending=Ending.NOTHING_NEW)
    # Only what is read again is the sources; shards would be known by the parent's, which are not kept here.
    snapshot = snapshot.model_copy(update={"shards": (), "quarantine": ()})
    number = 1 + max((run.number for run in kept_runs(held.git, MODEL)), default=0)
    harmed("numbered")
    held.git.create_ref(f"{MODEL}/run/{number:04d}", _commit(held.git, snapshot))
    harmed("kept")
    version = _register(place, held, number)
    harmed("registered")
    return RunOutcome(model=MODEL, run=f"{MODEL}-{number:04d}", ending=Ending.REGISTERED, version=version)


def _finish_what_was_killed(place: Place, held: World) -> None:
    events = held.ledger.events(MODEL)
    known = {version_record(events, version).tag for version in registrations(events)}
    for kept in kept_runs(held.git, MODEL):
        if f"run-r{kept.number}" not in known:
            _register(place, held, kept.number)


def _register(place: Place, held: World, number: int) -> str:
    with tempfile.TemporaryDirectory(dir=place.root.parent) as folder:
        releases = Releases(Path(folder))
        made = releases.candidate(f"r{number}")
        logged = place.registry.root / "runs" / made.run_id
        if not logged.exists():
            logged.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # another's is as good
                (releases.registry.root / "runs" / made.run_id).rename(logged)
        releases.registry, releases.ledger = place.registry, held.ledger
        return releases.register(f"r{number}", candidate=made).version


def _last(held: World) -> Snapshot:
    head = head_data(held.git, MODEL)
    return batch_of(held.git, head.commit) if head else empty_snapshot(MODEL, Task.GENERATE)


def batch_of(repository: Git, commit: str) -> Snapshot:
    """The snapshot that a kept run's commit holds."""
    content = repository.show(commit, "snapshot.json")
    assert content is not None
    return Snapshot.from_json(content.decode())


def _commit(repository: Git, snapshot: Snapshot) -> str:
    """A commit that holds the snapshot's record, and names it as DVC would, for the look at what is fresh."""
    record = snapshot.to_json()
    stored = _store(repository.root, record.encode())
    listing = _store(repository.root, json.dumps([{"md5": stored, "relpath": "snapshot.json"}]).encode(), ".dir")
    pointer = f"outs:\n- md5: {listing}\n  path: snapshot\n"
    blobs = {name: repository._run("hash-object", "-w", "--stdin", input=text) for name, text in ((1, record), (2, pointer))}
    data = repository._run("mktree", input=f"100644 blob {blobs[2]}\tsnapshot.dvc\n")
    tree = repository._run("mktree", input=f"100644 blob {blobs[1]}\tsnapshot.json\n040000 tree {data}\tdata\n")
    dated = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    # Another process that does the same makes another commit, as a training on another machine would.
    return repository._run("commit-tree", tree, "-m", f"by {os.getpid()} {time.monotonic_ns()}", env=dated)


def _store(root: Path, content: bytes, ending: str = "") -> str:
    md5 = hashlib.md5(content).hexdigest()
    path = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / f"{md5[2:]}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.rename(path)
    return md5 + ending


# Bugs to plant. Each is one that a scheduler in use has had; the checks must find all of them.


def keyed_by_the_wall_clock() -> None:
    """A tick is called by when somebody got round to it."""
    run_book.tick_key = lambda model, deployment, at: hashlib.sha256(f"{model} {time.time_ns()}".encode()).hexdigest()


def without_fences() -> None:
    """Who has lost its lease writes all the same."""
    run_book.RunBook.fence = lambda book, claim: None  # type: ignore[method-assign,assignment]
    Git.fenced = lambda repository, model, number: repository  # type: ignore[method-assign]
    Git.raise_fence = lambda repository: None  # type: ignore[method-assign]
    run_book.RunBook.finish = _finish_anyhow(run_book.RunBook.finish)  # type: ignore[method-assign]


def _finish_anyhow(real: Any) -> Any:
    def finish(*words: Any, **more: Any) -> None:
        with contextlib.suppress(TunelineError):
            real(*words, **more)

    return finish


def without_leases() -> None:
    """Whoever asks has the lease."""
    run_book_holder.Holder.gone = property(lambda holder: True)  # type: ignore[method-assign,assignment]
    without_fences()


def without_takeover() -> None:
    """A lease is its holder's until it is given back."""
    run_book_holder.Holder.gone = property(lambda holder: False)  # type: ignore[method-assign,assignment]
    real = run_book.RunBook._try
    run_book.RunBook._try = lambda book, *words: real(book, *words[:-1], None)  # type: ignore[method-assign,assignment]


BUGS = {bug.__name__: bug for bug in (keyed_by_the_wall_clock, without_fences, without_leases, without_takeover)}
