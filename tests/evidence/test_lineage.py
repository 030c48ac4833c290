"""The lineage as a picture and as events, and what a rebuild is held against."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from evidence_world import EvidenceWorld
from release_world import MODEL, STAGES

from pipeline.backends.lineage_events import write_events
from pipeline.domain.lineage import Lineage, LineageNode
from pipeline.domain.measured import MetricValue
from pipeline.domain.rebuilt import compare, remeasured
from pipeline.errors import Misuse
from pipeline.pages.lineage_graph import MOST_SOURCES, layout, lineage_svg
from pipeline.steps import audit

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def lineage(world: EvidenceWorld) -> Lineage:
    return audit.show("1", model=MODEL, ledger=world.ledger, archive=world.archive, stages=STAGES)


def test_the_picture_shows_every_record_and_what_it_was_made_of(lineage: Lineage) -> None:
    drawn = ET.fromstring(lineage_svg(lineage))
    kinds = [g.find(f"{SVG}text").text for g in drawn.iter(f"{SVG}g")]  # type: ignore[union-attr]
    assert sorted(kinds) == sorted(node.kind.replace("_", " ") for node in lineage.nodes)
    known = {node.digest for node in lineage.nodes}
    edges = sum(len({p for p in node.parents if p in known}) for node in lineage.nodes)
    assert len(list(drawn.iter(f"{SVG}path"))) == edges > len(lineage.nodes) - 2


def test_names_that_are_markup_are_text_and_many_sources_are_one_box(lineage: Lineage) -> None:
    evil = "<script>alert(1)</script>&\"'"
    sources = tuple(
        LineageNode(kind="source", digest=f"{n:064x}", depth=6, where=f"{evil} {n}", facts={}) for n in range(MOST_SOURCES + 30)
    )
    many = lineage.model_copy(update={"nodes": (*lineage.nodes[:-1], *sources), "model": evil})
    text = lineage_svg(many)
    ET.fromstring(text)
    assert "<script" not in text
    assert "… and 30 earlier ones" in text
    boxes = layout(many)
    assert len({(box.x, box.y) for box in boxes}) == len(boxes)


def test_events_are_openlineages_own_and_link_by_digest(lineage: Lineage, tmp_path: Path) -> None:
    lines = write_events(lineage, tmp_path / "events.jsonl")
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert len(events) == lines == 2 * (len(lineage.nodes) - 1 + 1)  # each record but sources, and one promotion
    assert {e["eventType"] for e in events} == {"START", "COMPLETE"}
    by_job = {e["job"]["name"]: e for e in events}
    read = {i["facets"]["version"]["datasetVersion"] for i in by_job["train"]["inputs"]}
    assert by_job["split"]["outputs"][0]["facets"]["version"]["datasetVersion"] in read
    assert "promoted 1 on production by ada: looks good" in by_job["promoted"]["job"]["facets"]["documentation"]["description"]
    with pytest.raises(Misuse, match="something already"):
        write_events(lineage, tmp_path / "events.jsonl")


def test_a_rebuild_is_judged_by_bytes_here_and_by_metrics_elsewhere(world: EvidenceWorld) -> None:
    then = world.candidate("three").training
    other = world.candidate("four").training
    words = {"model": MODEL, "version": "1", "commit": "c" * 40}
    assert compare(then, then, **words).ok
    changed = compare(then, other, **words)
    assert (changed.comparable, changed.ok, changed.files) == (True, False, ("adapter_model.safetensors",))
    gpu = other.model_copy(update={"versions": {**other.versions, "device": "cuda: H"}})
    elsewhere = compare(then, gpu, **words)
    assert (elsewhere.comparable, elsewhere.ok) == (False, False)  # nothing was measured yet
    assert elsewhere.differs == ("device: unknown then, cuda: H now",)
    recorded = [MetricValue(metric="f1", value=0.9, low=0.85, high=0.95, rows=9)]
    for value, ok in ((0.86, True), (0.84, False)):
        made = [MetricValue(metric="f1", value=value, low=0, high=1, rows=9)]
        assert elsewhere.model_copy(update={"metrics": remeasured(recorded, made)}).ok is ok
    assert compare(then, then.model_copy(update={"versions": {}}), **words).ok  # the same bytes are the same, wherever
