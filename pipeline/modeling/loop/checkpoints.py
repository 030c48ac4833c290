"""Checkpoints that are whole or not there: written aside, hashed, flushed to disk, then renamed into place.

A checkpoint is `checkpoint-STEP/` with `complete.json`, which lists the SHA-256 of every file. What is in the files is the
loop's business. A killed process leaves staging folders, a bad disk leaves torn files: neither is ever resumed from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.domain.record import canonical_json, digest_file
from pipeline.errors import Broken

MARKER = "complete.json"
WEIGHTS = "trained.safetensors"
LEARNER = "learner.safetensors"
CURVES = "curves.json"
LOOP = "loop.json"
BEST = "best.safetensors"
"""The weights with the least loss so far, where those are kept."""
NEEDED = frozenset({WEIGHTS, LEARNER, CURVES, LOOP, "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"})
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Found:
    """The newest whole checkpoint, if there is one, and a sentence for each newer one that was passed over."""

    path: Path | None
    step: int
    skipped: tuple[str, ...]


def staging(folder: Path) -> Path:
    """An empty folder beside the checkpoints of `folder`, to write the next one into."""
    path = folder / f".staging-{os.getpid()}"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in folder.glob(".staging-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def commit(written: Path, folder: Path) -> Path:
    """Make the staged checkpoint `written` (named checkpoint-STEP) one of `folder`'s, all of it or nothing.

    Raises Broken when a file that resuming needs was not written.
    """
    files = sorted(p for p in written.iterdir() if p.is_file())
    missing = sorted(NEEDED - {p.name for p in files})
    if missing:
        raise Broken(f"the checkpoint was written without {missing[0]}", where=str(written))
    for path in files:
        _flush(path)
    marker = {"step": _step(written), "files": {p.name: digest_file(p) for p in files}}
    (written / MARKER).write_text(canonical_json(marker) + "\n", encoding="utf-8")
    _flush(written / MARKER)
    _flush(written)
    target = folder / written.name
    shutil.rmtree(target, ignore_errors=True)  # a torn one of the same step, or rename would refuse
    written.rename(target)
    _flush(folder)
    return target


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints. Called after a new one is whole, never before."""
    for path in _newest_first(folder)[keep:]:
        # Aside first: a half-removed folder under its own name would look torn.
        aside = folder / f".staging-{os.getpid()}-old-{path.name}"
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def find_last_whole(folder: Path) -> Found:
    """The newest checkpoint in `folder` of which every file is there and has the bytes that were written."""
    skipped: list[str] = []
    for path in _newest_first(folder):
        problem = what_is_wrong(path)
        if problem is None:
            return Found(path, _step(path), tuple(skipped))
        skipped.append(f"{path.name}: {problem}")
    return Found(None, 0, tuple(skipped))


def what_is_wrong(path: Path) -> str | None:
    """Why a checkpoint cannot be resumed from; None when it can."""
    try:
        marker = json.loads((path / MARKER).read_bytes())
        step, files = marker["step"], dict(marker["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MARKER} is missing or torn"
    if step != _step(path):
        return f"{MARKER} is of step {step}"
    present = {p.name for p in path.iterdir()} - {MARKER}
    for name in sorted((NEEDED | files.keys()) - present):
        return f"{name} is missing"
    for name in sorted(present - files.keys()):
        return f"{name} was not there when it was written"
    for name, digest in sorted(files.items()):
        try:
            if (path / name).stat().st_size == 0:
                return f"{name} is empty"
            if digest_file(path / name) != digest:
                return f"{name} is not what was written"
        except OSError as error:
            return f"{name} cannot be read: {error}"
    if not files.keys() >= NEEDED:
        return f"{MARKER} does not list {min(NEEDED - files.keys())}"
    return None


def _newest_first(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name) and p.is_dir()] if folder.is_dir() else []
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else -1


def _flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
