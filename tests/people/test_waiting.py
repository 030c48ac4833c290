"""What becomes of a version that waits for people, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from desk import MODEL
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.notices import NoticeKind
from pipeline.domain.release import Event, EventKind, ModelVersion
from pipeline.domain.stage_rules import ApprovalRules, StageRules
from pipeline.domain.waiting import Turn, Waiting, awaiting, candidates, ended, reminder, turn_of

START = datetime(2026, 11, 1, tzinfo=UTC)
LATER = START + timedelta(days=14)
ASKING = {"staging": StageRules(), "production": StageRules(approvals=ApprovalRules(count=1))}


def chain(*steps: tuple[str, str] | tuple[str, str, str]) -> tuple[Event, ...]:
    """(kind, version[, who]) one after the other; all but registrations are about production."""
    events: list[Event] = []
    for kind, version, *who in steps:
        digits = dict.fromkeys(("training", "evaluation", "decision", "adapter_digest"), version * 64)
        made = ModelVersion(
            name=MODEL, version=version, run_id="r", files=(), commit="c" * 40, tag=f"t{version}", dirty=False, **digits
        )
        new = kind == "registered"
        events.append(
            Event(
                model=MODEL,
                sequence=len(events) + 1,
                previous=events[-1].digest if events else "0" * 64,
                event=EventKind(kind),
                version=version,
                subject=made.digest,
                stage=None if kind in ("registered", "revoked") else "production",
                actor=who[0] if who else "ada",
                reason="because",
                at=START,
                record=made.to_json() if new else None,
            )
        )
    return tuple(events)


ONE, TWO = ("registered", "1"), ("registered", "2")


@pytest.mark.parametrize(
    ("steps", "missing", "now", "turn"),
    [
        ((ONE,), ("0 of 1 approvals",), START, Turn.WAIT),
        ((ONE,), (), START, Turn.READY),
        ((ONE,), (), LATER, Turn.READY),
        ((ONE,), ("0 of 1 approvals",), LATER, Turn.EXPIRED),
        ((ONE, ("promoted", "1")), (), LATER, Turn.HELD),
        ((ONE, ("refused", "1")), (), START, Turn.REFUSED),
        ((ONE, ("refused", "1", "bob"), ("approved", "1", "bob")), ("x",), START, Turn.WAIT),
        ((ONE, ("refused", "1", "bob"), ("approved", "1", "eve")), ("x",), START, Turn.REFUSED),
        ((ONE, ("refused", "1"), ("revoked", "1")), (), START, Turn.REVOKED),
        ((ONE, TWO, ("promoted", "2")), (), START, Turn.OVERTAKEN),
        ((ONE, TWO, ("promoted", "1"), ("promoted", "2")), (), START, Turn.OVERTAKEN),
        ((ONE, ("promoted", "1"), TWO), ("x",), START, Turn.WAIT),
    ],
)
def test_turns(steps: tuple[tuple[str, ...], ...], missing: tuple[str, ...], now: datetime, turn: Turn) -> None:
    version = "2" if steps[-1] == TWO else "1"
    found, why = turn_of(chain(*steps), version, "production", missing, now=now, expires=LATER)  # type: ignore[arg-type]
    assert found is turn
    assert why


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ((), []),
        ((ONE,), ["1"]),
        ((ONE, TWO), ["2"]),
        ((ONE, TWO, ("approved", "1")), ["1", "2"]),
        ((ONE, ("promoted", "1"), TWO), ["2"]),
        ((ONE, TWO, ("promoted", "2")), []),
        ((ONE, TWO, ("promoted", "1"), ("promoted", "2"), ("rolled_back", "1")), []),
        ((ONE, TWO, ("revoked", "2")), ["1"]),
    ],
)
def test_candidates(steps: tuple[tuple[str, ...], ...], found: list[str]) -> None:
    assert [version for version, stage in candidates(chain(*steps), ASKING) if stage == "production"] == found  # type: ignore[arg-type]
    assert all(stage == "production" for _, stage in candidates(chain(*steps), ASKING)), "staging asks for nobody"  # type: ignore[arg-type]


@given(st.floats(0.1, 1000), st.floats(-1000, 1000), st.floats(0, 1000))
def test_reminders_are_numbered_and_never_go_back(hours: float, first: float, more: float) -> None:
    number = reminder(START, START + timedelta(hours=first), hours)
    later = reminder(START, START + timedelta(hours=first + more), hours)
    assert 0 <= number <= later
    assert number == max(int(first / hours), 0) or abs(first / hours - round(first / hours)) < 1e-6


def test_a_reminder_is_another_notice_than_the_first_and_the_same_as_itself() -> None:
    wait = Waiting(model=MODEL, version="2", stage="production", since=START, missing=("0 of 1 approvals",))
    told = [awaiting(wait, number=n, key="k", expires=LATER, where="http://x/runs/flow-run/k") for n in (0, 0, 1)]
    assert told[0].id == told[1].id != told[2].id
    assert told[0].kind is NoticeKind.AWAITING_APPROVAL
    assert "missing: 0 of 1 approvals" in told[0].lines
    assert "tuneline approve 2 --to production" in told[0].lines[1]
    assert "http://x/runs/flow-run/k" in told[0].lines[1]
    assert ended(wait, Turn.HELD, "w", key="k") is None
    end = ended(wait, Turn.EXPIRED, "w", key="k")
    assert end is not None
    assert end.lines == ("w", "nothing was promoted")
