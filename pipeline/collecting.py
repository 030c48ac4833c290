"""Making room: what no release, rollback window, waiting approval or kept run needs goes, at the locks of all models at once.

The order makes it safe to kill: runs in MLflow, then tags, then what only those named. A second call finds what is left of the
first. What is kept is domain/retention.py's to decide; what the ledger says stays for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backends.data_reach import DataReach, Reach, is_ours, run_cache
from pipeline.backends.garbage import PASSING_DAYS, Garbage, data_objects, file, long_log, newest, old_entries, tree_bytes
from pipeline.backends.run_folder import one_run_at_a_time, run_key
from pipeline.backends.run_marks import remove_marks, run_marks
from pipeline.domain.erasure import erased_files, left_of
from pipeline.domain.release import Event, registrations, version_record
from pipeline.domain.retention import Collected, Freed, KeptMark, RunMark, kept_marks
from pipeline.errors import Tampered, TryLater
from pipeline.ports import Progress, silent
from pipeline.wiring import World

if TYPE_CHECKING:
    from pipeline.params import Params

_OTHER_LOCKS = ("prefect-server",)
_BESIDE = ("", "-sweep", "-curve")


def collect(
    world: World, params: Params, *, dry: bool = False, now: datetime | None = None, progress: Progress = silent
) -> Collected:
    """Remove what params.retention does not keep, and say what that was; dry: only say it.

    Raises TryLater, with nothing removed, while a run, a sweep or a curve of any model of the project is under way.
    """
    now, model = now or datetime.now(UTC), params.model.name
    with _nobody_works(world, model):
        room = _Room.look(world, params, now)
        freed: list[Freed] = []
        for number, garbage in enumerate(room.garbage()):
            try:
                if not dry:
                    garbage.remove()
                freed.append(garbage.freed)
            except TryLater as error:
                room.left.append(f"{garbage.freed.sort} {garbage.freed.what} stays: {error.what}")
            progress("removing" if not dry else "looking", number + 1, 0)
        kept = {tag: mark.why for tag, mark in room.kept.items()}
        return Collected(model=model, dry=dry, freed=tuple(freed), kept=kept, left=tuple(room.left))


@dataclass(frozen=True)
class _Room:
    """One look at the project: what is kept, and so what may go. left: what could not be looked at."""

    world: World
    params: Params
    now: datetime
    marks: tuple[RunMark, ...]
    kept: dict[str, KeptMark]
    events: tuple[Event, ...]
    left: list[str]

    @classmethod
    def look(cls, world: World, params: Params, now: datetime) -> _Room:
        model, asked = params.model.name, params.retention
        if broken := world.ledger.verify():
            raise Tampered("the ledger does not verify, so nobody can tell what is needed", where=broken[0])
        marks, events = tuple(run_marks(world.git, model)), world.ledger.events(model)
        since = now - timedelta(days=asked.keep_days)
        kept = kept_marks(marks, events, newest=asked.keep_runs, since=since, holders=asked.rollback_window)
        return cls(world, params, now, marks, kept, events, [])

    @property
    def since(self) -> datetime:
        return self.now - timedelta(days=self.params.retention.keep_days)

    @property
    def dropped(self) -> list[RunMark]:
        return [mark for mark in self.marks if mark.tag not in self.kept]

    def garbage(self) -> Iterator[Garbage]:
        """All that may go, in the order in which it is to go."""
        yield from self._tracked_runs()
        yield from self._tags()
        yield from self._folders()
        yield from self._passing()
        yield from self._data()
        yield from self._index()
        yield from long_log(self.world.project.prefect / "server.log")

    def _tracked_runs(self) -> Iterator[Garbage]:
        from pipeline.backends.mlflow_leftovers import leftover_runs, remove_run

        model = self.params.model.name
        records = [version_record(self.events, version) for version in registrations(self.events)]
        embedded = self.world.settings.mlflow_uri is None
        if embedded and not self.world.project.mlflow_db.exists():
            return
        try:
            client = self.world.mlflow
            found = leftover_runs(
                client,
                model,
                keep_ids={record.run_id for record in records},
                keep_keys={run_key(model, mark.number) for mark in self.marks if mark.tag in self.kept},
                before=self.since,
                artifacts=self.world.project.mlflow_artifacts if embedded else None,
            )
            for left in list(found):
                size = tree_bytes(left.folder) if left.folder else 0
                yield Garbage(Freed(sort="run in MLflow", what=left.key, bytes=size), partial(remove_run, client, left))
        except TryLater as error:
            # A service that does not answer must not keep a disk full; its runs go the next time.
            self.left.append(f"runs in MLflow stay: {error.what}")

    def _tags(self) -> Iterator[Garbage]:
        for mark in self.dropped:
            what = f"{run_key(self.params.model.name, mark.number)} ({mark.kind})"
            yield Garbage(Freed(sort="run", what=what), partial(remove_marks, self.world.git, [mark]))

    def _old_folders(self) -> list[Path]:
        """Folders of the model's runs, but the newest and the young: `tuneline worktree` makes any of them again."""
        model, runs = self.params.model.name, self.world.project.runs
        found = sorted(runs.glob(f"{model}-[0-9][0-9][0-9][0-9]*"))
        numbers = {path: path.name.removeprefix(f"{model}-") for path in found}
        ours = sorted((path for path, number in numbers.items() if number.isdecimal()), key=lambda path: int(numbers[path]))
        heads = {run_key(model, mark.number) for mark in self.marks if self.kept.get(mark.tag) and mark.number >= self._head}
        return [path for path in ours[:-1] if path.name not in heads and newest(path) < self.since.timestamp()]

    @property
    def _head(self) -> int:
        """The number of the run that the next one begins from."""
        return max((mark.number for mark in self.marks if mark.kind in ("run", "data")), default=0)

    def _folders(self) -> Iterator[Garbage]:
        for path in self._old_folders():
            freed = Freed(sort="folder of a run", what=path.name, bytes=tree_bytes(path))
            yield Garbage(freed, partial(self.world.git.remove_worktree, path))

    def _passing(self) -> Iterator[Garbage]:
        project = self.world.project
        dead = max(self.since, self.now - timedelta(days=PASSING_DAYS))
        for sort, folder, since in (
            ("checkpoints", project.checkpoints, self.since),
            ("cache of training", project.cache, self.since),
            ("sweep", project.sweeps, self.since),
            ("learning curve", project.curves, self.since),
            ("page", project.looks, self.since),
            ("scratch", project.scratch, dead),
        ):
            yield from old_entries(sort, folder, since)
        yield from self._staging(dead)
        yield from self._requests()

    def _requests(self) -> Iterator[Garbage]:
        """Days of the log of requests that are over; the server does it too, while it runs."""
        days = getattr(self.params.serve.log, "days", None)
        if days is None:
            return
        oldest = f"{self.now - timedelta(days=days):%Y-%m-%d}"
        for path in sorted((self.world.project.serving / "requests").glob("????-??-??.*.jsonl")):
            if path.name < oldest:
                yield file("requests", path)

    def _staging(self, since: datetime) -> Iterator[Garbage]:
        """Unpacked archives whose process is dead: it held a lock on a file beside the folder (backends/sources/staging.py)."""
        from pipeline.backends.sources.staging import staging

        folder = self.world.project.staging
        for path in sorted(folder.glob("in-*")) if folder.is_dir() else ():
            if path.is_dir() and newest(path) < since.timestamp():

                def sweep() -> None:
                    with staging(folder):
                        pass

                yield Garbage(Freed(sort="staging", what=path.name, bytes=tree_bytes(path)), sweep)

    def _data(self) -> Iterator[Garbage]:
        near, far, lost = self._needed()
        if lost:
            names = ", ".join(sorted(lost)[:3])
            said = f"data stays: {len(lost)} listings of kept runs are nowhere ({names}), and what they list is unknown"
            self.left.append(f"{said}; restore them from a backup, or fetch them from the DVC remote")
            return
        for entry in run_cache(self.world.project):
            made = self._reach.of_run_cache(entry).named
            if entry.lstat().st_mtime < self.since.timestamp() and not made <= near:
                yield file("finished stage", entry)
        yield from data_objects(self.world.project, near=near, far=far, since=self.since)

    @property
    def _reach(self) -> DataReach:
        return DataReach(self.world.git, self.world.project)

    def _needed(self) -> tuple[set[str], set[str], set[str]]:
        """MD5s that must lie at hand; those that must lie anywhere; listings that are lost."""
        reach, project = self._reach, self.world.project
        chains = {model: self.world.ledger.events(model) for model in self.world.ledger.models()}
        gone = {md5 for events in chains.values() for md5 in erased_files(events)}
        refs, dropped = reach.refs(), {mark.tag for mark in self.dropped}
        distant = {mark.tag for mark in self.marks if (kept := self.kept.get(mark.tag)) and not kept.near}
        ours = {commit for ref, commit in refs.items() if is_ours(ref) and ref not in dropped}
        close = {commit for ref, commit in refs.items() if is_ours(ref) and ref not in dropped | distant}
        theirs = {commit for ref, commit in refs.items() if not is_ours(ref)}
        old = set(self._old_folders())
        folders = [path for path in {*reach.worktrees(), *_folders_of(project.runs)} if path not in old]
        young = [entry for entry in run_cache(project) if entry.lstat().st_mtime >= self.since.timestamp()]
        parts: list[Reach] = [
            reach.of_commits(close, ours=True, gone=gone),
            reach.of_commits(theirs, ours=False),
            *(reach.of_folder(folder) for folder in folders),
            *(reach.of_run_cache(entry) for entry in young),
            # What is left of a table that was purged answers for its other rows.
            reach.expanded(md5 for events in chains.values() for md5 in left_of(events).values()),
        ]
        everything = reach.of_commits(ours, ours=True, gone=gone)
        near = set().union(*(part.named for part in parts))
        return near, near | everything.named, everything.lost

    def _index(self) -> Iterator[Garbage]:
        """What was once read of runs that are gone, and the indexes of tables that only they had."""
        from pipeline.domain.sightings import RunData

        folder = self.world.project.index
        kept = {mark.commit for mark in self.marks if mark.tag in self.kept}
        theirs = {commit for name, commit in self.world.git.refs("").items() if not name.startswith(f"{self.params.model.name}/")}
        needed: set[str] = set()
        old: list[tuple[Path, set[str]]] = []
        for path in sorted((folder / "runs").glob("*.json")):
            try:
                names = _names(RunData.model_validate_json(path.read_bytes()))
            except ValueError:
                continue
            if path.stem in kept | theirs:
                needed |= names
            else:
                old.append((path, names))
        for path, names in old:
            for name in sorted(names - needed):
                if (folder / f"{name}.idx").exists():
                    yield file("index", folder / f"{name}.idx")
            yield file("index", path)


@contextmanager
def _nobody_works(world: World, model: str) -> Iterator[None]:
    """Hold the lock of every model that the project has, and of their sweeps and curves: caches are common to all. And the
    model's lease, which holds off its runs on other machines; a tick that comes meanwhile waits its turn."""
    locks = world.project.locks
    models = {model, *world.ledger.models(), *(name.split("/", 1)[0] for name in world.git.refs(""))}
    names = {f"{name}{beside}" for name in models for beside in _BESIDE}
    names |= {path.stem for path in locks.glob("*.lock")} - set(_OTHER_LOCKS)
    with ExitStack() as stack:
        for name in sorted(names):
            stack.enter_context(one_run_at_a_time(world.project, name))
        claim = world.run_book.claim(model, "gc", datetime.now(UTC), watch=False)
        with world.run_book.kept(claim):
            try:
                yield
            finally:
                world.run_book.finish(claim, "room made")


def _folders_of(runs: Path) -> Collection[Path]:
    return [path for path in runs.glob("*") if path.is_dir()] if runs.is_dir() else []


def _names(run: object) -> set[str]:
    from pipeline.domain.sightings import RunData

    assert isinstance(run, RunData)
    sides = [file for files in run.sides.values() for file in files]
    single = [one for one in (run.dropped, run.leaked) if one is not None]
    return {one.name for one in (*run.shards, *run.quarantine, *run.reserved, *sides, *single)}
