"""What may go of one project, thing by thing, in the order in which it is to go: looking goes on as things go.

What is kept is domain/retention.py's to decide, and what holds a thing is the backends' knowledge. Nothing is removed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backends.data_reach import DataReach, Reach, is_ours, run_cache
from pipeline.backends.garbage import PASSING_DAYS, Garbage, data_objects, file, long_log, newest, old_entries, tree_bytes
from pipeline.backends.run_folder import run_key
from pipeline.backends.run_marks import remove_marks, run_marks
from pipeline.domain.erasure import erased_files, left_of
from pipeline.domain.release import Event, registrations, version_record
from pipeline.domain.retention import Freed, KeptMark, RunMark, kept_marks
from pipeline.domain.sightings import RunData
from pipeline.errors import Tampered, TryLater
from pipeline.wiring import World

if TYPE_CHECKING:
    from pipeline.params import Params

_WINDOWS = 400
"""Of the monitor, so many of each release stay: its page shows them."""


@dataclass(frozen=True)
class Leftovers:
    """One look at the project: what is kept, and so what may go. left: what could not be looked at."""

    world: World
    params: Params
    now: datetime
    marks: tuple[RunMark, ...]
    kept: dict[str, KeptMark]
    events: tuple[Event, ...]
    left: list[str]

    @classmethod
    def look(cls, world: World, params: Params, now: datetime) -> Leftovers:
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
        yield from self._windows()

    def _requests(self) -> Iterator[Garbage]:
        """Days of the log of requests that are over; the server does it too, while it runs."""
        oldest = f"{self.now - timedelta(days=self.params.serve.log.days):%Y-%m-%d}"
        for path in sorted(self.world.project.requests.glob("????-??-??.*.jsonl")):
            if path.name < oldest:
                yield file("requests", path)

    def _windows(self) -> Iterator[Garbage]:
        """Old windows of the monitor, but the newest of each release, which its page shows and its numbers go on from."""
        for folder in sorted((self.world.project.monitor / self.params.model.name).glob("*/")):
            for path in sorted(folder.glob("window-*.json"))[:-_WINDOWS]:
                if newest(path) < self.since.timestamp():
                    yield file("window of the monitor", path)

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


def _folders_of(runs: Path) -> Collection[Path]:
    return [path for path in runs.glob("*") if path.is_dir()] if runs.is_dir() else []


def _names(run: RunData) -> set[str]:
    """The tables that a run has, as the record index calls them."""
    sides = [file for files in run.sides.values() for file in files]
    single = [one for one in (run.dropped, run.leaked) if one is not None]
    return {one.name for one in (*run.shards, *run.quarantine, *run.reserved, *sides, *single)}
