"""A project whose runs lie in real git and in the stores of DVC, with releases whose records are real. No test here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import indent
from typing import Literal

from folder_registry import FolderRegistry
from release_world import MODEL, STAGES, Candidate, Clock
from release_world import World as ReleaseWorld

from pipeline.backends.data_reach import object_path, object_stores
from pipeline.backends.dvc import GitDvcArchive
from pipeline.backends.git import Git
from pipeline.backends.run_folder import KeptRun, run_key
from pipeline.collecting import collect
from pipeline.domain.gating import Outcome
from pipeline.domain.proof import AuditReport
from pipeline.domain.retention import Collected
from pipeline.params import Params
from pipeline.ports import Progress, silent
from pipeline.settings import Settings
from pipeline.steps import audit
from pipeline.steps.register import register
from pipeline.wiring import World
from pipeline.workspace import Project
from tests.checkouts import git

ROOT = Path(__file__).resolve().parents[2]
OUTS = ("validate", "drift", "curate", "split", "train", "evaluate")
STAGES_FILE = "stages:\n" + "".join(
    f"  {stage}:\n    cmd: python -m pipeline step {stage}\n    outs: [work/{stage}]\n" for stage in OUTS
)
RETENTION = {"keep_runs": 1, "keep_days": 30, "rollback_window": 2}
PARAMS = Params.model_validate({"model": {"name": MODEL, "task": "generate", "base": "./x"}, "retention": RETENTION})
LATER = datetime.now(UTC) + timedelta(days=60)
"""When gc looks: all that is in the project is old by then."""


class Desk(ReleaseWorld):
    """The words of the release tests, over a repository and DVC's stores."""

    def __init__(self, root: Path) -> None:
        self.root = root / "made"
        self.checkout = root / "checkout"
        (self.checkout / ".dvc").mkdir(parents=True)
        for name in ("config", ".gitignore"):
            shutil.copy(ROOT / ".dvc" / name, self.checkout / ".dvc" / name)
        (self.checkout / "dvc.yaml").write_text(STAGES_FILE)
        (self.checkout / ".gitignore").write_text(".tuneline/\n")
        for words in (
            ("init", "--quiet", "--initial-branch", "main"),
            ("config", "user.name", "Someone"),
            ("config", "user.email", "someone@localhost"),
            ("add", "--all"),
            ("commit", "--quiet", "--message", "start"),
        ):
            git(self.checkout, *words)
        self.clock = Clock()
        self.registry = FolderRegistry(root / "registry")
        self.world = World(self.checkout, Settings())
        self.project: Project = self.world.project
        self.ledger = self.world.ledger
        self.kept: dict[str, KeptRun] = {}

    @property
    def archive(self) -> GitDvcArchive:  # type: ignore[override]
        """Nothing that it read before is remembered."""
        return GitDvcArchive(Git.find(self.checkout), self.project)

    def live(self) -> None:
        """One and three to six are registered or kept; two and seven are refused. Three versions hold production in turn."""
        self.run("one", promote=True)
        self.run("two", verdict=Outcome.FAILED)
        self.run("three", promote=True)
        self.run("four", promote=True)
        self.run("five", kind="data")
        self.run("six")
        self.run("seven", verdict=Outcome.FAILED)

    def run(
        self,
        name: str,
        *,
        verdict: Outcome = Outcome.PASSED,
        kind: Literal["run", "data"] = "run",
        promote: bool = False,
    ) -> None:
        """A run as it lies in git and in DVC's stores once it is kept and pushed. Written by hand, as DVC would take minutes;
        that it is what DVC reads is shown by the test that opens one."""
        made, here = _files(self, name, verdict), Git.find(self.checkout)
        number = len(self.kept) + 1
        root = self.project.runs / run_key(MODEL, number)
        here.add_worktree(root, git(self.checkout, "rev-parse", "HEAD"))
        for part in ("data", "work"):
            shutil.copytree(made.run.root / part, root / part)
        (root / "data" / "snapshot" / "note.txt").write_text(f"only {name} has this")
        tracking = ["dvc.lock", "work/release/decision.json"]
        for folder in ("snapshot", "frozen", "reserved", "starts", "champion"):
            tracking.append(f"data/{folder}.dvc")
            (root / tracking[-1]).write_text(f"outs:\n{self._tracked(root / 'data' / folder, folder)}")
        lock = "schema: '2.0'\nstages:\n"
        for stage in OUTS:
            (root / "work" / stage).mkdir(exist_ok=True)
            (root / "work" / stage / "made.txt").write_text(f"{stage} of {name}")
            lock += f"  {stage}:\n    cmd: python -m pipeline step {stage}\n    outs:\n"
            lock += indent(self._tracked(root / "work" / stage, f"work/{stage}"), "    ")
        (root / "dvc.lock").write_text(lock)
        commit = here.commit_worktree(root, tracking, f"{name}\n\nDirty: False")
        tag = here.create_ref(f"{MODEL}/{kind}/{number:04d}", commit)
        self.kept[name] = kept = KeptRun(MODEL, number, commit, tag)
        logged = self.registry.root / "runs" / made.run_id
        shutil.copytree(root / "work" / "train" / "adapter", logged / "model" / "artifacts" / "adapter")
        (logged / "logged").mkdir()
        if kind == "run" and verdict is Outcome.PASSED:
            version = self._register(made, kept)
            if promote:
                self.promote(version)

    def _tracked(self, folder: Path, path: str) -> str:
        """Put a folder's files and their listing into both stores, and give the entry by which DVC finds them."""
        rows = []
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            rows.append({"md5": self.put(file.read_bytes()), "relpath": file.relative_to(folder).as_posix()})
        md5 = self.put(json.dumps(rows, sort_keys=True).encode(), ".dir")
        return f"- md5: {md5}\n  hash: md5\n  nfiles: {len(rows)}\n  path: {path}\n"

    def put(self, content: bytes, end: str = "", *, remote: bool = True) -> str:
        """An object in the cache, and in the remote."""
        md5 = hashlib.md5(content).hexdigest() + end
        for store in object_stores(self.project)[: 2 if remote else 1]:
            place = object_path(store, md5)
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.write_bytes(content)
        return md5

    def collect(
        self, params: Params = PARAMS, *, dry: bool = False, now: datetime = LATER, progress: Progress = silent
    ) -> Collected:
        return collect(World(self.checkout, Settings()), params, dry=dry, now=now, progress=progress)

    def verify(self, version: str) -> AuditReport:
        return audit.verify(version, model=MODEL, stages=STAGES, ledger=self.ledger, registry=self.registry, archive=self.archive)

    def stored(self, name: str, path: str) -> tuple[bool, bool]:
        """Whether a file that a run tracks lies in the cache, and in the remote."""
        (md5,) = (md5 for at, md5 in self.md5s[name] if at == path)
        cache, remote = object_stores(self.project)
        return object_path(cache, md5).exists(), object_path(remote, md5).exists()

    def remember(self) -> None:
        """What each run tracks, read while all of it is there."""
        self.md5s = {name: self.archive.tracked(kept.commit) for name, kept in self.kept.items()}

    def tags(self) -> set[str]:
        return set(Git.find(self.checkout).refs(MODEL))

    def killed(self, at: int) -> subprocess.CompletedProcess[str]:
        """gc in a process of its own, killed after so many removals."""
        program = (
            "import os, sys\nfrom gc_world import *\n"
            "def die(what, done, total):\n    done == int(sys.argv[2]) and os.kill(os.getpid(), 9)\n"
            "collect(World(Path(sys.argv[1]), Settings()), PARAMS, now=LATER, progress=die)\n"
        )
        here = Path(__file__).parent
        paths = ":".join(map(str, (here, here.parent / "release", ROOT)))
        command = [sys.executable, "-c", program, str(self.checkout), str(at)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})

    def _register(self, made: Candidate, kept: KeptRun) -> str:
        return register(
            made.decision,
            made.training,
            made.evaluation,
            name=MODEL,
            run_id=made.run_id,
            commit=kept.commit,
            tag=kept.tag,
            dirty=False,
            source=f"runs:/{made.run_id}/model",
            actor="tuneline",
            reason="the gate passed it",
            registry=self.registry,
            ledger=self.ledger,
            archive=self.archive,
            now=self.clock,
        ).version


def _files(desk: Desk, name: str, verdict: Outcome) -> Candidate:
    from release_world import Starts, _make_run

    return _make_run(desk.root, name, verdict, Starts())
