"""Who holds a stage, and what people mean: pure decisions, by tables and by properties."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whole_chain import first_broken_link

from pipeline.domain.lineage import holding
from pipeline.domain.moves import plan_promotion, plan_rollback, touched
from pipeline.domain.reigns import reigns
from pipeline.domain.release import (
    GENESIS,
    Event,
    EventKind,
    ModelVersion,
    holder,
    resolve,
    stack,
    until,
)
from pipeline.domain.wording import check_words, instant
from pipeline.errors import Conflict, Misuse

START = datetime(2026, 3, 1, tzinfo=UTC)
P, R, X = EventKind.PROMOTED, EventKind.ROLLED_BACK, EventKind.REVOKED


def record(version: str, *, dirty: bool = False) -> ModelVersion:
    digest = f"{int(version):064x}"
    parts = {"training": digest, "evaluation": digest, "decision": digest, "adapter_digest": f"{int(version) + 0xAB0000000:064x}"}
    return ModelVersion(name="m", version=version, run_id="r", files=(), commit="c", tag="t", dirty=dirty, **parts)


def chain(*rows: tuple, dirty: frozenset[str] = frozenset()) -> tuple[Event, ...]:
    """Events of a model: versions 1-5 registered, then (kind, version, stage[, leaves[, minutes]]) in turn."""
    events: list[Event] = []

    def add(kind: EventKind, version: str, stage: str | None = None, leaves: str | None = None, at: int | None = None) -> None:
        made = record(version, dirty=version in dirty)
        events.append(
            Event(
                model="m",
                sequence=len(events) + 1,
                previous=events[-1].digest if events else GENESIS,
                event=kind,
                version=version,
                subject=made.digest,
                stage=stage,
                leaves=leaves,
                actor="a",
                reason="r",
                at=START + timedelta(minutes=at if at is not None else len(events)),
                record=made.to_json() if kind is EventKind.REGISTERED else None,
            )
        )

    for version in "12345":
        add(EventKind.REGISTERED, version)
    for row in rows:
        add(*row)
    return tuple(events)


@given(st.lists(st.one_of(st.sampled_from("12345"), st.integers(1, 3)), max_size=25), st.sampled_from(["production", "staging"]))
def test_promotions_and_rollbacks_are_a_stack(moves: list[str | int], stage: str) -> None:
    expected: list[str] = []
    rows: list[tuple] = []
    for move in moves:
        events = chain(*rows)
        if isinstance(move, str):
            planned = plan_promotion(events, move, stage)
            assert (planned.done is not None) == (expected[-1:] == [move])
            if planned.done is None:
                rows.append((P, move, stage, planned.leaves))
                expected.append(move)
        elif len(expected) > 1:
            for _ in range(min(move, len(expected) - 1)):
                planned = plan_rollback(chain(*rows), stage, to=None, leaving=expected[-1])
                rows.append((R, planned.version, stage, planned.leaves))
                expected.pop()
    events = chain(*rows)
    assert stack(events, stage) == tuple(expected)
    assert holder(events, stage) == (expected[-1] if expected else None)
    assert holder(events, "elsewhere") is None
    past = reigns(events, stage)
    assert len(past) == len(rows)
    assert all(a.until == b.since for a, b in pairwise(past))
    assert first_broken_link(events) is None


@given(st.lists(st.tuples(st.sampled_from("12345"), st.integers(-30, 60)), max_size=12), st.integers(-40, 80))
def test_at_agrees_with_a_prefix_of_the_log_whatever_the_clocks_did(moves: list[tuple[str, int]], minute: int) -> None:
    events = chain(*((P, version, "production", None, at) for version, at in moves))
    when = START + timedelta(minutes=minute)
    seen = until(events, when)
    assert seen == events[: len(seen)]
    assert holder(events, "production", at=when) == holder(seen, "production")
    assert holding(events, "m", "production", when).version == holder(seen, "production")


def test_revoking_takes_a_version_out_of_every_stack_and_joins_its_neighbours() -> None:
    events = chain((P, "1", "production"), (P, "2", "production"), (P, "1", "production"), (P, "3", "production"), (X, "2"))
    assert stack(events, "production") == ("1", "3")
    assert stack(chain((P, "1", "production"), (P, "2", "production"), (X, "2")), "production") == ("1",)
    past = reigns(chain((P, "1", "production"), (X, "1")), "production")
    assert past[0].until is not None
    assert past[0].until.event is X


def test_second_rollback_does_not_return_to_the_bad_version() -> None:
    events = chain((P, "1", "production"), (P, "2", "production"), (P, "3", "production"), (R, "2", "production", "3"))
    assert plan_rollback(events, "production", to=None, leaving="2").version == "1"


@pytest.mark.parametrize(
    ("rows", "to", "leaving", "outcome"),
    [
        ([(P, "1"), (P, "2")], None, "2", "1"),
        ([(P, "1"), (P, "2"), (P, "3")], "1", "3", "1"),
        ([(P, "1"), (P, "2"), (R, "1", "2")], None, "2", "done 1"),
        ([(P, "1"), (P, "2"), (R, "1", "2")], "1", "2", "done 1"),
        ([(P, "1"), (P, "2"), (P, "3"), (R, "2", "3")], "1", "3", Conflict),
        ([(P, "1"), (P, "2"), (R, "1", "2"), (P, "3")], None, "2", Conflict),
        ([(P, "1"), (P, "2"), (P, "3")], None, "2", Conflict),
        ([(P, "1"), (P, "2")], None, "4", Misuse),
        ([(P, "1")], None, "1", Misuse),
        ([(P, "1"), (P, "2")], "3", "2", Misuse),
        ([(P, "1"), (P, "2")], "2", "2", "done 2"),
        ([(P, "1"), (P, "2"), (R, "1", "2"), (P, "2")], None, "2", "1"),
    ],
)
def test_rollback_table(rows: list[tuple], to: str | None, leaving: str, outcome: object) -> None:
    events = chain(*((kind, version, "production", *rest) for kind, version, *rest in rows))
    if isinstance(outcome, type):
        with pytest.raises(outcome):
            plan_rollback(events, "production", to=to, leaving=leaving)
        return
    move = plan_rollback(events, "production", to=to, leaving=leaving)
    assert f"{'done ' if move.done else ''}{move.version}" == outcome


def test_promotion_refuses_unknown_revoked_and_dirty_versions() -> None:
    events = chain((X, "2"), dirty=frozenset("3"))
    with pytest.raises(Misuse, match="no version '9'") as caught:
        plan_promotion(events, "9", "production")
    assert "1, 2, 3, 4, 5" in str(caught.value)
    with pytest.raises(Misuse, match="revoked"):
        plan_promotion(events, "2", "staging")
    with pytest.raises(Misuse, match="uncommitted"):
        plan_promotion(events, "3", "production")
    assert plan_promotion(events, "3", "staging").version == "3"


def test_only_moves_of_the_stage_and_revocations_unsettle_a_decision() -> None:
    assert touched(chain((P, "1", "staging"))[5:], "production") is None
    assert touched(chain((EventKind.APPROVED, "1", "production"))[5:], "production") is None
    assert touched(chain((P, "1", "production"))[5:], "production") is not None
    assert touched(chain((X, "1"))[5:], "production") is not None


def test_resolve_takes_numbers_stages_and_digests() -> None:
    events = chain((P, "4", "production"))
    assert resolve(events, "3") == resolve(events, "v3") == "3"
    assert resolve(events, "production") == "4"
    assert resolve(events, record("2").digest[:8]) == "2"
    assert resolve(events, record("5").adapter_digest) == "5"
    for text in ("0", "9", "v", "03", "٣", "nowhere", "abc", record("2").digest[:7], "../1", "1\n", ""):
        with pytest.raises(Misuse, match="no version"):
            resolve(events, text)
    with pytest.raises(Misuse, match="no version holds staging"):
        resolve(events, "staging", stages=("staging",))
    with pytest.raises(Misuse, match="any of the versions"):
        resolve(events, "00000000")


def test_an_edited_dropped_or_reordered_event_breaks_the_chain() -> None:
    events = chain((P, "1", "production"), (P, "2", "production"))
    assert first_broken_link(events) is None
    edited = events[2].model_copy(update={"actor": "mallory"})
    assert first_broken_link([*events[:2], edited, *events[3:]]) is not None
    assert first_broken_link([*events[:2], *events[3:]]) is not None
    assert first_broken_link([*events[:2], events[3], events[2], *events[4:]]) is not None
    with pytest.raises(ValueError, match="subject"):
        Event.model_validate({**events[0].model_dump(), "record": record("2").to_json()})


def test_instants_across_zones_and_changes_of_the_clocks() -> None:
    assert instant("2026-11-23T09:30+01:00") == datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
    assert instant("2026-07-01T09:30", "Europe/Berlin") == datetime(2026, 7, 1, 7, 30, tzinfo=UTC)
    assert instant("2026-12-01T09:30", "Europe/Berlin") == datetime(2026, 12, 1, 8, 30, tzinfo=UTC)
    assert instant("2026-11-23", "Europe/Berlin") == datetime(2026, 11, 23, 22, 59, 59, 999_999, tzinfo=UTC)
    with pytest.raises(Misuse, match="came twice") as twice:
        instant("2026-10-25T02:30", "Europe/Berlin")
    assert "2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00" in str(twice.value)
    with pytest.raises(Misuse, match="skipped"):
        instant("2026-03-29T02:30", "Europe/Berlin")
    for text, zone in (("yesterday", "UTC"), ("2026-13-01", "UTC"), ("2026-01-01", "Mars/Phobos"), ("2026-01-01", "../etc")):
        with pytest.raises(Misuse):
            instant(text, zone)


@given(st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2038, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_an_offset_always_wins_over_the_zone(wall: datetime, minutes: int) -> None:
    read = wall.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert instant(read.isoformat(), "Europe/Berlin") == read


@pytest.mark.parametrize("bad", ["", "  ", "a\0b", "x\x1b[31m", "a\ud800", "n\nn", "x" * 201, "\x7f"])
def test_actors_that_no_store_is_given(bad: str) -> None:
    with pytest.raises(Misuse, match="actor"):
        check_words(actor=bad, reason="fine")


def test_all_bad_words_are_named_at_once() -> None:
    check_words(actor="Ada", reason="two\nlines\tand a tab ✓", stage=None)
    with pytest.raises(Misuse) as caught:
        check_words(actor="", reason="r" * 2001 + "\0", version="1\0")
    said = str(caught.value)
    assert "actor is empty" in said
    assert "reason has 2002 characters, 2000 are allowed" in said
    assert "reason holds a control character" in said
    assert "version holds a control character" in said
