"""Git through its command: worktrees for runs, and run commits under refs/tags/tuneline/. Plumbing only.

The user's branch, index, working tree and hooks are never touched: dirty files are committed through an index of our own.
Nothing here knows what a run contains.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pipeline.domain.record import digest_bytes
from pipeline.errors import Broken, Conflict, Misuse, Stale, TryLater

REFS = "refs/tags/tuneline"
FENCES = "refs/tuneline/fence"
"""Of each model, the greatest fence that any run here has had: a ref to a file that names it."""
_LOCKED = ("Unable to create", "cannot lock ref", "unable to lock")
_IDENTITY = {
    "GIT_AUTHOR_NAME": "tuneline",
    "GIT_AUTHOR_EMAIL": "tuneline@localhost",
    "GIT_COMMITTER_NAME": "tuneline",
    "GIT_COMMITTER_EMAIL": "tuneline@localhost",
}


@dataclass(frozen=True, slots=True)
class CodeState:
    """The code that runs: a commit, and whether it holds changes that are on no branch."""

    commit: str
    dirty: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """id: 40 digits. at: when it was made. subject: the first line of its message."""

    id: str
    at: datetime
    subject: str


@dataclass(frozen=True, slots=True)
class RefFence:
    """ref must name `object`, lest the run that writes was taken over."""

    ref: str
    object: str
    model: str
    number: int


@dataclass(frozen=True, slots=True)
class Git:
    """One repository. `root` is the user's checkout. fence: what every new ref has to pass, where a run writes."""

    root: Path
    fence: RefFence | None = None

    @classmethod
    def find(cls, start: Path) -> Git:
        """The repository around `start`. Raises Misuse when there is none or it has no commit."""
        try:
            found = subprocess.run(["git", "-C", str(start), "rev-parse", "--show-toplevel"], capture_output=True, text=True)
        except FileNotFoundError as error:
            raise Misuse("git is not installed", fix="install git 2.30 or newer") from error
        if found.returncode != 0:
            raise Misuse("this folder is in no git repository", where=str(start), fix="git init && git add -A && git commit")
        git = cls(Path(found.stdout.strip()))
        if git._try("rev-parse", "--verify", "-q", "HEAD") is None:
            raise Misuse("the repository has no commit yet", where=str(git.root), fix="git add -A && git commit -m start")
        return git

    def main_root(self) -> Path:
        """The checkout that this one is a linked worktree of; itself if it is none."""
        common = Path(self._run("rev-parse", "--path-format=absolute", "--git-common-dir"))
        return common.parent if common.name == ".git" else self.root

    def code_state(self, code: tuple[str, ...]) -> CodeState:
        """The commit to run from. If files below `code` differ from HEAD, a commit of them that no branch points at."""
        head = self._run("rev-parse", "HEAD")
        present = [path for path in code if (self.root / path).exists() or self._run("ls-files", "--", path)]
        if not self._run("status", "--porcelain", "--untracked-files=all", "--", *present):
            return CodeState(head, dirty=False)
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self._run("read-tree", "HEAD", env=index)
            self._run("add", "--all", "--", *present, env=index)
            tree = self._run("write-tree", env=index)
        # A fixed date: the same dirty tree gives the same commit, so a run that is started again recognises its own work.
        dated = _IDENTITY | {"GIT_AUTHOR_DATE": "@0 +0000", "GIT_COMMITTER_DATE": "@0 +0000"}
        commit = self._run("commit-tree", tree, "-p", head, "-m", "uncommitted changes", env=dated)
        return CodeState(commit, dirty=True)

    def code_digest(self, code: tuple[str, ...]) -> str:
        """Names what lies below `code`, changes that are in no commit included. Another commit with the same code: the same."""
        state = self.code_state(code)
        return digest_bytes(self._run("ls-tree", state.commit, "--", *code).encode())

    def add_worktree(self, path: Path, commit: str) -> None:
        """A fresh worktree of `commit` at `path`; what was there is removed first."""
        self.remove_worktree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._run("worktree", "add", "--quiet", "--detach", str(path), commit)

    def remove_worktree(self, path: Path) -> None:
        if path.exists():
            shutil.rmtree(path)
        self._run("worktree", "prune")

    def commit_worktree(self, path: Path, files: list[str], message: str) -> str:
        """Commit `files` (ignored or not) on top of the worktree's HEAD, outside any branch, and return the commit."""
        self._run("add", "--force", "--", *files, at=path)
        tree = self._run("write-tree", at=path)
        head = self._run("rev-parse", "HEAD", at=path)
        return self._run("commit-tree", tree, "-p", head, "-m", message, at=path, env=_IDENTITY)

    def commit_file(self, name: str, content: str, message: str, parent: str | None) -> str:
        """A commit of one file, on no branch, on top of `parent` if there is one; returns it. The index is not touched."""
        blob = self._run("hash-object", "-w", "--stdin", input=content)
        tree = self._run("mktree", input=f"100644 blob {blob}\t{name}\n")
        return self._run("commit-tree", tree, *(("-p", parent) if parent else ()), "-m", message, env=_IDENTITY)

    def create_ref(self, name: str, commit: str) -> str:
        """Make refs/tags/tuneline/`name`. Raises Conflict if it is there and points elsewhere."""
        ref = f"{REFS}/{name}"
        there = self._try("rev-parse", "--verify", "-q", ref)
        if there is None:
            self._create(ref, commit)
        elif there != commit:
            raise Conflict(f"{ref} exists already", fix="another run made it; start again")
        return ref

    def fenced(self, model: str, number: int) -> Git:
        """The same repository, whose new refs are refused, as Stale, from when a greater fence of the model is raised."""
        object = self._run("hash-object", "-w", "--stdin", input=f"{model} {number}\n")
        return replace(self, fence=RefFence(f"{FENCES}/{model}", object, model, number))

    def raise_fence(self) -> None:
        """Make the fence the model's own, in one step that no other writer comes between. Raises Stale if a greater one is up."""
        assert self.fence is not None
        for pause in (0.05, 0.2, 0.5, 1.0, 2.0, 0.0):
            there = self._try("rev-parse", "--verify", "-q", self.fence.ref)
            up = int(self._run("cat-file", "blob", there).split()[1]) if there else 0
            if up > self.fence.number:
                raise self._stale()
            if up == self.fence.number:
                return
            done = self._update_refs(f"update {self.fence.ref} {self.fence.object} {there or '0' * 40}")
            if done is None:
                return
            time.sleep(pause)
        raise TryLater(f"the fence of {self.fence.model} cannot be raised: {done}", where=self.fence.ref, fix="try again")

    def _create(self, ref: str, commit: str) -> None:
        """Make a ref that is not there, and with a fence only while that is up: both in one transaction of git."""
        verify = f"verify {self.fence.ref} {self.fence.object}\n" if self.fence else ""
        for pause in (0.05, 0.2, 0.5, 1.0, 0.0):
            said = self._update_refs(f"{verify}create {ref} {commit}")
            if said is None:
                return
            if self.fence and self._try("rev-parse", "--verify", "-q", self.fence.ref) != self.fence.object:
                raise self._stale()
            if not any(sign in said for sign in _LOCKED) or "reference already exists" in said:
                break
            time.sleep(pause)
        if self._try("rev-parse", "--verify", "-q", ref) not in (None, commit):
            raise Conflict(f"{ref} exists already", fix="another run made it; start again")
        raise Broken(f"git update-ref failed: {said}", where=str(self.root))

    def _update_refs(self, commands: str) -> str | None:
        """Carry out commands of `git update-ref --stdin` as one transaction; None, or why git refused all of it."""
        text = f"start\n{commands}\nprepare\ncommit\n"
        command = ["git", "-C", str(self.root), "update-ref", "--stdin"]
        done = subprocess.run(command, capture_output=True, text=True, input=text)
        return None if done.returncode == 0 else done.stderr.strip() or f"it ended with {done.returncode}"

    def _stale(self) -> Stale:
        assert self.fence is not None
        return Stale(
            f"this run of {self.fence.model} was taken over (its fence is {self.fence.number}); nothing was changed",
            where=self.fence.ref,
            fix="nothing: the run that took over does the work",
        )

    def refs(self, prefix: str) -> dict[str, str]:
        """Name below refs/tags/tuneline/ → commit, for every ref under `prefix`/; of all models, when it is empty."""
        listed = self._run("for-each-ref", "--format=%(objectname) %(refname)", f"{REFS}/{prefix}/" if prefix else f"{REFS}/")
        rows = (line.split(" ", 1) for line in listed.splitlines())
        return {name.removeprefix(f"{REFS}/"): commit for commit, name in rows}

    def show(self, commit: str, path: str) -> bytes | None:
        """A file's bytes at a commit, or None if it is not there."""
        done = subprocess.run(["git", "-C", str(self.root), "cat-file", "blob", f"{commit}:{path}"], capture_output=True)
        return done.stdout if done.returncode == 0 else None

    def message(self, commit: str) -> str:
        return self._run("log", "-1", "--format=%B", commit)

    def commits(self, prefix: str) -> dict[str, Commit]:
        """Name below refs/tags/tuneline/ → the commit, for every ref under `prefix`/, by one call of git."""
        fields = "%(refname)%00%(objectname)%00%(committerdate:iso-strict)%00%(contents:subject)"
        rows = (line.split("\0") for line in self._run("for-each-ref", f"--format={fields}", f"{REFS}/{prefix}/").splitlines())
        return {name.removeprefix(f"{REFS}/"): Commit(id, datetime.fromisoformat(at), words) for name, id, at, words in rows}

    def show_each(self, commits: Sequence[str], path: str) -> list[bytes | None]:
        """A file's bytes at each of the commits, None where it is not there, by one call of git."""
        asked = "".join(f"{commit}:{path}\n" for commit in commits).encode()
        command = ["git", "-C", str(self.root), "cat-file", "--batch"]
        stream = io.BytesIO(subprocess.run(command, input=asked, capture_output=True, check=True).stdout)
        found: list[bytes | None] = []
        for _ in commits:
            heading = stream.readline().split()
            if heading[-1:] == [b"missing"]:
                found.append(None)
            else:
                found.append(stream.read(int(heading[2])))
                stream.readline()
        return found

    def list_files(self, commit: str, folder: str) -> list[str]:
        return self._run("ls-tree", "-r", "--name-only", commit, "--", folder).splitlines()

    def bundle(self, target: Path) -> bool:
        """All of refs/tags/tuneline/ and what they stand on as one file; False, and no file, when there is no such ref."""
        if not self._run("for-each-ref", "--count=1", REFS):
            return False
        self._run("bundle", "create", "--quiet", str(target), f"--glob={REFS}/*")
        return True

    def unbundle(self, source: Path) -> None:
        """Bring the refs of such a file here. One that points elsewhere here is moved to where it pointed there."""
        self._run("fetch", "--quiet", "--no-tags", str(source), f"+{REFS}/*:{REFS}/*")

    def has_commit(self, commit: str) -> bool:
        return self._try("cat-file", "-e", f"{commit}^{{commit}}") is not None

    def verify_objects(self, commit: str) -> str | None:
        """What git finds wrong with a commit and all it reaches (objects re-hashed); None when whole."""
        done = subprocess.run(
            ["git", "-C", str(self.root), "fsck", "--no-dangling", "--no-progress", commit], capture_output=True, text=True
        )
        return None if done.returncode == 0 else (done.stderr or done.stdout).strip().splitlines()[0]

    def _run(self, *words: str, at: Path | None = None, env: dict[str, str] | None = None, input: str | None = None) -> str:
        command, said = ["git", "-C", str(at or self.root), *words], {**os.environ, **(env or {})}
        done = subprocess.run(command, capture_output=True, text=True, env=said, input=input)
        if done.returncode != 0:
            raise Broken(f"git {words[0]} failed: {done.stderr.strip()}", where=str(at or self.root))
        return done.stdout.strip()

    def _try(self, *words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(self.root), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None
