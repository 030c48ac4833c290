"""Where a candidate comes from, as blocks of a page: its data, its records and their digests, its parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.domain.curated import Curation, Splits
from pipeline.domain.data import Snapshot, ValidationReport
from pipeline.domain.gating import GateDecision
from pipeline.domain.measured import CostReport, EvaluationReport
from pipeline.domain.model import Champion, TrainingRun
from pipeline.pages import Block, Cell, Table, Text

SHOWN_SOURCES = 20


def data_blocks(snapshot: Snapshot, validation: ValidationReport, splits: Splits) -> Iterator[Block]:
    newest = list(reversed(snapshot.sources))[:SHOWN_SOURCES]
    left = len(snapshot.sources) - len(newest)
    yield Table(
        "Where the rows came from",
        ["file, newest first", "read", "accepted", "duplicate", "quarantined"],
        [[s.name, s.read, s.accepted, s.duplicate, s.quarantined] for s in newest],
        note=f"{snapshot.rows} rows accepted and {snapshot.quarantined} quarantined since the first snapshot."
        + (f" {left} older files are not listed." if left else ""),
    )
    sides = (splits.train, splits.eval, splits.test)
    told = ", ".join(f"{side} {file.rows}" for side, file in zip(("train", "eval", "test"), sides, strict=True))
    labels = f" {len(splits.labels)} labels." if splits.labels else ""
    wrong = "; ".join(f"{c.name}: expected {c.expected}, saw {c.observed}" for c in validation.failures)
    yield Text(
        "What was done with them",
        f"Validation: {len(validation.checks) - len(validation.failures)} of {len(validation.checks)} expectations held"
        f"{f' ({wrong})' if wrong else ''}.\n\nRows: {told}.{labels}",
    )


def curation_blocks(curation: Curation | None, splits: Splits) -> Iterator[Block]:
    """What the rules across rows found, and what repeated rows that are held out."""
    if curation is None:
        return
    rules: list[list[Cell]] = [[r.rule, r.policy, r.found, r.dropped, "; ".join(r.samples[:1])] for r in curation.rules]
    leaks: list[list[Cell]] = [[c.name, "held" if c.passed else "failed", c.observed] for c in splits.checks]
    yield Table("What curation found", ["rule", "policy", "rows", "left out", "such as"], rules)
    yield Table("What is trained on against what is held out", ["check", "verdict", "seen"], leaks)


def lineage_rows(
    decision: GateDecision,
    evaluation: EvaluationReport,
    training: TrainingRun,
    snapshot: Snapshot,
    validation: ValidationReport,
    splits: Splits,
    champion: Champion,
    costs: CostReport | None,
) -> list[tuple[str, str, str]]:
    """(record, digest, what) from the snapshot to the decision."""
    base = training.base
    held = f"version {champion.version}" if champion.version else "nobody held production"
    rows = [
        ("snapshot", snapshot.digest, snapshot.dataset),
        ("validation", validation.digest, f"suite {validation.suite[:12]}"),
        ("splits", splits.digest, f"test side {splits.test.sha256[:12]}"),
        ("base model", base.digest, f"{base.id}{f' at {base.revision}' if base.revision else ''}"),
        ("training", training.digest, f"adapter {training.adapter_digest[:12]}"),
        ("champion", champion.digest, held),
        ("evaluation", evaluation.digest, f"predictions {evaluation.predictions.sha256[:12]}"),
    ]
    if costs is not None:
        rows.append(("costs", costs.digest, "times and prices"))
    return [*rows, ("decision", decision.digest, decision.verdict.value)]


def lineage_table(rows: list[tuple[str, str, str]]) -> Table:
    return Table("Lineage", ["record", "digest", "what"], [[name, digest[:12], what] for name, digest, what in rows])


def parameter_blocks(
    training: TrainingRun, evaluation: EvaluationReport, splits: Splits, decision: GateDecision
) -> Iterator[Block]:
    sections = {"split": splits.params, **training.params, "evaluate": evaluation.params, "gate": decision.policy}
    rows = [[key, json.dumps(value, ensure_ascii=False)] for key, value in _flatten(sections)]
    yield Table("Parameters", ["key", "value"], rows)
    yield Table("Made with", ["what", "version"], [[k, v] for k, v in sorted(training.versions.items())])


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of nested parameters joined by dots, each with its value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
