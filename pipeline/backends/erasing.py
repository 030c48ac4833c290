"""Takes what holds a forgotten record out of local stores: sorts what a search found, removes files, blanks database cells.

Which texts are sought is the caller's knowledge; what becomes of a file follows from where it lies. Nothing outside the state
folder and the .dvc folder is touched, and no object that another model's runs need.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.backends.git import Git
from pipeline.backends.needles import Needles
from pipeline.domain.erasure import ErasedFile
from pipeline.domain.record import digest_file
from pipeline.errors import TryLater
from pipeline.workspace import Project

BLANK = b"forgotten on request"
_SQLITE = b"SQLite format 3\0"
_PATIENCE = 30.0
"""Seconds to wait for a locked database."""


@dataclass(slots=True)
class Plan:
    """What is to be taken away. erased: files that records name, or may name, for the ledger. objects: MD5s in cache and remote →
    a stored copy. names: what the record index calls them. elsewhere: places that are left alone → whose model's they are."""

    erased: list[ErasedFile] = field(default_factory=list)
    objects: dict[str, Path] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    files: list[Path] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)
    databases: list[Path] = field(default_factory=list)
    elsewhere: dict[Path, str] = field(default_factory=dict)


def plan(places: Iterable[Path], project: Project, model: str, owners: Mapping[str, Sequence[tuple[str, str]]]) -> Plan:
    """Sort the files that hold a record by what is to become of them.

    owners: MD5 of a data file → (model, path in the run's folder) of every kept run that tracks it. An object that no kept run
    tracks was left by a killed one, and goes too.
    """
    made = Plan()
    for place in places:
        md5 = _object(place, project)
        if md5 is not None:
            _plan_object(made, place, md5, model, owners.get(md5, ()))
        elif place.is_relative_to(project.runs):
            folder = project.runs / place.relative_to(project.runs).parts[0]
            owner = _model_of(folder.name)
            if owner == model:
                made.folders.add(folder)
            else:
                made.elsewhere[place] = owner
        elif place.is_relative_to(project.ledger.parent) and place.name.startswith(project.ledger.name):
            continue
        elif place.is_relative_to(project.mlflow_artifacts):
            inside = place.relative_to(project.mlflow_artifacts)
            if inside.parts[0] == model:
                made.files.append(place)
                made.erased.append(ErasedFile(path=inside.as_posix(), sha256=digest_file(place)))
            else:
                made.elsewhere[place] = inside.parts[0]
        elif _is_database(place):
            made.databases.append(place)
        elif not _belongs_to_database(place):
            made.files.append(place)
    return made


def keep_remains(planned: Plan, folder: Path, needles: Needles) -> bool:
    """Write what is left of each planned table below `folder`, and say so in `planned.erased`. False when nothing is left of any.

    So a shard that held one forgotten row still answers for its other rows, in every run that had it.
    """
    written = False
    for number, file in enumerate(planned.erased):
        stored = planned.objects.get(file.md5)
        target = folder / file.md5 / PurePosixPath(file.path).name
        if stored is not None and _write_remains(stored, target, needles):
            planned.erased[number] = file.model_copy(update={"left": _md5(target)})
            written = True
    return written


def carry_out(plan: Plan, project: Project, git: Git, needles: Needles) -> int:
    """Do what is planned; safe to repeat. Returns how many database cells were blanked. Raises TryLater for a locked database."""
    for folder in sorted(plan.folders):
        git.remove_worktree(folder)
    for md5 in sorted(plan.objects):
        for store in _stores(project):
            (store / md5[:2] / md5[2:]).unlink(missing_ok=True)
    for file in plan.files:
        file.unlink(missing_ok=True)
    return sum(blank_cells(path, needles) for path in plan.databases)


def clear_passing(project: Project) -> None:
    """Remove what is only there while a run is under way, or can be made again; the caller holds the lock, so no run is."""
    for folder in (project.checkpoints, project.cache, project.sweeps, project.curves, project.staging, project.scratch):
        shutil.rmtree(folder, ignore_errors=True)


def blank_cells(path: Path, needles: Needles) -> int:
    """Put BLANK in the place of each sought text in a SQLite database, and compact it so that free pages keep nothing."""
    count = 0
    try:
        with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as database:
            database.text_factory = bytes
            database.execute("PRAGMA secure_delete = ON")
            # A table without row numbers cannot be gone through like this; if it holds the record, the proof says so.
            query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%WITHOUT ROWID%'"
            for (name,) in database.execute(query).fetchall():
                count += _blank_table(database, _quoted(name.decode()), needles)
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                database.execute(statement).fetchall()
    except sqlite3.OperationalError as error:
        raise TryLater(
            f"this database is in use: {error}", where=str(path), fix="stop what uses it (tuneline down), and purge again"
        ) from error
    return count


def _blank_table(database: sqlite3.Connection, table: str, needles: Needles) -> int:
    columns = [_quoted(row[1].decode()) for row in database.execute(f"PRAGMA table_info({table})")]
    found = [
        (number, column, cell)
        for number, *cells in database.execute(f"SELECT rowid, {', '.join(columns)} FROM {table}")
        for column, cell in zip(columns, cells, strict=True)
        if isinstance(cell, bytes) and needles.among(cell)
    ]
    for number, column, cell in found:
        kind = database.execute(f"SELECT typeof({column}) FROM {table} WHERE rowid = ?", [number]).fetchone()[0]
        blanked = needles.replaced(cell, BLANK)
        value = blanked.decode("utf-8", "replace") if kind == b"text" else blanked
        database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [value, number])
    return len(found)


def _plan_object(made: Plan, place: Path, md5: str, model: str, owners: Sequence[tuple[str, str]]) -> None:
    if other := next((owner for owner, _ in owners if owner != model), None):
        made.elsewhere[place] = other
        return
    made.names.update(PurePosixPath(path).stem for _, path in owners)
    if md5 not in made.objects:
        made.objects[md5] = place
        path = owners[0][1] if owners else "tracked by no kept run"
        made.erased.append(ErasedFile(path=path, sha256=digest_file(place), md5=md5))


def _write_remains(stored: Path, target: Path, needles: Needles) -> bool:
    """Write the rows of a Parquet file that do not hold the record; False for other files, and where no row is left."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with stored.open("rb") as file:
        if file.read(4) != b"PAR1":
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with (
        pq.ParquetFile(stored) as source,
        pq.ParquetWriter(target, source.schema_arrow, version="2.6", compression="zstd", compression_level=3) as writer,
    ):
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            kept = table.filter(pa.array([not gone for gone in needles.rows(table)], pa.bool_()))
            rows += kept.num_rows
            if kept.num_rows:
                writer.write_table(kept, row_group_size=kept.num_rows)
    if not rows:
        shutil.rmtree(target.parent)
    return bool(rows)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _stores(project: Project) -> tuple[Path, Path]:
    return (project.root / ".dvc" / "cache" / "files" / "md5", project.remote / "files" / "md5")


def _object(place: Path, project: Project) -> str | None:
    """The MD5 under which a file lies in cache or remote; None when it is no object of theirs."""
    if any(place.parent.parent == store for store in _stores(project)):
        return place.parent.name + place.name
    return None


def _model_of(folder: str) -> str:
    """The model whose run a run folder is."""
    return folder.rpartition("-")[0]


def _is_database(place: Path) -> bool:
    with place.open("rb") as file:
        return file.read(16) == _SQLITE


def _belongs_to_database(place: Path) -> bool:
    """A write-ahead log or the like: it empties when its database is compacted."""
    return any(place.name.endswith(end) for end in ("-wal", "-shm", "-journal"))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
