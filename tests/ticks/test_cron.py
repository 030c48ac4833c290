"""Crons by the wall clock, over changes of the clocks; which tick a late wake-up stands for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backends.params_file import parse_params
from pipeline.domain.cron import Cron
from pipeline.domain.ticks import due, every
from pipeline.errors import BadParams

BERLIN, NEW_YORK, CHATHAM = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Pacific/Chatham")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "now", "last", "then"),
    [
        ("0 3 * * *", "2026-03-01T03:00", "2026-03-01T03:00", "2026-03-02T03:00"),
        ("0 3 * * *", "2026-03-01T02:59", "2026-02-28T03:00", "2026-03-01T03:00"),
        ("*/20 9-17 * * mon-fri", "2026-11-27T18:00", "2026-11-27T17:40", "2026-11-30T09:00"),
        ("30 4 1,15 * 5", "2026-11-29T00:00", "2026-11-27T04:30", "2026-12-01T04:30"),
        ("0 0 29 feb *", "2026-01-01T00:00", "2024-02-29T00:00", "2028-02-29T00:00"),
        ("@weekly", "2026-11-29T12:00", "2026-11-29T00:00", "2026-12-06T00:00"),
        ("0 12 * * 7", "2026-11-29T12:00", "2026-11-29T12:00", "2026-12-06T12:00"),
        ("5/30 0 * * *", "2026-11-29T12:00", "2026-11-29T00:35", "2026-11-30T00:05"),
    ],
)
def test_the_last_tick_and_the_next(cron: str, now: str, last: str, then: str) -> None:
    read = Cron.read(cron)
    assert read.latest(utc(now), ZoneInfo("UTC")) == utc(last)
    assert read.next(utc(now), ZoneInfo("UTC")) == utc(then)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "0 0 0 * *",
        "0 0 31 2 *",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "1/ * * * *",
    ],
)
def test_what_is_no_cron_is_refused_with_params(text: str) -> None:
    with pytest.raises(ValueError, match=r"cron|never|within"):
        Cron.read(text)
    with pytest.raises(BadParams, match="schedule"):
        parse_params(f"model: {{name: a, task: generate, base: ./x}}\nschedule: {{cron: '{text}'}}")


def ticks(cron: str, zone: ZoneInfo, since: datetime, until: datetime) -> list[datetime]:
    read, at, found = Cron.read(cron), since, list[datetime]()
    while (at := read.next(at, zone) or until) < until:
        found.append(at)
    return found


@pytest.mark.parametrize(("zone", "year"), [(BERLIN, 2026), (NEW_YORK, 2026), (CHATHAM, 2026)])
@pytest.mark.parametrize("clock", ["30 2 * * *", "0 3 * * *", "45 2 * * *", "59 23 * * *"])
def test_every_night_of_a_year_has_one_tick(zone: ZoneInfo, year: int, clock: str) -> None:
    found = ticks(clock, zone, datetime(year, 1, 1, tzinfo=zone), datetime(year + 1, 1, 1, tzinfo=zone))
    assert len(found) == 365
    assert len({at.astimezone(zone).date() for at in found}) == 365


def test_a_skipped_time_comes_after_the_gap_and_a_doubled_one_once() -> None:
    read = Cron.read("30 2 * * *")
    assert read.latest(utc("2026-03-29T12:00"), BERLIN) == utc("2026-03-29T01:30")
    assert read.latest(utc("2026-10-25T12:00"), BERLIN) == utc("2026-10-25T00:30")
    assert read.next(utc("2026-10-25T00:30"), BERLIN) == utc("2026-10-26T01:30")


@given(st.datetimes(datetime(1971, 1, 1), datetime(2037, 1, 1)), st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 1 * *"]))
@settings(max_examples=60, deadline=None)
def test_latest_and_next_agree(naive: datetime, cron: str) -> None:
    now, read = naive.replace(tzinfo=UTC), Cron.read(cron)
    last = read.latest(now, BERLIN)
    assert last is not None
    assert last <= now
    then = read.next(last, BERLIN)
    assert then is not None
    assert then > now
    assert read.latest(then, BERLIN) == then
    assert read.latest(then - timedelta(microseconds=1), BERLIN) == last


def nightly(at: datetime) -> datetime | None:
    return Cron.read("0 3 * * *").latest(at, ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("woken_for", "now", "catch_up", "tick"),
    [
        ("2026-03-05T03:00", "2026-03-05T03:00:02", "latest", "2026-03-05T03:00"),
        ("2026-03-05T03:00", "2026-03-05T03:59", "none", "2026-03-05T03:00"),
        ("2026-03-05T03:00", "2026-03-05T04:01", "none", None),
        ("2026-03-05T03:00", "2026-03-05T04:01", "latest", "2026-03-05T03:00"),
        ("2026-03-02T03:00", "2026-03-05T04:01", "latest", "2026-03-02T03:00"),
        ("2026-03-03T03:00:00.7", "2026-03-05T04:01", "latest", "2026-03-03T03:00"),
        ("2026-03-03T02:59:59.5", "2026-03-03T03:00", "latest", "2026-03-03T03:00"),
        # The clock says 1970, or 2038, while the scheduler means what it meant.
        ("2026-03-05T03:00", "1970-01-01T00:00", "none", "2026-03-05T03:00"),
        ("2026-03-05T03:00", "2038-01-19T03:14:08", "none", None),
        ("2026-03-05T03:00", "2038-01-19T03:14:08", "latest", "2026-03-05T03:00"),
        # An hour too far, and back again.
        ("2026-03-05T03:00", "2026-03-05T02:00", "latest", "2026-03-05T03:00"),
    ],
)
def test_which_tick_a_wake_up_stands_for(woken_for: str, now: str, catch_up: str, tick: str | None) -> None:
    found = due(utc(woken_for), utc(now), nightly, late_after=3600, catch_up=catch_up)  # type: ignore[arg-type]
    assert found.tick == (utc(tick) if tick else None)
    assert found.why


def test_intervals_are_reckoned_alike_by_all() -> None:
    assert every(300, utc("2026-03-05T03:04:59.9")) == utc("2026-03-05T03:00")
    assert every(300, utc("2026-03-05T03:05")) == utc("2026-03-05T03:05")
    assert every(0.5 * 86_400, utc("1969-12-31T13:00")) == utc("1969-12-31T12:00")
