"""A learning curve and the page of a candidate as a user types for them, in a project in which the main job was run once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.story_town import Town


def test_a_curve_goes_on_where_it_ended(town: Town, tmp_path: Path) -> None:
    first = town("curve --fractions 0.5 --max-hours 0.0000001 --json").json
    assert first["ended"] == "the budget is spent"
    assert first["curve"]["missing"] + len(first["curve"]["points"]) == 2

    found = town(f"curve --fractions 0.5 --out {tmp_path / 'curve'} --json").json
    said = found["curve"]
    assert found["ended"] == "all 2 trainings were made"
    half, whole = said["shares"]
    assert (half["fraction"], whole["fraction"]) == (pytest.approx(0.5, abs=0.01), 1.0)
    assert half["low"] <= half["score"] <= half["high"]
    assert (said["metric"], said["law"]) == ("exact_match", None)
    assert "Learning curve" in (tmp_path / "curve" / "curve.html").read_text()
    assert json.loads((tmp_path / "curve" / "curve.json").read_text())["splits"] == said["splits"]

    # Nothing is trained twice, and what all rows came to is the run's own training.
    again = town("curve --fractions 0.5")
    assert "seed 0:" not in again.err
    assert "no power law fits so few points" in again.out
    assert said["points"][1]["training"] in town("audit show 1 --json").out
    assert town.git("status", "--porcelain") == ""


def test_shares_that_there_can_not_be(town: Town) -> None:
    assert "training rows, not 100000" in town("curve --rows 100000", expect=2).err
    assert "train.price_per_hour" in town("curve --max-cost 1", expect=2).err
    assert "are no numbers" in town("curve --fractions many", expect=2).err


def test_the_page_of_a_version_and_of_the_newest_run(town: Town, tmp_path: Path) -> None:
    newest = town(f"report --out {tmp_path / 'page'}").out
    assert "desk-0001" in newest
    assert "Passed: all" in newest
    assert "Was tuning worth it?" in (tmp_path / "page" / "report.html").read_text()
    said = town("report --run 1 --json").json
    assert said == json.loads((tmp_path / "page" / "report.json").read_text())
    assert said["verdict"] == "passed"
    assert "version 1 of desk" in town("report production").out
    assert "runs: 1" in town("report --run 9", expect=2).err

    page = next((town.root / ".tuneline" / "artifacts").rglob("reports/report.html"))
    kept = page.read_bytes()
    try:
        page.chmod(0o644)
        page.write_bytes(kept.replace(b"Passed", b"Better"))
        assert "not the one that it was registered with" in town("report 1", expect=4).err
    finally:
        page.write_bytes(kept)
