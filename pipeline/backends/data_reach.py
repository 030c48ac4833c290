"""Which objects of DVC's cache and remote something still names: a commit of any ref, a file of any worktree, the run cache.

`dvc gc` asks the same of tags and branches, but leaves out the folders of runs and finished stages of killed ones, counts on
every listing being there, and knows no age. What is kept, and what is removed, is not decided here.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.backends.git import REFS, Git
from pipeline.workspace import Project

DIR = ".dir"
_NAMES = ("dvc.lock",)
_ENDS = (".dvc",)
_MD5 = re.compile(rb"\b[0-9a-f]{32}(?:\.dir)?\b")


@dataclass(slots=True)
class Reach:
    """MD5s that are named. lost: listings that one of our own commits names and that are nowhere: what they list is unknown."""

    named: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


class DataReach:
    """What one project's git, worktrees and stores name."""

    def __init__(self, git: Git, project: Project) -> None:
        self._git = git
        self._stores = object_stores(project)
        self._blobs: dict[str, frozenset[str]] = {}

    def of_commits(self, commits: Collection[str], *, ours: bool, gone: Collection[str] = ()) -> Reach:
        """What the files of DVC in some commits name. gone: what was taken away on request, and is missed by nobody."""
        listed = {commit: self._tracking(commit) for commit in commits}
        self._read({blob for blobs in listed.values() for blob in blobs})
        outs = {md5 for blobs in listed.values() for blob in blobs for md5 in self._blobs[blob]}
        return self._expanded(outs, ours=ours, gone=gone)

    def of_folder(self, root: Path) -> Reach:
        """What the files of DVC below a worktree name, as they lie there: a run that was killed has committed nothing."""
        listed = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--", "*.dvc", "dvc.lock", "*/dvc.lock"],
            capture_output=True,
        )
        outs: set[str] = set()
        for name in listed.stdout.split(b"\0"):
            path = root / name.decode("utf-8", "surrogateescape")
            if name and path.is_file():
                outs |= _outs(path.read_bytes())
        return self._expanded(outs, ours=False)

    def of_run_cache(self, entry: Path) -> Reach:
        """What a finished stage made, by its entry in DVC's run cache."""
        return self._expanded(_outs(entry.read_bytes()), ours=False)

    def expanded(self, md5s: Iterable[str]) -> Reach:
        return self._expanded(set(md5s), ours=False)

    def refs(self) -> dict[str, str]:
        """Every ref of the repository, tags of people and stashes among them → its commit."""
        command = [
            "git",
            "-C",
            str(self._git.root),
            "for-each-ref",
            "--format=%(refname) %(objecttype) %(objectname) %(*objectname)",
        ]
        rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        head = subprocess.run(["git", "-C", str(self._git.root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        found = {"HEAD": head.stdout.strip()}
        for row in rows:
            name, kind, *objects = row.split(" ")
            if kind == "commit" or (kind == "tag" and objects[-1]):
                found[name] = objects[0] if kind == "commit" else objects[-1]
        return found

    def worktrees(self) -> list[Path]:
        """The checkout, and every linked worktree that is still there."""
        command = ["git", "-C", str(self._git.root), "worktree", "list", "--porcelain"]
        rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found = [Path(row.removeprefix("worktree ")) for row in rows if row.startswith("worktree ")]
        return [path for path in found if path.is_dir()]

    def _tracking(self, commit: str) -> list[str]:
        """The blobs of a commit that say what DVC tracks."""
        command = ["git", "-C", str(self._git.root), "ls-tree", "-r", "-z", commit]
        done = subprocess.run(command, capture_output=True)
        found = []
        for row in done.stdout.split(b"\0"):
            about, _, path = row.partition(b"\t")
            name = path.rpartition(b"/")[2].decode("utf-8", "replace")
            if about and (name in _NAMES or name.endswith(_ENDS)) and about.split()[1] == b"blob":
                found.append(about.split()[2].decode())
        return found

    def _read(self, blobs: set[str]) -> None:
        """Parse blobs that were not met before, by one call of git."""
        fresh = sorted(blobs - self._blobs.keys())
        command = ["git", "-C", str(self._git.root), "cat-file", "--batch"]
        asked = "".join(f"{blob}\n" for blob in fresh).encode()
        data, at = subprocess.run(command, input=asked, capture_output=True, check=True).stdout, 0
        for blob in fresh:
            end = data.index(b"\n", at)
            size = int(data[at:end].split()[2])
            self._blobs[blob] = frozenset(_outs(data[end + 1 : end + 1 + size]))
            at = end + 1 + size + 1

    def _expanded(self, outs: set[str], *, ours: bool, gone: Collection[str] = ()) -> Reach:
        """With the files that listings list. A listing of somebody else's that is not here was never fetched, nor its files."""
        reach = Reach(set(outs))
        for md5 in outs:
            if not md5.endswith(DIR) or md5 in gone:
                continue
            rows = self._listing(md5)
            if rows is None:
                reach.lost.update([md5] if ours else [])
            else:
                reach.named.update(rows)
        return reach

    def _listing(self, md5: str) -> list[str] | None:
        for store in self._stores:
            try:
                return [str(row["md5"]) for row in json.loads(object_path(store, md5).read_bytes())]
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None


def object_stores(project: Project) -> tuple[Path, Path]:
    """DVC's cache, and the embedded remote."""
    return (project.root / ".dvc" / "cache" / "files" / "md5", project.remote / "files" / "md5")


def object_path(store: Path, md5: str) -> Path:
    return store / md5[:2] / md5[2:]


def objects(store: Path) -> Iterator[tuple[str, Path]]:
    """(MD5, file) of what lies in a store, listings first: a file without its listing is garbage, the other way round is harm."""
    found = [(path.parent.name + path.name, path) for path in store.glob("[0-9a-f][0-9a-f]/*") if path.is_file()]
    yield from sorted(found, key=lambda one: (not one[0].endswith(DIR), one[0]))


def run_cache(project: Project) -> list[Path]:
    """The entries of DVC's run cache: a file for each piece of work that was finished."""
    return [path for path in (project.root / ".dvc" / "cache" / "runs").glob("*/*/*") if path.is_file()]


def is_ours(ref: str) -> bool:
    return ref.startswith(f"{REFS}/")


def _outs(content: bytes) -> set[str]:
    """The MD5s of the outputs that a dvc.lock, a .dvc file or an entry of the run cache names; all in it, if it is no YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        said: Any = YAML(typ="safe").load(content)
    except (YAMLError, UnicodeDecodeError):
        return {md5.decode() for md5 in _MD5.findall(content)}
    if not isinstance(said, dict):
        return set()
    stages = said.get("stages")
    parts = [said, *(stages.values() if isinstance(stages, dict) else ())]
    outs = [out for part in parts if isinstance(part, dict) for out in part.get("outs") or () if isinstance(out, dict)]
    found = {str(out["md5"]) for out in outs if out.get("md5")}
    return found | {
        str(file["md5"]) for out in outs for file in out.get("files") or () if isinstance(file, dict) and file.get("md5")
    }
