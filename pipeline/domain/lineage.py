"""What made a release: the records behind a version, the events that concern it, and who held a stage when. Pure values.

Fetching the records is done by the steps, through ports; whether they are whole and belong together is domain/proof.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.domain.curated import Curation, Frozen, Splits
from pipeline.domain.data import Snapshot, ValidationReport
from pipeline.domain.gating import GateDecision
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import Champion, StageRun, Starts, TrainingRun
from pipeline.domain.record import Record, Value
from pipeline.domain.reigns import reigns
from pipeline.domain.release import Event, ModelVersion
from pipeline.errors import Broken


class LineageNode(Value):
    """A record or source behind a version. depth: steps from the version. facts: what a person wants to know of it."""

    kind: str
    digest: str
    depth: int
    where: str
    facts: dict[str, str]
    parents: tuple[str, ...] = ()


class Lineage(Value):
    """A version, the ledger events that concern it, and what made it, from the release back to the sources."""

    model: str
    version: str
    stages: tuple[str, ...]
    events: tuple[Event, ...]
    nodes: tuple[LineageNode, ...]


class Holding(Value):
    """Who held a stage at an instant, and the event that made it so (`version` and `event` None: nobody)."""

    model: str
    stage: str
    at: str
    version: str | None
    event: Event | None
    until: Event | None


@dataclass(frozen=True, slots=True)
class Chain:
    """The records behind a version, as far as they could be read."""

    version: ModelVersion
    decision: GateDecision | None = None
    evaluation: EvaluationReport | None = None
    training: TrainingRun | None = None
    starts: Starts | None = None
    champion: Champion | None = None
    splits: Splits | None = None
    curation: Curation | None = None
    frozen: Frozen | None = None
    reserved: Snapshot | None = None
    validation: ValidationReport | None = None
    snapshot: Snapshot | None = None


LINKS: tuple[tuple[str, type[Record], str, str, int], ...] = (
    ("decision", GateDecision, "version", "decision", 1),
    ("evaluation", EvaluationReport, "version", "evaluation", 2),
    ("champion", Champion, "evaluation", "champion", 3),
    ("training", TrainingRun, "version", "training", 2),
    ("starts", Starts, "training", "starts", 3),
    ("splits", Splits, "training", "splits", 3),
    ("curation", Curation, "splits", "curation", 4),
    ("frozen", Frozen, "splits", "frozen", 4),
    ("reserved", Snapshot, "splits", "reserved", 4),
    ("validation", ValidationReport, "splits", "validation", 4),
    ("snapshot", Snapshot, "splits", "snapshot", 5),
)
"""Place in a chain, its type, the place of the record that names it, the field that does, and its distance from the version."""


class ReadChain(Value):
    """What reading a chain found: place → where it was read, and place → what is wrong with it."""

    places: dict[str, str]
    broken: dict[str, str]


def read_chain(version: ModelVersion, fetch: Callable[[str], tuple[str, str]]) -> tuple[Chain, ReadChain]:
    """Follow the digests from a version back to its snapshot. fetch: digest → (JSON text, where it was read), or Broken."""
    found: dict[str, Any] = {"version": version}
    places: dict[str, str] = {}
    broken: dict[str, str] = {}
    for name, kind, named_by, field, _ in LINKS:
        if named_by not in found:
            broken[name] = f"not reached: the {named_by} record that names it is broken"
            continue
        digest = getattr(found[named_by], field)
        try:
            text, places[name] = fetch(digest)
            found[name] = kind.from_json(text, where=places[name], digest=digest)
        except Broken as error:
            broken[name] = f"{str(error).splitlines()[0]} (digest {digest[:12]})"
    return Chain(**found), ReadChain(places=places, broken=broken)


def nodes(chain: Chain, places: Mapping[str, str]) -> tuple[LineageNode, ...]:
    """A chain as a tree, from the version back to the source files."""
    listed = [_node(chain.version, 0, "ledger", "version")]
    listed += [_node(record, depth, places[name], name) for name, _, _, _, depth in LINKS if (record := getattr(chain, name))]
    for source in chain.snapshot.sources if chain.snapshot else ():
        rows = {"accepted": source.accepted, "duplicate": source.duplicate, "quarantined": source.quarantined}
        said = {key: str(value) for key, value in rows.items()}
        listed.append(LineageNode(kind="source", digest=source.sha256, depth=6, where=source.name, facts=said))
    return tuple(listed)


def holding(events: Sequence[Event], model: str, stage: str, when: datetime) -> Holding:
    """Who held `stage` at an instant. An event counts from the latest time written so far, see domain/release.py `until`."""
    counts_from: dict[int, datetime] = {}
    for event in events:
        counts_from[event.sequence] = max(event.at, counts_from.get(event.sequence - 1, event.at))
    for reign in reigns(events, stage):
        ended = reign.until is not None and counts_from[reign.until.sequence] <= when
        if counts_from[reign.since.sequence] <= when and not ended:
            said = {"version": reign.version, "event": reign.since, "until": reign.until}
            break
    else:
        said = {"version": None, "event": None, "until": None}
    return Holding.model_validate({"model": model, "stage": stage, "at": when.isoformat(), **said})


def facts(record: Record) -> dict[str, str]:
    """The few things of a record that a person asks for first."""
    match record:
        case ModelVersion():
            return {"run": record.run_id, "tag": record.tag, "commit": record.commit[:12], "files": str(len(record.files))} | (
                {"dirty": "made from uncommitted changes"} if record.dirty else {}
            )
        case GateDecision():
            return {"verdict": record.verdict.value} | {c.name: c.detail for c in record.checks}
        case EvaluationReport():
            measured = record.subject("candidate")
            values = {m.metric: f"{m.value:.4g} [{m.low:.4g}, {m.high:.4g}]" for m in measured.metrics} if measured else {}
            return {"test rows": str(record.rows)} | values
        case TrainingRun():
            base = record.base.id + (f" at {record.base.revision[:12]}" if record.base.revision else "")
            made = {"base": base, "adapter": record.adapter_digest, "steps": str(record.steps), "rows": str(record.train_rows)}
            return made | {f"stage {stage.name}": _told(stage) for stage in record.stages}
        case Starts():
            begun = {
                start.name: f"{start.model} version {start.version}, {start.adapter_digest[:12]}" for start in record.entries
            }
            return begun or {"adapters": "none"}
        case Champion():
            return {"version": record.version or "nobody held production"}
        case Splits():
            return {name: f"{getattr(record, name).rows} rows" for name in ("train", "eval", "test")}
        case Curation():
            return {rule.rule: f"{rule.found} found, {rule.dropped} left out" for rule in record.rules}
        case Frozen():
            return {"groups": str(sum(file.rows for file in record.sides))}
        case ValidationReport():
            return {
                "checks": f"{len(record.checks) - len(record.failures)} of {len(record.checks)} passed",
                "rows": str(record.rows),
            }
        case Snapshot():
            return {"dataset": record.dataset, "rows": str(record.rows), "quarantined": str(record.quarantined)}
    return {}


def _told(stage: StageRun) -> str:
    """What a training stage did, and the digests that link it to what it began from."""
    begun = f"from {stage.start_from} {stage.start[:12]}"
    return f"{stage.objective} by {stage.tuner}, {stage.steps} steps, {begun}, made {stage.adapter_digest[:12]}"


def _node(record: Record, depth: int, where: str, place: str) -> LineageNode:
    said = facts(record)
    # A chain has two snapshots: what was split, and what was reserved.
    kind = place if place == "reserved" else record.kind
    return LineageNode(kind=kind, digest=record.digest, depth=depth, where=where, facts=said, parents=record.parents)
