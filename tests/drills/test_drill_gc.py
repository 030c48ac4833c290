"""`make drill-gc`: gc killed at twelve points of its way, one after the other on the same project; releases verify after each."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

for _folder in ("gc", "release"):
    sys.path.append(str(Path(__file__).resolve().parent.parent / _folder))

from gc_world import MODEL, Desk  # noqa: E402

pytestmark = pytest.mark.slow


def test_killed_a_dozen_times_it_harms_no_release_and_is_finished_by_the_next(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.live()
    desk.remember()
    drawn, kills = random.Random(7), 0
    while kills < 12 and (left := len(desk.collect(dry=True).freed)):
        done = desk.killed(drawn.randint(1, max(1, left // 6)))
        assert done.returncode == -9, done.stderr
        kills += 1
        for version in "1234":
            report = desk.verify(version)
            assert report.ok, (kills, [check for check in report.checks if not check.ok])
    assert kills >= 6
    desk.collect()
    assert desk.collect().freed == ()
    assert desk.verify("1").ok
    desk.rollback()
    assert desk.ledger.holder(MODEL, "production") == "2"
