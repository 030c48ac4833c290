"""Real data through the rules across rows: what is known to be in it is found, and every kind of example is read."""

from __future__ import annotations

import csv
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from curate_kit import count

from pipeline.domain.curated import Curation
from pipeline.domain.data import CheckResult, ValidationReport
from pipeline.params import CurateParams
from pipeline.steps.curate import curate

pytestmark = pytest.mark.real

INGEST_ALL = Path(__file__).parents[2] / "examples" / "data" / "ingest_all.py"


class Curated:
    """One set, taken in by its params file, and curated."""

    def __init__(self, name: str, real_data: Path, work: Path, **params: Any) -> None:
        self.snapshot = runpy.run_path(str(INGEST_ALL))["take_in"](name, real_data, work).snapshot
        check = CheckResult(name="rows", passed=True, expected="", observed="")
        report = ValidationReport(snapshot=self.snapshot.digest, rows=self.snapshot.rows, suite="", checks=(check,))
        self.out = work / "curate"
        self.record: Curation = curate(
            self.snapshot,
            report,
            CurateParams(near_duplicates={"policy": "drop"}, **params),
            folder=work / "snapshot",
            out=self.out,
            scratch=work / "scratch",
        )


@pytest.fixture(scope="module")
def curated(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return cache(lambda name, **params: Curated(name, real_data, tmp_path_factory.mktemp(name), **params))


@pytest.mark.parametrize(
    ("name", "contradictions", "repeats"),
    [
        ("banking77", 0, 4),  # its README says: four duplicate texts
        ("clinc150", 4, 0),
        ("restaurant8k", 95, 52),
        ("hh_rlhf", 0, 0),
        ("mt_bench", 0, 0),
        ("naughty_strings", 0, 7),
    ],
)
def test_what_repeats_and_contradicts_in_real_sets(curated: Any, name: str, contradictions: int, repeats: int) -> None:
    made = curated(name).record
    assert count(made, "contradictions").found == contradictions
    assert count(made, "repeats").found == repeats
    assert made.dropped.rows == sum(rule.dropped for rule in made.rules)
    assert pq.read_metadata(curated(name).out / "dropped.parquet").num_rows == made.dropped.rows


def test_every_kind_of_example_is_read(curated: Any) -> None:
    made = curated("formats_demo")
    assert made.record.passed
    page = (made.out / "curation.html").read_text(encoding="utf-8")
    assert all(f"<td>{kind}</td>" in page for kind in ("answer", "preference", "feedback", "text"))


def test_the_texts_of_clinc150_that_bear_two_intents_are_listed_with_both(curated: Any) -> None:
    with (curated("clinc150").out / "review_contradictions.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    texts = {line["input"].casefold() for line in lines}
    assert len(lines) == 4
    assert len(texts) == 2
    assert all(line["output"] != line["other_output"] for line in lines)
