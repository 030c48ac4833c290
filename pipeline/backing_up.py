"""Backing a project up, and putting it back: ledger, MLflow, tags, data, keys, what serving keeps. Nothing has to stand still.

Consistent by order, not by locks: the ledger is copied first, and whatever a ledger names was there before it did. Stores that
lie elsewhere (an MLflow server, PostgreSQL, S3) are backed up there; the backup names them.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pipeline.backends.backup_files import Backup, BackupWriter, is_sqlite, unpack
from pipeline.backends.ledger_seal import SealFile
from pipeline.domain.wording import without_password
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.wiring import World
from pipeline.workspace import Project

PATIENCE = 10.0
BUNDLE = "tags.bundle"
LEFT_OUT = ("runs", "checkpoints", "cache", "scratch", "staging", "locks", "prefect", "dvc")
"""What is made again: runs' folders from tags and data, caches, Prefect's history and locks. All else of the state is kept."""
_MLFLOW_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


def back_up(world: World, target: Path) -> Backup:
    """Write all that this project keeps itself into one file at `target`, which only its owner may read: keys are in it."""
    project = world.project
    if not project.state.is_dir() or not any(project.state.iterdir()):
        raise Misuse("there is nothing to back up yet", where=str(project.state), fix="tuneline run")
    if target.absolute().is_relative_to(project.state):
        raise Misuse(
            "a backup inside what it is of would hold itself, and be lost with it", where=str(target), fix="put it elsewhere"
        )
    writer = BackupWriter(target)
    try:
        with world.scratch() as scratch:
            _add_ledger(writer, project)
            _add_tags(writer, world, scratch)
            for path in _kept(project):
                name = f"state/{path.relative_to(project.state).as_posix()}"
                if is_sqlite(path):
                    writer.add_sqlite(name, path, scratch)
                else:
                    writer.add(name, path)
        return writer.finish(made=datetime.now(UTC), state=str(project.state), elsewhere=_elsewhere(world))
    except BaseException:
        writer.abandon()
        raise


def restore(world: World, source: Path) -> Backup:
    """Put a backup back into a project that has no state, all of it or nothing. Raises Broken when it is not whole.

    The ledger and its seal are verified; what they name is verified by `tuneline audit verify`. Safe to repeat after a crash.
    """
    project = world.project
    _refuse_used(project)
    fresh = project.state.with_name(project.state.name + ".restoring")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    try:
        backup = unpack(source, fresh)
        if backup.state != str(project.state):
            _move_addresses(fresh / "state" / "mlflow.db", Path(backup.state), project.state)
        bundle = fresh / BUNDLE
        if bundle.exists():
            world.git.unbundle(bundle)
        shutil.rmtree(project.state, ignore_errors=True)
        (fresh / "state").rename(project.state)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if problems := world.ledger.verify():
        raise Tampered("the ledger that was put back does not verify", where=problems[0], fix="take another backup")
    return backup


def _refuse_used(project: Project) -> None:
    there = sorted(path.name for path in project.state.iterdir()) if project.state.is_dir() else []
    used = [name for name in there if name not in LEFT_OUT]
    if used:
        said = f"this project has a state already ({', '.join(used[:5])})"
        raise Misuse(said, where=str(project.state), fix="restore into a fresh clone, or move that folder away first")


def _add_ledger(writer: BackupWriter, project: Project) -> None:
    """The ledger and its seal as one: under the lock that they change under, byte for byte, since the seal names the bytes."""
    if not project.ledger.exists():
        return
    with SealFile(project.ledger).locked(PATIENCE):
        for path in sorted(project.ledger.parent.glob(f"{project.ledger.name}*")):
            if path.suffix not in (".lock", ".new") and not path.name.endswith("-shm"):
                writer.add(f"state/{path.name}", path)


def _add_tags(writer: BackupWriter, world: World, scratch: Path) -> None:
    """Every run's commit, and the code it stands on."""
    if world.git.bundle(scratch / BUNDLE):
        writer.add(BUNDLE, scratch / BUNDLE)


def _kept(project: Project) -> Iterator[Path]:
    """The files of the state, but the ledger's and what waits beside a database, which is in its copy. Links are none of ours."""
    for top in sorted(project.state.iterdir()):
        if top.name in LEFT_OUT or top.name == project.ledger.name or top.name.startswith(f"{project.ledger.name}."):
            continue
        for path in sorted([top, *top.rglob("*")] if top.is_dir() and not top.is_symlink() else [top]):
            beside = path.name.endswith(("-wal", "-shm", "-journal")) and path.with_name(path.name.rpartition("-")[0]).exists()
            if path.is_file() and not path.is_symlink() and not beside:
                yield path


def _elsewhere(world: World) -> dict[str, str]:
    said = world.settings
    stores = {"mlflow": said.mlflow_uri, "ledger": said.ledger_url}
    found = {name: without_password(address.get_secret_value()) for name, address in stores.items() if address is not None}
    return found | ({"data": f"the DVC remote {said.dvc_remote}"} if said.dvc_remote else {})


def _move_addresses(database: Path, old: Path, new: Path) -> None:
    """MLflow notes where each artefact lies, absolutely; in another folder they lie elsewhere."""
    if not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, columns in _MLFLOW_ADDRESSES.items():
            if table not in there:
                raise Broken(
                    f"MLflow's database has no table {table}", where=str(database), fix="restore at the folder it came from"
                )
            for column in columns:
                for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
                    moved = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?"
                    connection.execute(moved, (f"{after}/", len(before) + 2, len(before) + 1, f"{before}/"))
