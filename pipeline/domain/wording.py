"""What people say to the ledger: which words are taken, and which instant a text means. Pure; no clock is read here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo

from pipeline.errors import Misuse

ACTOR_LENGTH = 200
REASON_LENGTH = 2000


def check_words(*, actor: str, reason: str, **others: str | None) -> None:
    """Refuse, all in one Misuse, what no store should be given: empty, overlong, control characters, broken Unicode.

    SQLite takes a NUL and PostgreSQL does not; here neither does. A reason may have lines and tabs, nothing else may.
    """
    problems = [
        *_wrong("actor", actor, ACTOR_LENGTH),
        *_wrong("reason", reason.replace("\n", " ").replace("\t", " "), REASON_LENGTH),
        *(p for name, text in others.items() if text is not None for p in _wrong(name, text, ACTOR_LENGTH)),
    ]
    if problems:
        raise Misuse("; ".join(problems), fix="say who (--by) and why (--reason) in plain text")


def no_such_model(model: str, models: Iterable[str]) -> Misuse:
    """The error for a model without events."""
    there = ", ".join(models)
    return Misuse(
        f"the ledger knows no model {model!r}", fix=f"there are: {there}" if there else "nothing was registered yet: tuneline run"
    )


def instant(text: str, zone: str = "UTC") -> datetime:
    """The instant, in UTC, that an ISO 8601 text means; without an offset it is wall-clock time in `zone`.

    A date alone is its last moment there, since "what held production on that day" asks for the state the day ended with.
    Raises Misuse for what is no date, and for wall-clock times that a change of the clocks skips or repeats.
    """
    try:
        tz = ZoneInfo(zone)
    except (ValueError, OSError, KeyError) as error:
        raise Misuse(f"{zone[:60]!r} is no time zone", fix="write one like UTC or Europe/Berlin") from error
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise Misuse(
            f"{text[:60]!r} is no date or time", fix="write 2026-11-23, 2026-11-23T09:30 or 2026-11-23T09:30+01:00"
        ) from error
    if re.fullmatch(r"\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d-?\d", text):
        read = read.replace(hour=23, minute=59, second=59, microsecond=999_999)
    if read.tzinfo is not None:
        return read.astimezone(UTC)
    return _only_reading(read, tz)


def _only_reading(wall: datetime, tz: ZoneInfo) -> datetime:
    """Wall-clock time to UTC, refusing the hour that is skipped in spring and the one that comes twice in autumn."""
    first, second = (wall.replace(tzinfo=tz, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first.astimezone(UTC)
    said = "was skipped" if first.astimezone(UTC).astimezone(tz).replace(tzinfo=None) != wall else "came twice"
    raise Misuse(
        f"{wall.isoformat()} {said} in {tz.key}, where the clocks changed",
        fix=f"write the offset: {first.isoformat()} or {second.isoformat()}",
    )


def _wrong(name: str, text: str, longest: int) -> Iterator[str]:
    if not text.strip():
        yield f"{name} is empty"
    if len(text) > longest:
        yield f"{name} has {len(text)} characters, {longest} are allowed"
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in text):
        yield f"{name} holds a control character"
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        yield f"{name} is not valid Unicode"


def without_password(address: str) -> str:
    """An address as it may be shown: no user, no password, no query."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
