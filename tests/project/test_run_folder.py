"""Run folders: the user's checkout is left alone, runs are kept under tags, killed ones leave nothing that matters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.backends.dvc import GitDvcArchive
from pipeline.backends.git import Git
from pipeline.backends.run_folder import (
    RunFolder,
    discard,
    head_run,
    keep_run,
    kept_runs,
    open_kept,
    open_run,
    remove_other_folders,
)
from pipeline.backends.run_locks import nothing_runs, one_run_at_a_time
from pipeline.domain.data import Snapshot, Task
from pipeline.domain.record import digest_file
from pipeline.domain.release import ModelVersion
from pipeline.errors import BadInput, Broken, Conflict, Misuse, TryLater
from pipeline.params import Params
from pipeline.workspace import Project
from tests.checkouts import git

PARAMS = Params.model_validate({"model": {"name": "m", "task": "generate", "base": "./x"}})


@pytest.fixture
def project(checkout: Path) -> Project:
    return Project(checkout, checkout / ".tuneline")


def begin(project: Project) -> RunFolder:
    return open_run(Git(project.root), project, PARAMS, remote=None)


def fill(run: RunFolder, text: str) -> Snapshot:
    """What ingest leaves: a snapshot folder under DVC."""
    snapshot = Snapshot(dataset=text, task=Task.GENERATE, parent=None, sources=(), shards=(), quarantine=())
    snapshot.write(run.workspace.snapshot_record)
    (run.workspace.snapshot / "rows.txt").write_text(text)
    run.store.add(run.workspace.snapshot)
    return snapshot


def state_of(checkout: Path) -> tuple[str, ...]:
    return (
        git(checkout, "rev-parse", "HEAD"),
        git(checkout, "status", "--porcelain"),
        git(checkout, "branch"),
        git(checkout, "stash", "list"),
    )


def test_a_run_leaves_the_users_checkout_alone_and_the_next_one_begins_where_it_ended(project: Project) -> None:
    before = state_of(project.root)
    run = begin(project)
    assert run.parent is None
    snapshot = fill(run, "one")
    kept = keep_run(Git(project.root), run, "run", "kept")
    assert state_of(project.root) == before
    assert git(project.root, "rev-parse", kept.tag) == kept.commit
    second = begin(project)
    assert (second.number, second.parent) == (2, snapshot)
    assert (second.workspace.snapshot / "rows.txt").read_text() == "one"


def test_invalid_runs_take_a_number_but_are_never_built_upon(project: Project) -> None:
    first = begin(project)
    good = fill(first, "good")
    keep_run(Git(project.root), first, "run", "good")
    second = begin(project)
    (second.workspace.snapshot / "rows.txt").unlink()
    fill(second, "bad")
    keep_run(Git(project.root), second, "invalid", "bad")
    third = begin(project)
    assert (third.number, third.parent) == (3, good)
    assert head_run(Git(project.root), "m").number == 1  # type: ignore[union-attr]


def test_a_killed_runs_folder_is_replaced(project: Project) -> None:
    run = begin(project)
    (run.workspace.root / "debris").write_text("x")
    again = begin(project)
    assert again.workspace == run.workspace
    assert not (again.workspace.root / "debris").exists()


def test_changed_code_is_marked_dirty_and_other_changes_are_not(project: Project) -> None:
    (project.root / "notes.txt").write_text("mine")
    (project.root / "params.yaml").write_text("# mine\n")
    assert not begin(project).code.dirty
    (project.root / "pipeline" / "extra.py").write_text("x = 1\n")
    run = begin(project)
    assert run.code.dirty
    assert (run.workspace.root / "pipeline" / "extra.py").read_text() == "x = 1\n"
    assert begin(project).code == run.code, "the same dirty tree is the same commit"
    assert git(project.root, "status", "--porcelain", "pipeline") == "?? pipeline/extra.py"


def test_the_same_tag_for_another_commit_is_a_conflict(project: Project) -> None:
    git_ = Git(project.root)
    run = begin(project)
    fill(run, "one")
    keep_run(git_, run, "run", "first")
    (run.workspace.snapshot / "rows.txt").unlink()
    fill(run, "two")
    with pytest.raises(Conflict):
        keep_run(git_, run, "run", "second")
    assert len(kept_runs(git_, "m")) == 1


def test_one_run_at_a_time_and_the_lock_dies_with_its_process(project: Project) -> None:
    code = (
        "import sys,time\nfrom pathlib import Path\nfrom pipeline.backends.run_locks import one_run_at_a_time\n"
        "from pipeline.workspace import Project\nroot=Path(sys.argv[1])\n"
        "with one_run_at_a_time(Project(root, root/'.tuneline'), 'm'):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(project.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(TryLater, match=str(holder.pid)), one_run_at_a_time(project, "m"):
        pass
    with one_run_at_a_time(project, "other"):
        pass
    holder.kill()
    holder.wait()
    with one_run_at_a_time(project, "m"):
        pass


def test_while_room_is_made_nobody_begins_a_model_that_is_new_neither(project: Project) -> None:
    with one_run_at_a_time(project, "m"), pytest.raises(TryLater, match="under way"), nothing_runs(project):
        pass
    with nothing_runs(project), pytest.raises(TryLater, match="room is being made"), one_run_at_a_time(project, "new"):
        pass
    with nothing_runs(project):
        pass


def test_a_stage_is_brought_back_for_the_same_inputs_only(project: Project) -> None:
    (project.root / "dvc.yaml").write_text(
        "stages:\n  split:\n    cmd: 'false'\n    deps: [data/snapshot]\n    outs: [work/split]\n"
    )
    git(project.root, "commit", "--quiet", "--all", "--message", "one stage")

    def made_from(text: str) -> tuple[bool, str]:
        run = begin(project)
        if run.parent is not None:
            (run.workspace.snapshot / "rows.txt").unlink()
        fill(run, text)
        brought_back = run.store.restore("split")
        if not brought_back:
            run.store.clear("split")
            run.workspace.splits.mkdir(parents=True)
            (run.workspace.splits / "made").write_text(f"from {text}")
            run.store.commit("split")
        assert run.store.stale(["split"]) == []
        keep_run(Git(project.root), run, "run", text)
        return brought_back, (run.workspace.splits / "made").read_text()

    assert made_from("a") == (False, "from a")
    assert made_from("b") == (False, "from b"), "the lock of the run before names outputs of other inputs"
    assert made_from("a") == (True, "from a")
    assert made_from("b") == (True, "from b")


def test_symlinks_and_fifos_are_refused_before_dvc_sees_them(project: Project) -> None:
    run = begin(project)
    fill(run, "one")
    link = run.workspace.snapshot / "link"
    link.symlink_to("/etc/hostname")
    with pytest.raises(BadInput, match="plain files"):
        run.store.add(run.workspace.snapshot)
    link.unlink()
    os.mkfifo(run.workspace.snapshot / "pipe")
    with pytest.raises(BadInput, match="plain files"):
        run.store.add(run.workspace.snapshot)


def test_a_kept_runs_files_are_the_caches_own(project: Project) -> None:
    run = begin(project)
    fill(run, "one")
    keep_run(Git(project.root), run, "run", "kept")
    rows = run.workspace.snapshot / "rows.txt"
    cached = [p for p in (project.root / ".dvc" / "cache" / "files").rglob("*") if p.is_file() and p.samefile(rows)]
    assert len(cached) == 1


def test_a_removed_folder_is_made_again_from_git_and_the_remote(project: Project) -> None:
    git_ = Git(project.root)
    run = begin(project)
    fill(run, "kept text")
    run.workspace.training_record.parent.mkdir(parents=True)
    kept = keep_run(git_, run, "run", "kept")
    assert run.store.push() > 0
    discard(git_, project, run)
    assert not run.workspace.root.exists()
    for file in (project.root / ".dvc" / "cache" / "files").rglob("*"):
        if file.is_file():
            file.unlink()
    again = open_kept(git_, project, kept, remote=None)
    assert (again.snapshot / "rows.txt").read_text() == "kept text"


def test_old_folders_go_and_the_newest_stays(project: Project) -> None:
    git_ = Git(project.root)
    for text in ("a", "b", "c"):
        run = begin(project)
        if run.parent is not None:
            (run.workspace.snapshot / "rows.txt").unlink()
        fill(run, text)
        keep_run(git_, run, "run", text)
    remove_other_folders(git_, project, "m", keep={3})
    assert [p.name for p in sorted(project.runs.iterdir())] == ["m-0003"]


def test_the_archive_finds_records_by_digest_and_names_lost_files(project: Project) -> None:
    git_ = Git(project.root)
    run = begin(project)
    snapshot = fill(run, "text")
    kept = keep_run(git_, run, "run", "kept")
    version = ModelVersion(
        name="m", version="1", run_id="r", training="t", evaluation="e", decision="d", adapter_digest="a",
        files=(), commit=kept.commit, tag=kept.tag, dirty=False,
    )  # fmt: skip
    archive = GitDvcArchive(git_, project)
    text, where = archive.record(version, snapshot.digest)
    assert Snapshot.from_json(text, digest=snapshot.digest) == snapshot
    assert ".dvc" in where
    stored = {f.path: f for f in archive.files(version)}
    assert digest_file(stored["data/snapshot/rows.txt"].stored) == digest_file(run.workspace.snapshot / "rows.txt")
    with pytest.raises(Broken, match="no record with the digest"):
        archive.record(version, "0" * 64)
    place = stored["data/snapshot/rows.txt"].stored
    place.unlink()
    lost = {f.path: f.stored for f in GitDvcArchive(git_, project).files(version)}["data/snapshot/rows.txt"]
    assert lost == place, "a lost file is named by where it belongs"
    assert archive.commit_problem(version) is None
    git(project.root, "update-ref", kept.tag, "HEAD")
    assert "points at" in str(archive.commit_problem(version))


def test_outside_a_repository_and_without_a_commit(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no git repository"):
        Git.find(tmp_path)
    git(tmp_path, "init", "--quiet")
    with pytest.raises(Misuse, match="no commit yet"):
        Git.find(tmp_path)
