"""Gather one release with all that proves it: files, records, ledger, statements, keys, and how a stranger checks them.

Nothing is written here: what is gathered is named, in order, and a backend packs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.domain.evidence import COMMITTED, KEY, has_evidence, release_statement
from pipeline.domain.lineage import LINKS, read_chain
from pipeline.domain.record import canonical_json, digest_bytes
from pipeline.domain.release import Event, ModelVersion, holder, registrations, resolve, version_record
from pipeline.errors import Broken, Misuse
from pipeline.moving import known_events, refuse_damaged
from pipeline.pages.evidence_readme import evidence_readme
from pipeline.ports import Anchors, Archive, Evidence, Ledger, Registry

Content = bytes | Path


def gather(
    version: str,
    *,
    model: str,
    ledger: Ledger,
    registry: Registry,
    archive: Archive,
    evidence: Evidence,
    anchors: Anchors,
    requirements: Callable[[], str],
    stages: Sequence[str] = (),
) -> tuple[ModelVersion, dict[str, Content]]:
    """The version, and its archive: path → bytes, or the file that holds them. The same ledger gives the same archive.

    Raises Misuse for a version from before evidence, Tampered when a file is not the registered one, Broken for a lost record.
    """
    events = known_events(model, ledger)
    record = version_record(events, resolve(events, version, stages))
    if not has_evidence(record):
        raise Misuse(
            f"version {record.version} was made before evidence, so there is nothing a stranger could verify",
            fix="export a newer version; tuneline audit verify still proves this one here",
        )
    refuse_damaged(record, registry)
    folder = registry.artifacts(model, record.version)
    content: dict[str, Content] = {f"release/{file.path}": folder / file.path for file in record.files}
    content |= _records(record, archive)
    content |= {f"code/{path}": found for path in COMMITTED if (found := archive.committed(record, path)) is not None}
    head, kept = events[-1], anchors.anchored(model)
    since = registrations(events)[record.version].sequence
    content["ledger/events.jsonl"] = "".join(e.to_json() for e in events if e.sequence >= since).encode()
    told = [{"sequence": a.sequence, "sha256": a.digest, "where": _public(a.where)} for a in kept]
    holds = [s for s in sorted({e.stage for e in events if e.stage}) if holder(events, s) == record.version]
    statement = release_statement(record, concerning(events, record.version), holds, head, told)
    content["ledger/anchors.json"] = (canonical_json(told) + "\n").encode()
    content["release.intoto.json"] = evidence.release(statement)
    keys = {"release.pem": (folder / KEY).read_bytes(), "export.pem": evidence.public_key}
    content |= {f"keys/{name}": pem for name, pem in keys.items()}
    content["requirements.txt"] = requirements().encode()
    fingerprints = {name: digest_bytes(pem) for name, pem in keys.items()}
    readme = evidence_readme(name=model, version=record.version, commit=record.commit, tag=record.tag, keys=fingerprints)
    content["README.md"] = readme.encode()
    return record, dict(sorted(content.items()))


def concerning(events: Sequence[Event], version: str) -> tuple[Event, ...]:
    """The events in which a version took or left a stage, was approved, revoked or registered."""
    return tuple(e for e in events if version in (e.version, e.leaves))


def _records(record: ModelVersion, archive: Archive) -> dict[str, Content]:
    chain, read = read_chain(record, lambda digest: archive.record(record, digest))
    for name, said in read.broken.items():
        raise Broken(f"the {name} record cannot be exported: {said}", fix="tuneline audit verify names all that is broken")
    found: dict[str, Content] = {"records/version.json": record.to_json().encode()}
    return found | {f"records/{name}.json": getattr(chain, name).to_json().encode() for name, *_ in LINKS}


def _public(where: str) -> str:
    """A tag is told to strangers, a place on this machine or an account's bucket is not."""
    return where if where.startswith("refs/tags/") else "a store outside git"
