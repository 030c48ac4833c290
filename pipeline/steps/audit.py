"""Say, and prove, what made a release: show its lineage, re-hash everything behind it, tell who held a stage when.

Nothing is changed here. A broken link is a value in the report, never an exception: an audit finishes and names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath

from pipeline.domain.erasure import erased_files, erasures
from pipeline.domain.evidence import COMMITTED
from pipeline.domain.lineage import LINKS, Chain, Holding, Lineage, ReadChain, holding, nodes, read_chain
from pipeline.domain.proof import AuditCheck, AuditReport, anchored, crossed, differences, fingerprints, released
from pipeline.domain.record import FileDigest, digest_bytes, digest_file
from pipeline.domain.release import Event, ModelVersion, holder, resolve, revoked, version_record
from pipeline.errors import Broken, Misuse
from pipeline.moving import known_events
from pipeline.ports import Anchors, Archive, Evidence, Ledger, Progress, Registry, StoredFile, silent
from pipeline.workspace import Workspace


def show(version: str, *, model: str, ledger: Ledger, archive: Archive, stages: Sequence[str] = ()) -> Lineage:
    """The records from a version (or the holder of a stage, or digits of a digest) back to its source files, and its events.

    Raises Misuse for an unknown model, version or stage; Broken or Tampered when a record cannot be read: verify says more.
    """
    events = known_events(model, ledger)
    record = version_record(events, resolve(events, version, stages))
    chain, read = read_chain(record, lambda digest: archive.record(record, digest))
    for name, said in read.broken.items():
        raise Broken(
            said, where=f"{name} record of version {record.version}", fix="tuneline audit verify names all that is broken"
        )
    return Lineage(
        model=model,
        version=record.version,
        stages=tuple(s for s in sorted({e.stage for e in events if e.stage}) if holder(events, s) == record.version),
        events=tuple(e for e in events if record.version in (e.version, e.leaves, *_behind(e))),
        nodes=nodes(chain, read.places),
    )


def verify(
    version: str,
    *,
    model: str,
    ledger: Ledger,
    registry: Registry,
    archive: Archive,
    stages: Sequence[str] = (),
    evidence: Evidence | None = None,
    anchors: Anchors | None = None,
    root: Path | None = None,
    progress: Progress = silent,
) -> AuditReport:
    """Re-hash everything from a release back to its sources. The first broken check is the link nearest to the release.

    evidence: the statements and signatures among the version's files are checked too. anchors: so is that every event which was
    anchored outside the ledger is still in it. root: where source files may still lie; one that changed since is told, not held
    against the release, whose rows are in the snapshot. A file that is gone and that an erased event lists was taken away on
    request, and is no break.
    Raises Misuse for an unknown model, version or stage.
    """
    checks = [AuditCheck(name="ledger", ok=False, detail=said) for said in ledger.verify()]
    events: tuple[Event, ...] = ()
    lost: list[AuditCheck] = []
    try:
        events = ledger.events(model)
        lost = [c for c in _anchors(model, events, anchors) if not c.ok]
        record = version_record(known_events(model, ledger), resolve(events, version, stages))
    except (Broken, Misuse) as error:
        if isinstance(error, Misuse) and not lost:
            raise
        said = f"the release cannot be looked up in a broken ledger: {_line(error)}"
        unknown = AuditCheck(name="release", ok=False, detail=said)
        return AuditReport(model=model, version=None, subject=None, checks=(*checks, *lost, unknown))
    if not checks:
        checks.append(AuditCheck(name="ledger", ok=True, detail=f"{len(events)} events of {model}, unbroken"))
    checks.extend(_anchors(model, events, anchors))
    chain, read = read_chain(record, lambda digest: archive.record(record, digest))
    erased = erased_files(events)
    for part in (
        _aliases(record, events, registry),
        _registered_files(record, registry, erased),
        _evidence(record, chain, registry, archive, evidence),
        _commit(record, archive),
        _records(chain, read, erased),
        crossed(chain),
        _starts(chain, ledger),
        _stored_files(chain, archive, erased, progress),
        _sources(chain, root),
    ):
        checks.extend(part)
    return AuditReport(model=model, version=record.version, subject=record.digest, checks=tuple(checks))


def at(model: str, stage: str, when: datetime, *, ledger: Ledger, stages: Sequence[str] = ()) -> Holding:
    """Who held `stage` at an instant, by which event, and until which. Raises Misuse for an unknown stage or a naive time."""
    if when.tzinfo is None:
        raise Misuse(f"{when.isoformat()} names no instant", fix="give it an offset, as in 2026-11-23T09:30+01:00")
    events = known_events(model, ledger)
    known = dict.fromkeys([*stages, *(e.stage for e in events if e.stage)])
    if stage not in known:
        raise Misuse(f"there is no stage {stage[:60]!r}", fix=f"stages: {', '.join(known) or 'none'}")
    return holding(events, model, stage, when)


def _behind(event: Event) -> tuple[str, ...]:
    """The versions that an erased record was behind."""
    return tuple(version for _, erasure in erasures([event]) for version in erasure.versions)


def _on_request(event: int) -> str:
    return f"erased on request (event {event} of the ledger)"


def _records(chain: Chain, read: ReadChain, erased: Mapping[str, int]) -> Iterator[AuditCheck]:
    """Each record of the chain. One that was erased on request is no break, nor is what only it names."""
    gone: set[str] = set()
    for name, _, named_by, field, _ in LINKS:
        detail, ok = read.broken.get(name) or read.places[name], name not in read.broken
        named = getattr(chain, named_by)
        if not ok and named is not None and (event := erased.get(getattr(named, field))):
            detail, ok = _on_request(event), True
        elif not ok and named_by in gone:
            detail, ok = f"not reached: the {named_by} record that names it was erased on request", True
        if ok and name in read.broken:
            gone.add(name)
        yield AuditCheck(name=f"{name} record", ok=ok, detail=detail)


def _starts(chain: Chain, ledger: Ledger) -> Iterator[AuditCheck]:
    """Each released adapter that training could begin from, against the ledger of its model."""
    for start in chain.starts.entries if chain.starts else ():
        try:
            events = ledger.events(start.model)
            found = version_record(events, start.version)
        except (Broken, Misuse) as error:
            yield AuditCheck(name=f"start {start.name}", ok=False, detail=f"{start.model}: {_line(error)}")
            continue
        yield released(start, found, revoked=start.version in revoked(events))


def _aliases(version: ModelVersion, events: tuple[Event, ...], registry: Registry) -> Iterator[AuditCheck]:
    """The registry's aliases and tags are a projection of the ledger; a hand may have moved them."""
    aliases = registry.aliases(version.name)
    for stage in sorted({e.stage for e in events if e.stage}):
        held, named = holder(events, stage), aliases.get(stage)
        if version.version not in (held, named):
            continue
        said = f"the ledger says {held or 'nobody'}, the registry's alias says {named or 'nobody'}"
        yield AuditCheck(name=f"alias {stage}", ok=held == named, detail=said)
    try:
        tags = registry.version_tags(version.name, version.version)
    except Misuse as error:
        yield AuditCheck(name="registry", ok=False, detail=_line(error))
        return
    wrong = [key for key, value in version.tags.items() if tags.get(key) != value]
    said = f"tags that are not the record's: {', '.join(wrong)}" if wrong else "the version's tags are the record's"
    yield AuditCheck(name="registry tags", ok=not wrong, detail=said)


def _registered_files(version: ModelVersion, registry: Registry, erased: Mapping[str, int]) -> Iterator[AuditCheck]:
    yield from _folder("model", version.files, lambda: registry.artifacts(version.name, version.version), {}, extra=False)
    if version.reports:
        # A run may log more after its model was registered, so further files are no fault there.
        yield from _folder("report", version.reports, lambda: registry.run_artifacts(version.run_id), erased, extra=True)


def _anchors(model: str, events: Sequence[Event], anchors: Anchors | None) -> Iterator[AuditCheck]:
    if anchors is None:
        return
    try:
        yield from anchored(events, anchors.anchored(model))
    except Broken as error:
        yield AuditCheck(name="anchors", ok=False, detail=_line(error))


def _evidence(
    version: ModelVersion, chain: Chain, registry: Registry, archive: Archive, evidence: Evidence | None
) -> Iterator[AuditCheck]:
    if evidence is None:
        return
    try:
        folder = registry.artifacts(version.name, version.version)
        contents = {path: archive.committed(version, path) for path in COMMITTED}
    except (Broken, Misuse) as error:
        yield AuditCheck(name="evidence", ok=False, detail=_line(error))
        return
    committed = {path: digest_bytes(content) if content is not None else None for path, content in contents.items()}
    yield from evidence.check(version, chain, folder, committed)


def _commit(version: ModelVersion, archive: Archive) -> Iterator[AuditCheck]:
    problem = archive.commit_problem(version)
    yield AuditCheck(name="run commit", ok=problem is None, detail=problem or f"{version.tag}, {version.commit[:12]}")


def _folder(
    name: str, files: Sequence[FileDigest], find: Callable[[], Path], erased: Mapping[str, int], *, extra: bool
) -> Iterator[AuditCheck]:
    gone: list[FileDigest] = []
    try:
        folder = find()
        gone = [file for file in files if file.sha256 in erased and not (folder / file.path).exists()]
        wrong = differences(folder, [file for file in files if file not in gone], extra=extra)
    except (Broken, Misuse) as error:
        wrong = (_line(error),)
    yield from (AuditCheck(name=f"{name} file", ok=False, detail=said) for said in wrong)
    for file in gone:
        yield AuditCheck(name=f"{name} file", ok=True, detail=f"{file.path}: {_on_request(erased[file.sha256])}")
    if not wrong:
        yield AuditCheck(name=f"{name} files", ok=True, detail=f"{len(files) - len(gone)} files as registered")


def _stored_files(chain: Chain, archive: Archive, erased: Mapping[str, int], progress: Progress) -> Iterator[AuditCheck]:
    """Every stored copy of every tracked file against the record that names it, and against the name it is stored under."""
    recorded = _recorded_files(chain)
    left = set(recorded)
    whole = 0
    stored = archive.files(chain.version)
    while True:
        try:
            file = next(stored, None)
        except Broken as error:
            yield AuditCheck(name="data file", ok=False, detail=_line(error))
            break
        if file is None:
            break
        left.discard(file.path)
        event = erased.get(file.md5 or "") or erased.get(recorded.get(file.path, ""))
        if event is not None and not file.stored.exists():
            yield AuditCheck(name="data file", ok=True, detail=f"{file.path}: {_on_request(event)}")
            continue
        wrong = _wrong_copy(file, recorded.get(file.path))
        if wrong:
            yield AuditCheck(name="data file", ok=False, detail=f"{file.path}: {wrong}")
        whole += not wrong
        progress(f"re-hashed {file.path}", whole, 0)
    for path in sorted(left):
        yield AuditCheck(name="data file", ok=False, detail=f"{path}: recorded, but not found in the data store")
    yield AuditCheck(
        name="data files", ok=True, detail=f"{whole} stored copies are whole, {len(recorded)} files are named by records"
    )


def _wrong_copy(file: StoredFile, recorded: str | None) -> str | None:
    try:
        sha256, md5 = fingerprints(file.stored)
    except Broken as error:
        return _line(error)
    if file.md5 is not None and md5 != file.md5.removesuffix(".dir"):
        return f"{file.stored} does not have the MD5 it is stored under"
    if recorded is not None and sha256 != recorded:
        return f"{file.stored} does not have the recorded digest {recorded[:12]}"
    return None


def _recorded_files(chain: Chain) -> dict[str, str]:
    """Path in the run's folder → SHA-256, for every file that a readable record of the chain names, and for the records."""
    run = Workspace(Path())
    named: list[tuple[Path, str]] = []
    if chain.snapshot:
        listed = (*chain.snapshot.shards, *chain.snapshot.quarantine, *chain.snapshot.described)
        named += [(run.snapshot / s.path, s.sha256) for s in listed]
        named.append((run.snapshot_record, chain.snapshot.digest))
    if chain.splits:
        sides = (*chain.splits.train.parts, *chain.splits.eval.parts, *chain.splits.test.parts, *chain.splits.sides)
        named += [(run.splits / s.path, s.sha256) for s in sides]
        named += [(run.splits / s.path, s.sha256) for s in [chain.splits.leaks] if s]
        named.append((run.splits_record, chain.splits.digest))
    if chain.curation:
        kept = (chain.curation.dropped, *chain.curation.review)
        named += [(run.curation / f.path, f.sha256) for f in kept]
        named.append((run.curation_record, chain.curation.digest))
    if chain.frozen:
        named += [(run.frozen / f.path, f.sha256) for f in chain.frozen.sides]
        named.append((run.frozen_record, chain.frozen.digest))
    if chain.reserved:
        listed = (*chain.reserved.shards, *chain.reserved.quarantine, *chain.reserved.described)
        named += [(run.reserved / f.path, f.sha256) for f in listed]
        named.append((run.reserved_record, chain.reserved.digest))
    if chain.training:
        named += [(run.training / "adapter" / f.path, f.sha256) for f in chain.training.adapter]
        named.append((run.training_record, chain.training.digest))
    if chain.starts:
        named.append((run.starts_record, chain.starts.digest))
    if chain.evaluation:
        named.append((run.evaluation / chain.evaluation.predictions.path, chain.evaluation.predictions.sha256))
        named.append((run.evaluation_record, chain.evaluation.digest))
    if chain.validation:
        named.append((run.validation_record, chain.validation.digest))
    if chain.champion:
        named.append((run.champion_record, chain.champion.digest))
    return {path.as_posix(): digest for path, digest in named}


def _sources(chain: Chain, root: Path | None) -> Iterator[AuditCheck]:
    for source in chain.snapshot.sources if chain.snapshot else ():
        said = f"{source.name}: {source.sha256[:12]}, {source.accepted} of {source.read} rows accepted"
        place = _inside(root, source.name)
        if place is not None:
            same = digest_file(place) == source.sha256
            said += "; still there, unchanged" if same else "; the source has moved on since (its rows are in the snapshot)"
        yield AuditCheck(name="source", ok=True, detail=said)


def _inside(root: Path | None, name: str) -> Path | None:
    """The plain file that a record calls `name`, if it is still there and inside `root`."""
    parts = PurePosixPath(name)
    if root is None or parts.is_absolute() or ".." in parts.parts:
        return None
    place = root / parts
    return place if place.is_file() and not place.is_symlink() else None


def _line(error: Broken | Misuse) -> str:
    return str(error).splitlines()[0]
