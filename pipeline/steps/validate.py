"""Validate: is this snapshot fit to train on? A failing snapshot is a value in the report, not an exception.

What is about the snapshot as a whole comes first: row floors, blank columns, shares, labels. Great Expectations passes empty
data, so it is asked only when there is something to ask about. Nothing is repaired or filtered here.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.curation.description import Description, count_quarantine, describe, write_asked_table
from pipeline.curation.expectations import suite
from pipeline.curation.reasons import MEANINGS, Code
from pipeline.domain.data import CheckResult, QuarantinedRow, Snapshot, SourceFile, Task, ValidationReport
from pipeline.domain.record import digest_value
from pipeline.pages import Block, Links, Table, Text, page
from pipeline.params import ValidateParams
from pipeline.ports import Expectations, Progress, silent

_SOURCES_SHOWN = 200


def validate(
    snapshot: Snapshot,
    params: ValidateParams,
    *,
    folder: Path,
    out: Path,
    expectations: Expectations,
    progress: Progress = silent,
) -> ValidationReport:
    """Check the snapshot in `folder`; write validation.json, validation.html and data_docs/ below `out`; return the report.

    The report's first checks are ours, the others are the answers to `curation.expectations.suite`, in its order; those are
    missing when there are too few rows, or a column is blank throughout. Raises Tampered when a shard is not what was recorded.
    """
    _clear(out)
    progress("describing the snapshot", 0, 2)
    seen = describe(folder, snapshot)
    counts, examples = count_quarantine(folder, snapshot)
    floors = _floor_checks(snapshot, params, seen)
    checks = [*floors, *_batch_checks(snapshot, params, seen, examples)]
    entries = suite(params, snapshot.task)
    if all(check.passed for check in floors):
        progress("asking Great Expectations", 1, 2)
        table = out / "asked.parquet.tmp"
        try:
            write_asked_table(folder, snapshot, seen.labels, table)
            checks += expectations.check(table, entries, docs=out / "data_docs")
        finally:
            table.unlink(missing_ok=True)
    report = ValidationReport(snapshot=snapshot.digest, rows=seen.rows, suite=digest_value(entries), checks=tuple(checks))
    (out / "validation.html").write_text(_page(snapshot, report, counts, examples, out), encoding="utf-8")
    report.write(out / "validation.json")
    progress("validated", 2, 2)
    return report


def _clear(out: Path) -> None:
    # Files here may be hard links into the data store's cache: they are unlinked and never written to.
    out.mkdir(parents=True, exist_ok=True)
    for name in ("validation.json", "validation.html", "asked.parquet.tmp"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "data_docs", ignore_errors=True)


def _floor_checks(snapshot: Snapshot, params: ValidateParams, seen: Description) -> list[CheckResult]:
    """Without these, asking further would prove nothing."""
    checks = [
        _check("rows", seen.rows >= params.min_rows, f"at least {params.min_rows} (validate.min_rows)", f"{seen.rows} rows"),
        _check("rows_as_recorded", seen.rows == snapshot.rows, f"{snapshot.rows} rows", f"{seen.rows} rows"),
    ]
    for column, blank in seen.blank.items():
        checks.append(
            _check("not_all_blank", blank < seen.rows, "some row says something", f"{blank} of {seen.rows} blank", column=column)
        )
    return checks


def _batch_checks(
    snapshot: Snapshot, params: ValidateParams, seen: Description, examples: dict[str, QuarantinedRow]
) -> list[CheckResult]:
    read = sum(source.read for source in snapshot.batch)
    refused = sum(source.quarantined for source in snapshot.batch)
    repeated = sum(source.duplicate for source in snapshot.batch)
    uneven = [source.name for source in snapshot.sources if not _adds_up(source)]
    totals_agree = sum(s.accepted for s in snapshot.sources) == snapshot.rows + snapshot.forgotten
    totals_agree = totals_agree and sum(s.quarantined for s in snapshot.sources) == snapshot.quarantined
    checks = [
        _check(
            "counts_add_up",
            not uneven and totals_agree,
            "read = accepted + duplicate + quarantined + forgotten",
            "they do" if not uneven and totals_agree else "they do not",
            samples=tuple(uneven[:5]),
        ),
        _share("quarantined_share", refused, read, params.max_quarantined_share, "validate.max_quarantined_share", examples),
        _share("duplicate_share", repeated, read, params.max_duplicate_share, "validate.max_duplicate_share", {}),
        _check(
            "ids_unique",
            not seen.repeated,
            "no id twice in all shards",
            f"{seen.repeated_count} ids twice",
            samples=seen.repeated,
        ),
    ]
    if snapshot.task is Task.CLASSIFY:
        checks.append(_check("labels", len(seen.labels) >= 2, "at least 2 labels", f"{len(seen.labels)} labels", column="output"))
    return checks


def _share(name: str, part: int, read: int, most: float, key: str, examples: dict[str, QuarantinedRow]) -> CheckResult:
    share = part / read if read else 0.0
    failed = share > most
    shown = tuple(f"{row.source}:{row.line}: {row.code}: {row.reason}" for row in examples.values()) if failed else ()
    observed = f"{part} of {read} rows in the newest batch ({share:.1%})"
    return _check(name, not failed, f"at most {most:.1%} of the newest batch ({key})", observed, samples=shown[:5])


def _check(
    name: str, passed: bool, expected: str, observed: str, *, column: str | None = None, samples: tuple[str, ...] = ()
) -> CheckResult:
    return CheckResult(name=name, column=column, passed=passed, expected=expected, observed=observed, samples=samples)


def _adds_up(source: SourceFile) -> bool:
    return source.read == source.accepted + source.duplicate + source.quarantined + source.forgotten


def _page(
    snapshot: Snapshot, report: ValidationReport, counts: dict[str, int], examples: dict[str, QuarantinedRow], out: Path
) -> str:
    failed = len(report.failures)
    if report.passed:
        verdict = f"Fit to train on: {report.rows} rows, {len(report.checks)} checks passed."
    else:
        verdict = f"Not fit to train on: {failed} of {len(report.checks)} checks failed."
    blocks: list[Block] = [
        Text("What this is", f"Dataset {snapshot.dataset}, task {snapshot.task}.\nSnapshot {snapshot.digest}."),
        _check_table(report.checks),
        *(Table(f"Failing rows: {_title(c)}", ("row",), [(s,) for s in c.samples]) for c in report.failures if c.samples),
        _source_table(snapshot),
        _quarantine_table(counts, examples),
    ]
    if (out / "data_docs" / "index.html").is_file():
        blocks.append(Links("Great Expectations", [("Data Docs (styled only when online)", "data_docs/index.html")]))
    else:
        blocks.append(Text("Great Expectations", "Not asked: there is too little data for its answers to mean anything."))
    return page(f"Validation of {snapshot.dataset}", verdict, report.passed, blocks)


def _title(check: CheckResult) -> str:
    return f"{check.name} of {check.column}" if check.column else check.name


def _check_table(checks: Sequence[CheckResult]) -> Table:
    def verdict(check: CheckResult) -> str:
        return f"broke: {check.error}" if check.error else "passed" if check.passed else "failed"

    return Table(
        "Checks",
        ("check", "column", "expected", "observed", "verdict"),
        [(c.name, c.column, c.expected, c.observed, verdict(c)) for c in checks],
        tones={i: "good" if c.passed and not c.error else "bad" for i, c in enumerate(checks)},
    )


def _source_table(snapshot: Snapshot) -> Table:
    """The newest batch file by file, then what came before as one line."""

    def line(name: str, sources: Sequence[SourceFile]) -> tuple[str, int, int, int, int]:
        read, accepted = sum(s.read for s in sources), sum(s.accepted for s in sources)
        return name, read, accepted, sum(s.duplicate for s in sources), sum(s.quarantined for s in sources)

    rows = [line(source.name, [source]) for source in snapshot.batch[:_SOURCES_SHOWN]]
    if rest := snapshot.batch[_SOURCES_SHOWN:]:
        rows.append(line(f"{len(rest)} more files", rest))
    if earlier := snapshot.sources[: len(snapshot.sources) - snapshot.fresh]:
        rows.append(line(f"earlier: {len(earlier)} files", earlier))
    rows.append(line("all", snapshot.sources))
    return Table("Where rows ended", ("file", "read", "accepted", "duplicate", "quarantined"), rows)


def _quarantine_table(counts: dict[str, int], examples: dict[str, QuarantinedRow]) -> Table:
    rows = []
    for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        row = examples[code]
        shown = row.raw[:200] if row.raw_encoding == "utf-8" else f"base64 {row.raw[:200]}"
        meaning = MEANINGS[Code(code)] if code in set(Code) else ""
        rows.append((code, count, meaning, f"{row.source}:{row.line}: {row.reason}", shown))
    return Table("Quarantined rows", ("code", "rows", "meaning", "newest example", "its beginning"), rows)
