"""Bad candidates are refused, each for its own reason, and good ones pass: real adapters, measured and judged by the real steps.

Slow: `make drill-gate`. A sample of three bad ones and a good one runs with the other tests. docs/drill-gate.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills import gate_bad_adapters, gate_bad_answers, gate_bad_labels, gate_bad_reports
from tests.drills.gate_candidates import GOOD, Bad, Good, passed, refused
from tests.drills.gate_desks import DESKS
from tests.drills.gate_worlds import World

BAD = {"labels": (*gate_bad_adapters.BAD, *gate_bad_labels.BAD, *gate_bad_reports.BAD), "answers": gate_bad_answers.BAD}
SAMPLE = ("zero-effect-forged", "scores-missing", "shown-once-not-ten-times")
"""Those of the desk that labels which run with the other tests: made of the good candidate of the sample."""
_worlds: dict[str, World] = {}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("drill-gate")
    _worlds.clear()


def world_of(name: str, home: Path) -> World:
    """Each desk is opened once: its candidates share what was trained."""
    if name not in _worlds:
        _worlds[name] = DESKS[name](home / name)
    return _worlds[name]


def cases(kind: dict[str, tuple[Bad, ...]] | dict[str, tuple[Good, ...]]) -> list[object]:
    found = []
    for desk, those in kind.items():
        for one in those:
            found.append(pytest.param(desk, one, id=f"{desk}-{one.name}", marks=[pytest.mark.xdist_group(desk)]))
    return found


def test_there_are_enough_and_no_two_are_called_alike() -> None:
    bad = [one.name for those in BAD.values() for one in those]
    good = [one.name for those in GOOD.values() for one in those]
    assert len(bad) >= 40
    assert len(good) >= 20
    assert len(set(good)) == len(good)
    assert all(len({one.name for one in those}) == len(those) for those in BAD.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("desk", "good"), cases(GOOD))
def test_good(desk: str, good: Good, home: Path) -> None:
    passed(world_of(desk, home), good)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("desk", "bad"), cases(BAD))
def test_bad(desk: str, bad: Bad, home: Path, record_property: pytest.FixtureRequest) -> None:
    record_property("reason", refused(world_of(desk, home), bad))


def test_sample(home: Path) -> None:
    world = DESKS["labels"](home / "sample")
    world.held = False  # one training less
    passed(world, GOOD["labels"][0])
    tried = [bad for bad in BAD["labels"] if bad.name in SAMPLE]
    assert len(tried) == len(SAMPLE)
    for bad in tried:
        refused(world, bad)
