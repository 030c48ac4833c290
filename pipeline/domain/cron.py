"""Cron: minute, hour, day, month, weekday, told by the wall clock of a time zone; each match is one instant in UTC. Pure.

A wall-clock time that a change of the clocks skips comes when the clocks have been put forward; one that comes twice is its first
coming. So a night of 23 or 25 hours has one tick of a nightly cron, like every other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple, Self
from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEK = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FAR = 366 * 28
"""Days after which all of the calendar has come round."""


class Cron(NamedTuple):
    """either: day and weekday are both given, and one of the two is enough, as crons have it."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ValueError, in words for whoever wrote it."""
        fields = _SHORT.get(text.strip().lower(), text).lower().split()
        if len(fields) != 5:
            raise ValueError(f"{text[:60]!r} is no cron; write five fields, such as 0 3 * * *")
        bounds = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 7, _WEEK))
        sets = [_field(field, low, high, names) for field, (low, high, names) in zip(fields, bounds, strict=True)]
        minutes, hours, days, months, week = sets
        either = not fields[2].startswith("*") and not fields[4].startswith("*")
        made = cls(minutes, hours, days, months, frozenset(day % 7 for day in week), either)
        if not any(made._on(date(2024, 1, 1) + timedelta(days=day)) for day in range(_FAR)):
            raise ValueError(f"{text[:60]!r} names a day that never comes")
        return made

    def latest(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """The last instant at or before `now`, in UTC."""
        day = now.astimezone(zone).date() + timedelta(days=1)
        for back in range(_FAR):
            # A night without an hour may put a time of one day behind the first of the next.
            near = [*self._instants(day - timedelta(days=back), zone), *self._instants(day - timedelta(days=back + 1), zone)]
            if due := [at for at in near if at <= now]:
                return max(due)
        return None

    def next(self, now: datetime, zone: ZoneInfo) -> datetime | None:
        """The first instant after `now`, in UTC."""
        day = now.astimezone(zone).date() - timedelta(days=1)
        for on in range(_FAR):
            near = [*self._instants(day + timedelta(days=on), zone), *self._instants(day + timedelta(days=on + 1), zone)]
            if later := [at for at in near if at > now]:
                return min(later)
        return None

    def _on(self, day: date) -> bool:
        monthly, weekly = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((monthly or weekly) if self.either else (monthly and weekly))

    def _instants(self, day: date, zone: ZoneInfo) -> Iterator[datetime]:
        if self._on(day):
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    yield datetime.combine(day, time(hour, minute), tzinfo=zone).astimezone(UTC)


def _field(text: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        whole, _, step = part.partition("/")
        first, dash, last = whole.partition("-")
        if whole == "*":
            begin, end = low, high
        else:
            begin = _number(first, low, names, part)
            end = _number(last, low, names, part) if dash else (high if step else begin)
        by = int(step) if re.fullmatch(r"[0-9]{1,4}", step) else (0 if step or part.endswith("/") else 1)
        if not low <= begin <= end <= high or by < 1:
            raise ValueError(f"{part[:30]!r} is not within {low}-{high} of a cron's field")
        found.update(range(begin, end + 1, by))
    return frozenset(found)


def _number(text: str, low: int, names: tuple[str, ...], part: str) -> int:
    if text in names:
        return names.index(text) + (1 if low else 0)
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise ValueError(f"{part[:30]!r} is no part of a cron; write numbers, *, a-b, a,b or */n")
    return int(text)
