"""Anchors: where the ledger ended, written outside its database, so that a cut-off or an old copy of it shows.

In git each anchor is a commit of its own under refs/tags/tuneline/MODEL/anchor/SEQUENCE, on top of the anchor before it; a tag is
never moved, so whoever has fetched it holds the proof. A second store is a folder or any address that fsspec knows. An anchor
that could not be written is told, and the next one stands for it: an event's digest covers all events before it.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.backends.git import REFS, Git
from pipeline.backends.write_once import write_once
from pipeline.domain.proof import Anchor
from pipeline.domain.record import canonical_json
from pipeline.domain.release import Event
from pipeline.errors import Broken, TunelineError

PATIENCE = 5.0
"""Seconds that a promotion waits for a store outside git; what takes longer goes on by itself, or is repaired by the next."""
MOST_BYTES = 4096
_NAME = re.compile(r"[0-9]{10}")


class Store(Protocol):
    """Keeps anchors, each for good."""

    @property
    def where(self) -> str: ...

    def put(self, model: str, sequence: int, digest: str) -> None:
        """Keep an anchor. The same again does nothing; another digest for the same sequence raises Broken."""
        ...

    def all(self, model: str) -> Iterator[Anchor]: ...


class Anchors:
    """All stores of a project. Implements ports.Anchors."""

    def __init__(self, stores: Sequence[Store], tell: Callable[[str], None] = lambda _: None) -> None:
        self._stores = tuple(stores)
        self._tell = tell

    def anchor(self, model: str, sequence: int, digest: str) -> None:
        """Write where the ledger of `model` ends into every store. Never raises and never blocks: what fails is told."""
        for store in self._stores:
            problem = _in_time(lambda store=store: store.put(model, sequence, digest))  # type: ignore[misc]
            if problem:
                self._tell(f"event {sequence} of {model} is not anchored in {store.where}: {problem}; the next event is")

    def after(self, event: Event) -> None:
        """Anchor a committed event; the hook of pipeline/moving.py."""
        self.anchor(event.model, event.sequence, event.digest)

    def anchored(self, model: str) -> tuple[Anchor, ...]:
        """What every store holds, by sequence. Raises Broken when a store cannot be read, or holds what is no anchor."""
        return tuple(sorted((a for store in self._stores for a in store.all(model)), key=lambda a: (a.sequence, a.where)))


class GitAnchors:
    """Anchors as commits under tags of their own. Nobody's branch is touched."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self.where = "git"

    def put(self, model: str, sequence: int, digest: str) -> None:
        names = self._git.refs(f"{model}/anchor")
        name = f"{model}/anchor/{sequence:010d}"
        if name in names:
            self._refuse_other(names[name], name, digest)
            return
        before = max((n for n in names if n < name), default=None)
        content = canonical_json({"model": model, "sequence": sequence, "digest": digest}) + "\n"
        commit = self._git.commit_file(
            "anchor.json", content, f"{model}: ledger event {sequence}", names[before] if before else None
        )
        try:
            self._git.create_ref(name, commit)
        except TunelineError:
            # Someone was faster with the same event.
            there = self._git.refs(f"{model}/anchor").get(name)
            if there is None:
                raise
            self._refuse_other(there, name, digest)

    def all(self, model: str) -> Iterator[Anchor]:
        names = sorted(self._git.refs(f"{model}/anchor").items())
        for (name, _), content in zip(names, self._git.show_each([c for _, c in names], "anchor.json"), strict=True):
            if not _NAME.fullmatch(name.rsplit("/", 1)[1]):
                raise Broken(
                    "this tag is no anchor", where=f"{REFS}/{name}", fix="git tag --delete it, once you know whose it is"
                )
            yield _parsed(content or b"", model, int(name.rsplit("/", 1)[1]), f"{REFS}/{name}")

    def _refuse_other(self, commit: str, name: str, digest: str) -> None:
        content = self._git.show(commit, "anchor.json") or b""
        there = _parsed(content, name.split("/", 1)[0], int(name.rsplit("/", 1)[1]), f"{REFS}/{name}")
        _refuse_fork(there, digest)


class FolderAnchors:
    """Anchors as files MODEL/SEQUENCE.json below a folder, or below any address of fsspec (s3://…), whose options come from the
    environment as fsspec's own settings do."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.where = re.sub(r"//[^/@]*@", "//", address)  # no name or password in a message

    def put(self, model: str, sequence: int, digest: str) -> None:
        files, root = self._files()
        place = f"{root}/{model}/{sequence:010d}.json"
        if files.exists(place):
            _refuse_fork(_parsed(self._read(files, place), model, sequence, place), digest)
            return
        files.makedirs(f"{root}/{model}", exist_ok=True)
        content = (canonical_json({"model": model, "sequence": sequence, "digest": digest}) + "\n").encode()
        if getattr(files, "protocol", None) in ("file", ("file", "local")):
            write_once(Path(place), content, mode=0o644)  # for others to read
        else:
            files.pipe_file(place, content)
        _refuse_fork(_parsed(self._read(files, place), model, sequence, place), digest)

    def all(self, model: str) -> Iterator[Anchor]:
        try:
            files, root = self._files()
            files.invalidate_cache()
            folder = f"{root}/{model}"
            listed = sorted(files.ls(folder, detail=False)) if files.exists(folder) else []
            read = [(str(place), self._read(files, place)) for place in listed if not Path(str(place)).name.startswith(".")]
        except TunelineError:
            raise
        except Exception as error:  # every file system has its own
            raise Broken(f"the anchors cannot be read: {type(error).__name__}", where=self.where) from error
        for place, content in read:
            name = Path(place).name.removesuffix(".json")
            if not _NAME.fullmatch(name):
                raise Broken("this file is no anchor", where=place, fix="remove it, once you know whose it is")
            yield _parsed(content, model, int(name), place)

    def _files(self) -> tuple[Any, str]:
        import fsspec

        files, root = fsspec.url_to_fs(self._address)
        return files, str(root).rstrip("/")

    @staticmethod
    def _read(files: Any, place: str) -> bytes:
        with files.open(place, "rb") as file:
            content: bytes = file.read(MOST_BYTES)
        return content


def _parsed(content: bytes, model: str, sequence: int, where: str) -> Anchor:
    """An anchor as it was written, under the name that it was written under. Raises Broken."""
    try:
        said = json.loads(content)
        found = Anchor(where=where, sequence=said["sequence"], digest=said["digest"])
        if (said["model"], found.sequence) == (model, sequence) and re.fullmatch(r"[0-9a-f]{64}", found.digest):
            return found
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise Broken("this anchor was changed", where=where, fix="compare it with a copy that was fetched or backed up")


def _refuse_fork(there: Anchor, digest: str) -> None:
    if there.digest != digest:
        fix = "tuneline audit verify says which one the ledger has; two ledgers write for one model, or one was rewritten"
        raise Broken(f"event {there.sequence} was anchored with another digest", where=there.where, fix=fix)


def _in_time(work: Callable[[], None]) -> str | None:
    """Do `work`, for at most PATIENCE seconds, and say what went wrong."""
    wrong: list[str] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # anything at all must be told, and nothing may stop a promotion
            wrong.append(str(error).splitlines()[0] if isinstance(error, TunelineError) else f"{type(error).__name__}")

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        return f"no answer within {PATIENCE:g} s"
    return wrong[0] if wrong else None


def stores_of(git: Git, further: Iterable[str]) -> tuple[Store, ...]:
    """Git first, then each further address."""
    return (GitAnchors(git), *(FolderAnchors(address) for address in further))
