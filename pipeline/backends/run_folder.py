"""A run's own folder: a git worktree of the code's commit, holding the data it began from, kept as a commit under a tag.

Tags are refs/tags/tuneline/MODEL/run/NNNN for runs that were gated, …/data/NNNN for those that only took data in (the newest of
both is where the next run takes its snapshot from), and …/invalid/NNNN for those whose data was refused, kept as evidence.
What a run does in its folder is not known here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Literal

from pipeline.backends.dvc import DvcStore
from pipeline.backends.git import CodeState, Git
from pipeline.backends.params_file import write_params
from pipeline.domain.data import Snapshot
from pipeline.errors import Misuse
from pipeline.params import Params
from pipeline.workspace import Project, Workspace

CODE = ("pipeline", "flows", "dvc.yaml", ".dvc/config", ".dvcignore", "pyproject.toml")
"""What runs. A change elsewhere makes no run dirty: params and data are recorded with the run itself."""

DATA_STAGES = ["validate", "drift", "curate", "split"]
STAGES = [*DATA_STAGES, "train", "evaluate"]
KINDS = ("run", "data", "invalid")
_PLACED = ("snapshot", "frozen", "reserved", "reviewed", "starts", "suites", "champion")
_CARRIED = ("dvc.lock", *(f"data/{name}.dvc" for name in _PLACED))


@dataclass(frozen=True, slots=True)
class RunFolder:
    model: str
    number: int
    workspace: Workspace
    store: DvcStore
    code: CodeState
    parent: Snapshot | None

    @property
    def key(self) -> str:
        return run_key(self.model, self.number)

    def nothing_new(self, snapshot: Snapshot, stages: list[str] = STAGES) -> bool:
        """True when the last run did all this already: the same data, params and code."""
        return self.parent is not None and snapshot.digest == self.parent.digest and not self.store.stale(stages)

    def starts_anew(self) -> bool:
        """True when training has something new to learn from: rows, params or code, the stages before it being done.

        Only then may it begin from what holds a stage today. Else the promotion of what the last run made would by itself be a
        reason to tune again, from its own output, on rows that it has seen.
        """
        return not self.workspace.starts_record.exists() or bool(self.store.stale(["train"]))


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A finished run as git remembers it."""

    model: str
    number: int
    commit: str
    tag: str

    @property
    def key(self) -> str:
        return run_key(self.model, self.number)


def run_key(model: str, number: int) -> str:
    return f"{model}-{number:04d}"


def open_run(git: Git, project: Project, params: Params, *, remote: str | None) -> RunFolder:
    """A fresh folder for the model's next run. What a killed run left under the same number is replaced."""
    model = params.model.name
    number = 1 + max((run.number for kind in KINDS for run in kept_runs(git, model, kind)), default=0)
    code = git.code_state(CODE)
    workspace = Workspace(project.runs / run_key(model, number))
    git.add_worktree(workspace.root, code.commit)
    write_params(params, workspace.params)
    head = head_data(git, model)
    if head is not None:
        for name in _CARRIED:
            content = git.show(head.commit, name)
            if content is not None:
                (workspace.root / name).parent.mkdir(parents=True, exist_ok=True)
                (workspace.root / name).write_bytes(content)
    store = DvcStore(workspace, project, remote=remote)
    if head is not None:
        store.checkout()
    parent = Snapshot.read(workspace.snapshot_record) if head is not None else None
    return RunFolder(model, number, workspace, store, code, parent)


def keep_run(git: Git, run: RunFolder, kind: Literal["run", "data", "invalid"], message: str) -> KeptRun:
    """Commit the run's lock, params and release records, and tag them. The user's branch does not move."""
    run.store.relink()
    root = run.workspace.root
    # Pages show rows of data and their fields, which git would keep for ever; they stay in the run's folder and the tracked run.
    kept = sorted(set(run.workspace.release.glob("*.json")) - {run.workspace.report_data})
    records = [path.relative_to(root).as_posix() for path in kept]
    present = [name for name in (*_CARRIED, "data/remains.dvc", "params.yaml") if (root / name).exists()] + records
    commit = git.commit_worktree(root, present, f"{message}\n\nRun: {run.key}\nDirty: {run.code.dirty}")
    tag = git.create_ref(f"{run.model}/{kind}/{run.number:04d}", commit)
    return KeptRun(run.model, run.number, commit, tag)


def discard(git: Git, project: Project, run: RunFolder) -> None:
    run.store.close()
    git.remove_worktree(run.workspace.root)


def remove_other_folders(git: Git, project: Project, model: str, *, keep: set[int]) -> None:
    """Remove the folders of a model's runs but those numbered in `keep`; what they held stays in git and DVC (`open_kept`)."""
    for folder in sorted(project.runs.glob(f"{model}-[0-9][0-9][0-9][0-9]")):
        if int(folder.name.removeprefix(f"{model}-")) not in keep:
            git.remove_worktree(folder)


def kept_runs(git: Git, model: str, kind: str = "run") -> list[KeptRun]:
    """Oldest first."""
    refs = git.refs(f"{model}/{kind}")
    return [
        KeptRun(model, int(name.rsplit("/", 1)[1]), commit, f"refs/tags/tuneline/{name}") for name, commit in sorted(refs.items())
    ]


def head_run(git: Git, model: str) -> KeptRun | None:
    """The newest run that was gated."""
    runs = kept_runs(git, model)
    return runs[-1] if runs else None


def head_data(git: Git, model: str) -> KeptRun | None:
    """The newest run whose data was valid: where the next run takes its snapshot from."""
    return max([*kept_runs(git, model, "run"), *kept_runs(git, model, "data")], key=lambda run: run.number, default=None)


def open_kept(git: Git, project: Project, run: KeptRun, *, remote: str | None) -> Workspace:
    """The folder of a finished run, made again from git and DVC where it is gone."""
    workspace = Workspace(project.runs / run.key)
    if not workspace.snapshot_record.exists():
        git.add_worktree(workspace.root, run.commit)
        store = DvcStore(workspace, project, remote=remote)
        store.checkout()
        store.close()
    return workspace


def find_kept(git: Git, model: str, number: int | None) -> KeptRun:
    """A finished run by number, or the newest. Raises Misuse that lists what there is."""
    runs = sorted([*kept_runs(git, model, "run"), *kept_runs(git, model, "data")], key=lambda run: run.number)
    found = runs[-1:] if number is None else [r for r in runs if r.number == number]
    if not found:
        there = ", ".join(str(r.number) for r in runs) or "none yet"
        raise Misuse(f"{model} has no such finished run", where=f"runs: {there}", fix="tuneline run makes one")
    return found[0]


def free_space(project: Project) -> int:
    """Bytes free where runs are kept."""
    project.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return shutil.disk_usage(project.state).free
