"""The snapshots of kept runs, from git tags and the data store behind them. Implements ports.Snapshots.

A folder of a past snapshot is made of links to stored files, so nothing is copied; whoever reads a file verifies it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.backends.dvc import GitDvcArchive
from pipeline.backends.git import REFS, Commit, Git
from pipeline.backends.past_runs import KINDS
from pipeline.backends.run_folder import run_key
from pipeline.domain.data import Snapshot
from pipeline.domain.snapshots import PastSnapshot
from pipeline.errors import BadParams, Broken
from pipeline.workspace import Project

_POINTER = "data/snapshot.dvc"
_FETCH = "fetch it: tuneline worktree NUMBER, or dvc pull in that run's folder"


class GitDvcSnapshots:
    """The snapshots of one model's kept runs."""

    def __init__(self, git: Git, project: Project, model: str) -> None:
        self._git = git
        self._project = project
        self._model = model
        self._archive = GitDvcArchive(git, project)

    def all(self) -> tuple[PastSnapshot, ...]:
        kept = []
        for name, commit in self._git.commits(self._model).items():
            kind, _, number = name.removeprefix(f"{self._model}/").partition("/")
            if kind in KINDS and number.isdecimal():
                kept.append((int(number), kind, commit))
        kept.sort(key=lambda run: run[0])
        pointers = self._git.show_each([commit.id for _, _, commit in kept], _POINTER)
        return tuple(self._read(*run, pointer) for run, pointer in zip(kept, pointers, strict=True))

    @contextmanager
    def opened(self, past: PastSnapshot) -> Iterator[Path]:
        self._project.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._project.scratch, prefix="snapshot-") as name:
            folder = Path(name)
            for path, md5 in self._files(self._git.show(past.commit, _POINTER), past.tag).items():
                stored = self._archive.find(md5)
                if stored is not None:
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).symlink_to(stored)
            yield folder

    def params(self, past: PastSnapshot) -> dict[str, Any] | None:
        from pipeline.backends.params_file import parse_params

        content = self._git.show(past.commit, "params.yaml")
        try:
            return parse_params(content.decode()).model_dump(mode="json", by_alias=True) if content is not None else None
        except (BadParams, UnicodeDecodeError):
            return None

    def _read(self, number: int, kind: str, commit: Commit, pointer: bytes | None) -> PastSnapshot:
        tag = f"{REFS}/{self._model}/{kind}/{number:04d}"
        md5 = self._files(pointer, tag).get("snapshot.json")
        stored = self._archive.find(md5) if md5 else None
        if stored is None:
            raise Broken("the snapshot record of this run is not in the data store", where=tag, fix=_FETCH)
        snapshot = Snapshot.read(stored)
        run = run_key(self._model, number)
        return PastSnapshot(
            run=run,
            number=number,
            kind=kind,
            at=commit.at,
            ending=commit.subject.removeprefix(f"{run}: "),
            tag=tag,
            commit=commit.id,
            digest=snapshot.digest,
            snapshot=snapshot,
        )

    def of(self, commit: str) -> Snapshot | None:
        """The snapshot that a kept run's commit names; None where its record is not in the data store here."""
        md5 = self._files(self._git.show(commit, _POINTER), commit[:12]).get("snapshot.json")
        stored = self._archive.find(md5) if md5 else None
        return Snapshot.read(stored) if stored else None

    def _files(self, pointer: bytes | None, where: str) -> dict[str, str]:
        """Path in the snapshot folder → MD5, of every file that a run's snapshot has, by the .dvc file that points at it."""
        from ruamel.yaml import YAML

        outs = YAML(typ="safe").load(pointer or b"{}").get("outs") or []
        listing = self._archive.find(outs[0]["md5"]) if outs else None
        if listing is None:
            raise Broken("the listing of this run's snapshot is not in the data store", where=where, fix=_FETCH)
        try:
            # Names come from the data store: they may lead nowhere but below the folder.
            rows = [(row["relpath"], row["md5"]) for row in json.loads(listing.read_bytes())]
        except (ValueError, KeyError, TypeError) as error:
            raise Broken(f"the listing of this run's snapshot is damaged: {error}", where=str(listing), fix=_FETCH) from error
        if any(Path(path).is_absolute() or ".." in Path(path).parts for path, _ in rows):
            raise Broken("the listing of this run's snapshot names a path outside it", where=str(listing))
        return dict(rows)
