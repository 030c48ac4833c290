"""A backup put back elsewhere is the same project; what is no whole backup is refused, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import stat
import tarfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.backends.backup_files import Backup, BackupWriter, unpack
from pipeline.backing_up import back_up, restore
from pipeline.domain.release import EventKind
from pipeline.errors import Broken, Misuse
from pipeline.settings import Settings
from pipeline.wiring import World
from tests.checkouts import git

AT = datetime(2026, 11, 1, tzinfo=UTC)


def project(folder: Path) -> World:
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "Someone"), ("user.email", "someone@localhost")):
        git(folder, "config", key, value)
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "start")
    return World(folder, Settings())


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A project with a run, a ledger, a registered version whose artefacts lie in the state folder, and data."""
    made = project(tmp_path / "first")
    client = made.mlflow
    experiment = client.create_experiment("desk", artifact_location=made.project.mlflow_artifacts.as_uri())
    run = client.create_run(experiment)
    note = tmp_path / "adapter.txt"
    note.write_text("the adapter")
    client.log_artifact(run.info.run_id, str(note), "adapter")
    client.create_registered_model("desk")
    client.create_model_version("desk", f"{run.info.artifact_uri}/adapter", run_id=run.info.run_id)
    made.git.create_ref("desk/run/0001", git(made.start, "rev-parse", "HEAD"))
    words = {"version": "1", "subject": "0" * 64, "actor": "ada", "reason": "first", "at": AT, "leaves": None}
    made.ledger.append("desk", EventKind.PROMOTED, expected=0, stage="production", **words)
    (made.project.remote / "files" / "md5" / "ab").mkdir(parents=True)
    (made.project.remote / "files" / "md5" / "ab" / "cd").write_bytes(os.urandom(3_000_000))
    for passing in ("runs", "cache"):
        (made.project.state / passing).mkdir(exist_ok=True)
        (made.project.state / passing / "large").write_text("made again at any time")
    return made


def test_what_is_put_back_elsewhere_is_the_same_project(world: World, tmp_path: Path) -> None:
    target = tmp_path / "kept.tar"
    made = back_up(world, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not any("runs/" in file.path or "cache/" in file.path for file in made.files)
    other = tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(tmp_path / "first"), str(other))
    there = World(other, Settings())
    assert restore(there, target).digest == made.digest
    assert there.ledger.events("desk") == world.ledger.events("desk")
    assert there.ledger.verify() == ()
    assert there.git.refs("desk") == world.git.refs("desk")
    kept = Path("files/md5/ab/cd")
    assert (there.project.remote / kept).read_bytes() == (world.project.remote / kept).read_bytes()
    # Not those of the first project, which may be gone.
    shutil.rmtree(world.project.state)
    folder = there.registry.artifacts("desk", "1")
    assert folder.is_relative_to(there.project.state)
    assert (folder / "adapter.txt").read_text() == "the adapter"


def test_a_project_with_a_state_is_not_overwritten(world: World, tmp_path: Path) -> None:
    back_up(world, tmp_path / "kept.tar")
    with pytest.raises(Misuse, match="has a state already"):
        restore(world, tmp_path / "kept.tar")
    with pytest.raises(Misuse, match="a file of that name"):
        back_up(world, tmp_path / "kept.tar")
    with pytest.raises(Misuse, match="nothing to back up"):
        back_up(project(tmp_path / "empty"), tmp_path / "other.tar")


@pytest.mark.parametrize("harm", ["cut", "flipped", "no manifest", "not a tar"])
def test_what_is_not_whole_is_refused_and_leaves_nothing(world: World, tmp_path: Path, harm: str) -> None:
    target = tmp_path / "kept.tar"
    back_up(world, target)
    content = bytearray(target.read_bytes())
    if harm == "cut":
        content = content[: len(content) // 2]
    elif harm == "flipped":
        content[len(content) // 2] ^= 1
    elif harm == "not a tar":
        content = bytearray(b"hello")
    else:
        content = bytearray(io.BytesIO(_without_manifest(bytes(content))).getvalue())
    target.write_bytes(bytes(content))
    fresh = project(tmp_path / "fresh")
    with pytest.raises(Broken):
        restore(fresh, target)
    assert not fresh.project.state.exists() or not any(fresh.project.state.rglob("ledger.db"))
    assert not list((tmp_path / "fresh").glob("*restoring*"))
    assert fresh.git.refs("desk") == {}


@pytest.mark.parametrize("name", ["../evil", "/evil", "state/../../evil", "a\\..\\evil"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    source = tmp_path / "evil.tar"
    with tarfile.open(source, "w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    (tmp_path / "at").mkdir()
    with pytest.raises(Broken, match="no place in a backup"):
        unpack(source, tmp_path / "at")
    assert not (tmp_path / "evil").exists()


def test_every_database_of_the_state_is_copied_between_two_transactions(world: World, tmp_path: Path) -> None:
    path = world.project.serving / "traffic.db"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (n)")
        writer.execute("INSERT INTO t VALUES (1)")
        made = back_up(world, tmp_path / "kept.tar")
    names = {file.path for file in made.files}
    assert {"state/serving/traffic.db", "state/mlflow.db"} <= names
    assert not [name for name in names if name.endswith(("-wal", "-shm"))]
    (tmp_path / "at").mkdir()
    unpack(tmp_path / "kept.tar", tmp_path / "at")
    with closing(sqlite3.connect(tmp_path / "at" / "state" / "serving" / "traffic.db")) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(1,)], "what only the write-ahead log had"
    with pytest.raises(Misuse, match="would hold itself"):
        back_up(world, world.project.state / "kept.tar")


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        source = tmp_path / f"{kind.decode()}.tar"
        with tarfile.open(source, "w") as tar:
            entry = tarfile.TarInfo("state/link")
            entry.type, entry.linkname = kind, "/etc/passwd"
            tar.addfile(entry)
        folder = tmp_path / f"at{kind.decode()}"
        folder.mkdir()
        with pytest.raises(Broken, match="no place in a backup"):
            unpack(source, folder)


def test_a_database_is_copied_whole_while_it_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "busy.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (n)")
        writer.execute("INSERT INTO t VALUES (1)")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO t VALUES (2)")
        backup = BackupWriter(tmp_path / "kept.tar")
        backup.add_sqlite("busy.db", path, tmp_path)
        made = backup.finish(made=AT, state="/x", elsewhere={})
        writer.execute("COMMIT")
    (tmp_path / "at").mkdir()
    assert unpack(tmp_path / "kept.tar", tmp_path / "at") == made == Backup.from_json(made.to_json())
    with closing(sqlite3.connect(tmp_path / "at" / "busy.db")) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(1,)]


def _without_manifest(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as source, tarfile.open(fileobj=out, mode="w") as target:
        for entry in source.getmembers()[:-1]:
            target.addfile(entry, source.extractfile(entry))
    return out.getvalue()
