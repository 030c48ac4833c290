"""What proves a release, bound to the stores of a project: its archive for strangers, its graph, its lineage events.

No backend is picked here (see wiring.py), and no decision is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.record import Value
from pipeline.wiring import World

if TYPE_CHECKING:
    from pipeline.params import Params


class Exported(Value):
    """What was exported, where to, how many files, and the digest to tell people by another way."""

    model: str
    version: str
    to: str
    files: int
    sha256: str
    keys: dict[str, str]


def export_evidence(world: World, params: Params, version: str, to: Path) -> Exported:
    """Pack a release with all that proves it; see steps/export_evidence.py."""
    from pipeline.backends.evidence_archive import pack, requirements
    from pipeline.domain.record import digest_bytes
    from pipeline.steps.export_evidence import gather

    record, content = gather(
        version,
        model=params.model.name,
        stages=params.release.stages,
        ledger=world.ledger,
        registry=world.registry,
        archive=world.archive,
        evidence=world.evidence,
        anchors=world.anchors,
        requirements=requirements,
    )
    keys = {path: digest_bytes(held) for path, held in content.items() if path.startswith("keys/") and isinstance(held, bytes)}
    digest = pack(content, to)
    return Exported(model=record.name, version=record.version, to=str(to), files=len(content) + 1, sha256=digest, keys=keys)


class Drawn(Value):
    """Where the picture of a lineage was written, and its events, and how many of each."""

    model: str
    version: str
    picture: str
    nodes: int
    events: str | None = None
    lines: int = 0


def draw_lineage(world: World, params: Params, version: str, to: Path, openlineage: Path | None) -> Drawn:
    """Write the lineage of a version as an SVG and, if asked, as OpenLineage events. Raises Misuse when a file is there."""
    from pipeline.backends.lineage_events import write_events
    from pipeline.errors import Misuse
    from pipeline.pages.lineage_graph import lineage_svg
    from pipeline.steps.audit import show

    if to.exists():
        raise Misuse("there is something already", where=str(to), fix="name a file that does not exist yet")
    model, stages = params.model.name, params.release.stages
    lineage = show(version, model=model, ledger=world.ledger, archive=world.archive, stages=stages)
    lines = write_events(lineage, openlineage) if openlineage else 0
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(lineage_svg(lineage), encoding="utf-8")
    told = {"picture": str(to), "nodes": len(lineage.nodes), "events": str(openlineage) if openlineage else None, "lines": lines}
    return Drawn.model_validate({"model": model, "version": lineage.version, **told})
