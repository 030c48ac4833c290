"""Whether a release is what its records say: files against digests, records against one another. Findings are values.

Hashing files is the only thing done here beside deciding; finding files and records is the steps' work, through ports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pipeline.domain.gating import Outcome
from pipeline.domain.lineage import Chain
from pipeline.domain.model import Start, Starts, TrainingRun
from pipeline.domain.record import FileDigest, Record, Value, describe_files, digest_file
from pipeline.domain.release import Event, ModelVersion
from pipeline.errors import Broken

_PIECE = 1 << 22

LOADING_LEAVES = frozenset({"__pycache__", "registered_model_meta"})
"""What loading a model in place writes beside it: Python its bytecode, MLflow the name and version it was asked for. Neither
is read as part of the model, so neither is recorded, nor held against a version."""


class AuditCheck(Value):
    """One thing that was checked, and what was found. `detail` is a sentence for people."""

    name: str
    ok: bool
    detail: str


class Anchor(Value):
    """Where a model's ledger ended at some time, as it was written outside the ledger. where: the place, for people."""

    where: str
    sequence: int
    digest: str


class AuditReport(Record):
    """Everything between a release and its sources, re-hashed. Checks go from the release back to the sources."""

    kind: ClassVar[str] = "audit_report"

    model: str
    version: str | None
    subject: str | None
    checks: tuple[AuditCheck, ...]

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(c.ok for c in self.checks)

    @property
    def broken(self) -> tuple[AuditCheck, ...]:
        """Failed checks; the first is the broken link nearest to the release."""
        return tuple(c for c in self.checks if not c.ok)


def differences(folder: Path, files: Sequence[FileDigest], *, extra: bool = False) -> tuple[str, ...]:
    """Everything wrong with `folder` against the recorded `files`, a sentence each. extra: further files are no fault."""
    wrong = []
    recorded = {f.path: f for f in files}
    for path, file in sorted(recorded.items()):
        place = folder / path
        if place.is_symlink() or not place.is_file():
            wrong.append(f"{place} is missing")
            continue
        try:
            same = digest_file(place) == file.sha256
        except OSError as error:
            wrong.append(f"{place} cannot be read: {error.strerror}")
            continue
        if not same:
            wrong.append(f"{place} does not have the recorded digest {file.sha256[:12]}")
    if not extra and folder.is_dir():
        for place in sorted(folder.rglob("*")):
            inside = place.relative_to(folder)
            folder_only = place.is_dir() and not place.is_symlink()
            if not (inside.as_posix() in recorded or folder_only or LOADING_LEAVES.intersection(inside.parts)):
                wrong.append(f"{place} was not there when this was recorded")
    return tuple(wrong)


def recordable_files(folder: Path) -> tuple[FileDigest, ...]:
    """The files of `folder` that a record names: all but byte code. Symlinks and special files raise Broken."""
    return tuple(f for f in describe_files(folder) if not LOADING_LEAVES.intersection(PurePosixPath(f.path).parts))


def adapter_folder(files: Sequence[FileDigest], adapter: Sequence[FileDigest]) -> str | None:
    """The folder among a version's files that is the trained adapter, file by file; None if there is none."""
    if not adapter:
        return None
    present = {f.path: f.sha256 for f in files}
    first = adapter[0].path
    for path in sorted(present):
        if path == first or path.endswith(f"/{first}"):
            folder = path.removesuffix(first)
            if all(present.get(folder + f.path) == f.sha256 for f in adapter):
                return folder.rstrip("/")
    return None


def anchored(events: Sequence[Event], anchors: Sequence[Anchor]) -> Iterator[AuditCheck]:
    """Whether every event that was anchored outside the ledger is still in it. What is newer than the last anchor is told."""
    there = {event.sequence: event.digest for event in events}
    for anchor in anchors:
        name, here, last = f"anchor {anchor.sequence}", there.get(anchor.sequence), max(there, default=0)
        if here is None:
            said = f"event {anchor.sequence} was anchored at {anchor.where}, and the ledger ends with {last}"
            yield AuditCheck(name=name, ok=False, detail=f"{said}: it was cut off, or is an old copy")
        elif here != anchor.digest:
            said = f"event {anchor.sequence} is not the one that was anchored at {anchor.where}"
            yield AuditCheck(name=name, ok=False, detail=f"{said}: the ledger was forked or rewritten")
    newest = max((a.sequence for a in anchors), default=0)
    beyond = len([n for n in there if n > newest])
    if not anchors:
        said = "no event was anchored outside the ledger"
    else:
        places = len({a.where for a in anchors})
        said = f"up to event {newest} by {places} anchors" + (f", {beyond} newer events are not yet" if beyond else "")
    yield AuditCheck(name="anchors", ok=True, detail=said)


def crossed(chain: Chain) -> Iterator[AuditCheck]:
    """Whether the records of a chain speak of each other: a check for every place where two of them name the same thing."""
    version, decision, training = chain.version, chain.decision, chain.training
    evaluation, splits, validation, curation = chain.evaluation, chain.splits, chain.validation, chain.curation
    if decision:
        passed = decision.verdict is Outcome.PASSED
        yield _check("gate verdict", passed, "the gate passed this candidate", f"the gate said {decision.verdict.value}")
        yield _same("decision names evaluation", decision.evaluation, version.evaluation)
        yield _same("decision names training", decision.training, version.training)
        yield _same("decision names adapter", decision.adapter_digest, version.adapter_digest)
    if evaluation:
        yield _same("evaluation names training", evaluation.training, version.training)
        measured = evaluation.subject("candidate")
        yield _same("evaluation measured adapter", measured.identity if measured else "", version.adapter_digest)
        if chain.champion:
            held = evaluation.subject("champion")
            yield _same("evaluation measured champion", held.identity if held else "", chain.champion.adapter_digest or "")
    if training:
        yield _same("training made adapter", training.adapter_digest, version.adapter_digest)
        found = adapter_folder(version.files, training.adapter)
        fine = "the registered files hold the trained adapter"
        yield _check("registered adapter", found is not None, fine, "the registered files do not hold the trained adapter")
        yield from _stages(training, chain.starts)
    if evaluation and training:
        yield _same("evaluation and training share splits", evaluation.splits, training.splits)
    if evaluation and splits:
        yield _same("evaluation used the test split", evaluation.test, splits.test.sha256)
    if splits and curation:
        yield _same("curation is of the split snapshot", curation.snapshot, splits.snapshot)
        yield _same("curation names validation", curation.validation, splits.validation)
        yield _check("curation verdict", curation.passed, "curation had passed", "curation had failed its checks")
        yield _check("no leaks", splits.passed, "nothing trained on was held out", "rows to train on were held out too")
    if splits and validation:
        yield _same("validation is of the split snapshot", validation.snapshot, splits.snapshot)
        yield _check(
            "validation verdict", validation.passed, "the snapshot had passed its checks", "the snapshot had failed its checks"
        )


def released(start: Start, version: ModelVersion, *, revoked: bool) -> AuditCheck:
    """Whether what training could begin from is the version it is said to be. A later revocation is told, and is no break."""
    same = (start.training, start.adapter_digest) == (version.training, version.adapter_digest)
    fine = f"{start.model} version {start.version}, {start.adapter_digest[:12]}" + (", revoked by now" if revoked else "")
    wrong = f"its training {start.training[:12]} is not that of {start.model} version {start.version}"
    return _check(f"start {start.name}", same, fine, wrong)


def _stages(training: TrainingRun, starts: Starts | None) -> Iterator[AuditCheck]:
    """Whether each stage of a training began from the base, from what an earlier one made, or from a released adapter."""
    made: dict[str, str] = {}
    for stage in training.stages:
        name = stage.start_from.split(" ")[0]
        entry = starts.named(name) if starts else None
        if name == "base":
            yield _same(f"stage {stage.name} began from base", stage.start, training.base.digest)
        elif name.startswith("stage:"):
            yield _same(f"stage {stage.name} began from {name}", stage.start, made.get(name.removeprefix("stage:"), ""))
        elif entry is not None or (starts is not None and not name.startswith("./")):
            yield _same(f"stage {stage.name} began from {name}", stage.start, entry.adapter_digest if entry else "")
        made[stage.name] = stage.adapter_digest
    last = training.stages[-1].adapter_digest if training.stages else ""
    yield _same("last stage made adapter", last, training.adapter_digest)


def fingerprints(path: Path) -> tuple[str, str]:
    """(SHA-256, MD5) of a file in one reading; MD5 is the name that DVC knows it by. Raises Broken if it cannot be read.

    Of a large file the two are computed side by side.
    """
    if path.exists() and not path.is_file():
        raise Broken(f"{path} is no plain file")  # reading a pipe would never end
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file, ThreadPoolExecutor(1) as beside:
            later: Future[None] | None = None
            while piece := file.read(_PIECE):
                if len(piece) < _PIECE and later is None:
                    md5.update(piece)
                else:
                    if later is not None:
                        later.result()
                    later = beside.submit(md5.update, piece)
                sha256.update(piece)
    except OSError as error:
        raise Broken(f"{path} cannot be read: {error.strerror}") from error
    return sha256.hexdigest(), md5.hexdigest()


def _same(name: str, named: str, expected: str) -> AuditCheck:
    return _check(
        name, named == expected, expected[:12] or "none", f"it names {named[:12] or 'none'}, not {expected[:12] or 'any'}"
    )


def _check(name: str, ok: bool, fine: str, wrong: str) -> AuditCheck:
    return AuditCheck(name=name, ok=ok, detail=fine if ok else wrong)
