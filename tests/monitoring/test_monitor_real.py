"""A small sample of `make drill-monitor`: fresh questions to a banking assistant, and another assistant's."""

from __future__ import annotations

from pathlib import Path

import pytest
from watched_world import MODEL, RELEASE, Watching, banking77, clinc150

from pipeline.domain.notices import NoticeKind
from pipeline.domain.signals import SignalKind

WINDOW = 150


@pytest.mark.real
def test_another_assistant_s_questions_are_told_and_fresh_ones_are_not(real_data: Path, tmp_path: Path) -> None:
    rows, strange = banking77(real_data, 7), clinc150(real_data, 7)
    watching = Watching(tmp_path, rows[:2000], window={"requests": WINDOW}, reference_rows=1000)
    watching.asked(rows[2000 : 2000 + 4 * WINDOW])
    assert watching.look().alarms == ()
    assert watching.told.notices == []
    watching.asked([(text, rows[0][1]) for text, _ in strange[: 2 * WINDOW]])
    [alarm] = watching.look().alarms
    assert (alarm.what, alarm.release, alarm.began) == (SignalKind.DRIFT, RELEASE, True)
    fired = [signal.fired for signal in watching.world.run_book.recent(MODEL, SignalKind.DRIFT, count=10)]
    assert fired == [False] * 4 + [True] * 2
    assert [notice.kind for notice in watching.told.notices] == [NoticeKind.DRIFT]
