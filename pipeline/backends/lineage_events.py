"""Lineage as OpenLineage events, written by the library's own file transport: what each step read and made, by digest.

A record has no time of its own (the same work gives the same record), so the steps of a run bear the time of the registration
that ended it; promotions bear theirs. Nothing is sent anywhere.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from pipeline.domain.lineage import Lineage, LineageNode
from pipeline.domain.release import OPINIONS, Event, EventKind
from pipeline.errors import Misuse

PRODUCER = "urn:tuneline"
_SPACE = UUID("2b0d8a0e-9d53-5f0c-8a55-0f1f5b1d6a11")

MADE_BY = {
    "snapshot": "ingest",
    "reserved": "reserve",
    "validation_report": "validate",
    "curation": "curate",
    "frozen": "freeze",
    "splits": "split",
    "starts": "find starts",
    "champion": "find champion",
    "training_run": "train",
    "evaluation_report": "evaluate",
    "gate_decision": "gate",
    "model_version": "register",
}
"""Kind of a record → the step that makes it."""


def write_events(lineage: Lineage, path: Path) -> int:
    """Write START and COMPLETE of every step behind a release, and of each move of it, a line each; returns how many lines."""
    from openlineage.client.transport.file import FileConfig, FileTransport

    if path.exists():
        raise Misuse("there is something already", where=str(path), fix="name a file that does not exist yet")
    path.parent.mkdir(parents=True, exist_ok=True)
    transport = FileTransport(FileConfig(log_file_path=str(path), append=True))
    events = list(_events(lineage))
    for event in events:
        transport.emit(event)
    return len(events)


def _events(lineage: Lineage) -> Any:
    known = {node.digest: node for node in lineage.nodes}
    registered = next((e for e in lineage.events if e.event is EventKind.REGISTERED), None)
    when = (
        registered.at if registered else (lineage.events[0].at if lineage.events else datetime.fromisoformat("1970-01-01T00:00Z"))
    )
    for node in sorted(lineage.nodes, key=lambda n: -n.depth):
        job = MADE_BY.get(node.kind)
        if job is not None:
            inputs = [known[digest] for digest in dict.fromkeys(node.parents) if digest in known]
            yield from _run(lineage.model, job, node.digest, when, inputs, [node])
    release = next(node for node in lineage.nodes if node.depth == 0)
    for event in lineage.events:
        if event.event in (EventKind.PROMOTED, EventKind.ROLLED_BACK, EventKind.REVOKED, *OPINIONS):
            yield from _run(lineage.model, event.event.value.replace("_", " "), event.digest, event.at, [release], [], event)


def _run(
    model: str,
    job: str,
    key: str,
    when: datetime,
    inputs: list[LineageNode],
    outputs: list[LineageNode],
    event: Event | None = None,
) -> Any:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState

    namespace = f"tuneline/{model}"
    about = Job(namespace=namespace, name=job, facets=_told(event))
    run = Run(runId=str(uuid5(_SPACE, f"{job} {key}")))
    read = [InputDataset(namespace=namespace, name=_name(node), facets=_facets(node)) for node in inputs]
    made = [OutputDataset(namespace=namespace, name=_name(node), facets=_facets(node)) for node in outputs]
    for state in (RunState.START, RunState.COMPLETE):
        at = when.isoformat()
        yield RunEvent(eventType=state, eventTime=at, run=run, job=about, producer=PRODUCER, inputs=read, outputs=made)


def _name(node: LineageNode) -> str:
    return node.where if node.kind == "source" else node.kind


def _facets(node: LineageNode) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset, documentation_dataset

    said = "; ".join(f"{key}: {value}" for key, value in node.facts.items())
    return {
        "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=node.digest, producer=PRODUCER),
        "documentation": documentation_dataset.DocumentationDatasetFacet(description=said, producer=PRODUCER),
    }


def _told(event: Event | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import documentation_job

    if event is None:
        return {}
    said = f"{event.event.value} {event.version}" + (f" on {event.stage}" if event.stage else "")
    words = f"{said} by {event.actor}: {event.reason}"
    return {"documentation": documentation_job.DocumentationJobFacet(description=words, producer=PRODUCER)}
