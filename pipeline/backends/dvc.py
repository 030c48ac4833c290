"""DVC in process: what is stale, what was made, where its bytes are. One DvcStore per run folder, one cache for all.

Never calls out to a shell; never decides what a stage does. DVC does not verify by default, so `verify` is set here.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from pipeline.backends.git import REFS, Git
from pipeline.domain.record import digest_bytes
from pipeline.domain.release import ModelVersion
from pipeline.errors import BadInput, Broken
from pipeline.ports import StoredFile
from pipeline.workspace import Project, Workspace

T = TypeVar("T")


def _in_its_folder(method: Callable[..., T]) -> Callable[..., T]:
    """DVC looks names up, and keeps its run cache, relative to the process's folder, which is the user's checkout: go there."""

    @wraps(method)
    def there(self: DvcStore, *arguments: Any) -> T:
        with chdir(self.root):
            return method(self, *arguments)

    return there


class DvcStore:
    """DVC's view of one run folder (a git worktree), sharing the project's cache and pushing to its remote."""

    def __init__(self, workspace: Workspace, project: Project, *, remote: str | None = None) -> None:
        self.root = workspace.root
        _write_local_config(self.root, project, remote)
        self._repo: Any = None

    @property
    def repo(self) -> Any:
        if self._repo is None:
            from dvc.logger import setup
            from dvc.repo import Repo

            setup(level=logging.WARNING)
            self._repo = Repo(str(self.root))
        return self._repo

    @_in_its_folder
    def add(self, folder: Path) -> None:
        """`dvc add` a folder of plain files. Raises BadInput at a symlink, FIFO or device: DVC would follow or hang on it."""
        for path in [folder, *sorted(folder.rglob("*"))]:
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BadInput("only plain files and folders can be snapshotted", where=str(path), fix="copy its content there")
        self.repo.add(str(folder))

    @_in_its_folder
    def checkout(self) -> None:
        """Bring back the bytes of all that the folder tracks: from the cache, or the remote where the cache has lost them.

        Raises Broken when neither has them: they were purged on request, or lost.
        """
        from dvc.exceptions import CheckoutError, DownloadError

        made = self._made()
        try:
            self.repo.checkout(made, force=True)
        except CheckoutError:
            try:
                self.repo.pull(made, force=True)
            except (CheckoutError, DownloadError) as error:
                raise Broken(
                    f"neither cache nor remote has all that this run tracks: {error}",
                    where=str(self.root),
                    fix="tuneline history tells what was purged on request; restore anything else from a backup",
                ) from error

    @_in_its_folder
    def stale(self, stages: list[str]) -> list[str]:
        """Those of `stages` whose inputs, params, code or outputs are not what dvc.lock says."""
        return sorted(self.repo.status(stages))

    @_in_its_folder
    def restore(self, stage: str) -> bool:
        """Bring back a stage's outputs if the same work was done before in any run folder. True if it was."""
        from dvc.stage.cache import RunCacheNotFoundError
        from dvc_data.hashfile.hash_info import HashInfo

        if not self.repo.status([stage]):
            return True
        found = self.repo.stage.load_one(name=stage)
        for out in found.outs:
            # Else DVC would take the outputs that the lock names for those of the inputs that lie here now.
            out.hash_info = HashInfo()
        try:
            with self.repo.lock:
                self.repo.stage_cache.restore(found)
        except RunCacheNotFoundError:
            return False
        self.repo.commit(stage, force=True)
        return True

    @_in_its_folder
    def clear(self, stage: str) -> None:
        """Remove a stage's outputs before it runs: they may be links into the cache, which must not be written through."""
        for out in self.repo.stage.load_one(name=stage).outs:
            path = Path(out.fs_path)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @_in_its_folder
    def commit(self, stage: str) -> None:
        """Record in dvc.lock, cache and run cache what a stage function just made; the same as if `dvc repro` had run it."""
        self.repo.commit(stage, force=True)

    @_in_its_folder
    def relink(self) -> None:
        """Make every tracked file a link to its one copy in the cache: no second copy can differ, and none costs disk."""
        self.repo.checkout(self._made(), relink=True, force=True)

    @_in_its_folder
    def push(self) -> int:
        """Send what this run folder tracks to the remote; returns how many objects went."""
        return int(self.repo.push())

    @_in_its_folder
    def erase_pushed(self, md5s: Iterable[str]) -> int:
        """Remove objects from the remote that is pushed to; returns how many were there."""
        odb = self.repo.cloud.get_remote_odb(command="forget")
        there = [md5 for md5 in md5s if odb.exists(md5)]
        for md5 in there:
            odb.delete(md5)
        return len(there)

    def _made(self) -> list[str]:
        # A stage that dvc.yaml has and the lock does not yet (it is new, or renamed) has nothing to bring back.
        return [stage.addressing for stage in self.repo.index.stages if all(out.hash_info for out in stage.outs)]

    def close(self) -> None:
        if self._repo is not None:
            self._repo.close()
            self._repo = None


class GitDvcArchive:
    """Records and files of past runs: read from a run's commit and from the data cache, by digest. Implements ports.Archive."""

    def __init__(self, git: Git, project: Project) -> None:
        self._git = git
        self._project = project
        self._records: dict[tuple[str, str], tuple[str, str]] = {}
        self._indexed: set[str] = set()

    def record(self, version: ModelVersion, digest: str) -> tuple[str, str]:
        if version.commit not in self._indexed:
            self._index(version.commit)
        try:
            return self._records[version.commit, digest]
        except KeyError as error:
            raise Broken(
                f"no record with the digest {digest[:12]} is in the run", where=f"{version.tag} ({version.commit[:12]})"
            ) from error

    def files(self, version: ModelVersion) -> Iterator[StoredFile]:
        for path, md5 in self.tracked(version.commit):
            copies = [_object_path(store, md5) for store in self._stores]
            # A lost file is named by the place where it belongs; whoever hashes it finds that it is not there.
            for stored in [copy for copy in copies if copy.exists()] or copies[:1]:
                yield StoredFile(path=path, stored=stored, md5=md5)

    def committed(self, version: ModelVersion, path: str) -> bytes | None:
        return self._git.show(version.commit, path)

    def commit_problem(self, version: ModelVersion) -> str | None:
        tagged = self._git.refs(version.tag.removeprefix(f"{REFS}/").rsplit("/", 1)[0]).get(version.tag.removeprefix(f"{REFS}/"))
        if tagged != version.commit:
            return f"{version.tag} points at {tagged[:12] if tagged else 'nothing'}, not at {version.commit[:12]}"
        return self._git.verify_objects(version.commit)

    @property
    def _stores(self) -> tuple[Path, Path]:
        """The cache first, then the embedded remote, where there is one."""
        return (self._project.root / ".dvc" / "cache" / "files" / "md5", self._project.remote / "files" / "md5")

    def _index(self, commit: str) -> None:
        for path, md5 in self.tracked(commit):
            stored = self.find(md5)
            if path.endswith(".json") and stored is not None:
                self._file(commit, stored.read_bytes(), str(stored))
        for path in self._git.list_files(commit, "work/release"):
            content = self._git.show(commit, path)
            if content is not None and path.endswith(".json"):
                self._file(commit, content, f"{commit[:12]}:{path}")
        self._indexed.add(commit)

    def _file(self, commit: str, content: bytes, where: str) -> None:
        self._records[commit, digest_bytes(content)] = (content.decode("utf-8", "replace"), where)

    def tracked(self, commit: str) -> list[tuple[str, str]]:
        """(path in the run folder, md5) of every file under DVC at a commit."""
        from ruamel.yaml import YAML

        outs: list[tuple[str, str]] = []
        for name in [p for p in self._git.list_files(commit, "data") if p.endswith(".dvc")]:
            content = YAML(typ="safe").load(self._git.show(commit, name) or b"")
            outs += [(f"{Path(name).parent}/{out['path']}", out["md5"]) for out in content["outs"]]
        lock = YAML(typ="safe").load(self._git.show(commit, "dvc.lock") or b"{}")
        for stage in lock.get("stages", {}).values():
            outs += [(out["path"], out["md5"]) for out in stage.get("outs", [])]
        if not outs:
            raise Broken("the run's commit tracks no data", where=commit[:12], fix="git fsck, and fetch refs/tags/tuneline/*")
        return [file for path, md5 in outs for file in self._expand(path, md5)]

    def _expand(self, path: str, md5: str) -> list[tuple[str, str]]:
        if not md5.endswith(".dir"):
            return [(path, md5)]
        listing = self.find(md5)
        try:
            rows = json.loads(listing.read_bytes()) if listing else []
        except ValueError:
            rows = []
        # The listing itself is an object too: audit re-hashes it like any file, and so finds it lost or damaged.
        return [(f"{path}/", md5), *[(f"{path}/{row['relpath']}", row["md5"]) for row in rows]]

    def find(self, md5: str) -> Path | None:
        """Where the bytes with this MD5 lie: in the cache, else in the embedded remote; None when in neither."""
        return next((found for store in self._stores if (found := _object_path(store, md5)).is_file()), None)


def _object_path(store: Path, md5: str) -> Path:
    return store / md5[:2] / md5[2:]


def _write_local_config(root: Path, project: Project, remote: str | None) -> None:
    """Machine-bound settings of a run folder; git ignores the file, so no path of this machine enters a commit."""
    if not (root / ".dvc").is_dir():
        raise Broken("the run folder has no .dvc/", where=str(root), fix="commit .dvc/ and dvc.yaml to the repository")
    lines = [
        "[cache]",
        f"    dir = {project.root / '.dvc' / 'cache'}",
        '    type = "reflink,hardlink,copy"',
        "[core]",
        "    analytics = false",
        f"    site_cache_dir = {project.state / 'dvc'}",
        f"    remote = {remote or 'embedded'}",
        f"['remote \"{remote or 'embedded'}\"']",
        "    verify = true",
        *([] if remote else [f"    url = {project.remote}"]),
    ]
    project.remote.mkdir(parents=True, exist_ok=True)
    # DVC's shared site cache is world-writable and holds pickles; ours is private.
    (project.state / "dvc").mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = root / ".dvc" / "config.local.tmp"
    temporary.write_text("\n".join(lines) + "\n")
    os.replace(temporary, root / ".dvc" / "config.local")
