"""Great Expectations: asks a suite of a Parquet file through a real checkpoint and builds its Data Docs. Unknown elsewhere.

Two of its ways are corrected here. An expectation that breaks reports success=False like one that finds bad data, so
exception_info is always looked at. Data Docs do not escape values, so none are given to them: they list the places of failing
rows, and sample rows are looked up afterwards for our own page, which escapes.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.domain.data import CheckResult
from pipeline.domain.record import canonical_json
from pipeline.errors import Broken

_PIECE_ROWS = 200_000
_SAMPLES = 5
_VALUE_CHARS = 160
_NAME = "snapshot"
_UNDATED = datetime(1970, 1, 1, tzinfo=UTC)
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(rb"\d{8}T\d{6}\.\d{6}Z")


@dataclass
class _Seen:
    """What one expectation found so far, over the pieces of a table."""

    passed: bool = True
    asked: int = 0
    unexpected: int = 0
    error: str | None = None
    samples: list[str] = field(default_factory=list)


class GreatExpectations:
    """Implements ports.Expectations. Tables of any size are asked in pieces, so a suite may only hold row-by-row expectations;
    uniqueness is then found within a piece."""

    def __init__(self, *, piece_rows: int = _PIECE_ROWS) -> None:
        self._piece_rows = piece_rows

    def check(self, table: Path, suite: Sequence[Mapping[str, Any]], *, docs: Path) -> tuple[CheckResult, ...]:
        """One CheckResult for each entry of `suite`, in its order; an empty table fails all of them with an error.

        The same table and suite make the same Data Docs, byte for byte, but for GX's version.
        Raises Broken when Great Expectations cannot be run at all.
        """
        seen = [_Seen() for _ in suite]
        try:
            checkpoint = _checkpoint(suite, docs)
            for number, frame in enumerate(_pieces(table, self._piece_rows), start=1):
                result = checkpoint.run(batch_parameters={"dataframe": frame}, run_id=_run_id(number))
                _add(result, frame, seen)
        except Exception as error:
            raise Broken(f"Great Expectations could not be run: {error}", where=str(table)) from error
        _make_repeatable(docs)
        return tuple(_as_result(entry, found) for entry, found in zip(suite, seen, strict=True))


def _checkpoint(suite: Sequence[Mapping[str, Any]], docs: Path) -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
    context.add_data_docs_site(
        "local",
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())},
            "show_how_to_buttons": False,
        },
    )
    expectations = gx.ExpectationSuite(name=_NAME, expectations=[])
    for position, entry in enumerate(suite):
        # The position finds the entry again: results come in an order of their own.
        expectations.add_expectation_configuration(
            ExpectationConfiguration(
                type=entry["type"], kwargs=dict(entry["kwargs"]), notes=entry.get("note"), meta={"position": position}
            )
        )
    rows = context.data_sources.add_pandas(_NAME).add_dataframe_asset("rows").add_batch_definition_whole_dataframe("piece")
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=_NAME, data=rows, suite=context.suites.add(expectations))
    )
    return context.checkpoints.add(
        gx.Checkpoint(
            name=_NAME,
            validation_definitions=[definition],
            actions=[UpdateDataDocsAction(name="data_docs", site_names=["local"])],
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": _SAMPLES,
                "exclude_unexpected_values": True,
                "return_unexpected_index_query": False,
            },
        )
    )


def _pieces(table: Path, rows: int) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def frame(batches: list[Any], start: int) -> Any:
        made = pa.Table.from_batches(batches).to_pandas()
        made.index = range(start, start + len(made))  # so that Data Docs name rows by their place in the table
        return made

    waiting: list[Any] = []
    done = held = 0
    # Without buffering ahead, which keeps every byte that was read until the file is closed.
    with pq.ParquetFile(table, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=min(rows, 65_536), use_threads=False):
            waiting.append(batch)
            held += len(batch)
            if held >= rows:
                yield frame(waiting, done)
                waiting, done, held = [], done + held, 0
    if waiting:
        yield frame(waiting, done)


def _run_id(number: int) -> Any:
    from great_expectations.core.run_identifier import RunIdentifier

    return RunIdentifier(run_name=f"piece-{number:04d}", run_time=_UNDATED)


def _add(result: Any, frame: Any, seen: list[_Seen]) -> None:
    """Add what one piece showed to what is known of each expectation."""
    answered: set[int] = set()
    for validation in result.run_results.values():
        for answer in validation.results:
            position = answer.expectation_config.meta["position"]
            answered.add(position)
            found, details = seen[position], answer.result or {}
            found.error = found.error or _error(answer.exception_info)
            found.passed = found.passed and bool(answer.success)
            found.asked += details.get("element_count") or 0
            found.unexpected += details.get("unexpected_count") or 0
            if not answer.success and len(found.samples) < _SAMPLES:
                found.samples += _samples(details, frame, _SAMPLES - len(found.samples))
    for position in set(range(len(seen))) - answered:
        seen[position].error = seen[position].error or "the expectation gave no answer"


def _error(info: Mapping[str, Any] | None) -> str | None:
    """The message of an exception within an expectation; GX keys it by metric, or not."""
    for part in (info or {}, *(value for value in (info or {}).values() if isinstance(value, Mapping))):
        if part.get("raised_exception"):
            return str(part.get("exception_message") or "the expectation broke")[:500]
    return None


def _samples(details: Mapping[str, Any], frame: Any, most: int) -> list[str]:
    rows = frame.loc[list(details.get("partial_unexpected_index_list") or ())[:most]]
    return [_sample(row) for row in rows.to_dict("records")]


def _sample(row: Mapping[str, Any]) -> str:
    shown = {key: None if value != value else value for key, value in row.items()}
    return canonical_json({key: value[:_VALUE_CHARS] if isinstance(value, str) else value for key, value in shown.items()})


def _as_result(entry: Mapping[str, Any], found: _Seen) -> CheckResult:
    kwargs = {key: value for key, value in entry["kwargs"].items() if key != "column"}
    limits = ", ".join(f"{key} {_cut(value)}" for key, value in kwargs.items())
    words = entry["type"].removeprefix("expect_").replace("_", " ")
    note = f" ({entry['note']})" if entry.get("note") else ""
    error = found.error or (None if found.asked else "the table has no rows, which shows nothing")
    return CheckResult(
        name=entry["type"],
        column=entry["kwargs"].get("column"),
        passed=found.passed and error is None,
        expected=f"{words}{': ' + limits if limits else ''}{note}",
        observed=f"{found.unexpected} of {found.asked} rows are otherwise",
        samples=tuple(found.samples),
        error=error,
    )


def _cut(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= _VALUE_CHARS else text[:_VALUE_CHARS] + "…"


def _make_repeatable(docs: Path) -> None:
    """Take the clock and the dice out of the pages: element ids, times of loading and drawing."""
    for page in sorted(docs.rglob("*.html")):
        text = _TIME.sub(_UNDATED.strftime("%Y%m%dT%H%M%S.%fZ").encode(), page.read_bytes())
        for number, drawn in enumerate(dict.fromkeys(_UUID.findall(text))):
            text = text.replace(drawn, b"%08d" % number)
        page.write_bytes(text)
