"""What a version must show before a stage takes it: gate, time or traffic in the stage before, approvals, no veto or freeze.

Pure: events, an instant and counts in, sentences out. Each sentence says what is missing and how to meet it, and all that is
missing is said at once. Reading clocks, counters and identities is the steps' work; the gate's record is re-read by promote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field, field_validator, model_validator

from pipeline.domain.opinions import opinions, vetoes
from pipeline.domain.record import Value
from pipeline.domain.reigns import reigns
from pipeline.domain.release import Event, EventKind, holder, registrations, stack

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = timedelta(days=1)


class _Rule(Value):
    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)


class Freeze(_Rule):
    """A time in which a stage takes nothing. All that is said of it must hold; wall-clock times are those of its zone."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """What the refusal calls it."""
    timezone: str = "UTC"
    """A zone of the IANA database, such as Europe/Berlin."""
    weekdays: Annotated[tuple[Weekday, ...], Field(strict=False)] = ()
    """mon to sun; none: every day. A window over midnight belongs to the day on which it begins."""
    start: str = "00:00"
    """HH:MM at which it begins."""
    end: str = "24:00"
    """HH:MM at which it ends; earlier than start: on the next day."""
    since: Annotated[date | None, Field(strict=False)] = None
    """The first day, as 2026-12-20; default: always."""
    until: Annotated[date | None, Field(strict=False)] = None
    """The last day."""

    @field_validator("timezone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, KeyError):
            raise ValueError(f"{zone[:60]!r} is no time zone; write one like UTC or Europe/Berlin") from None
        return zone

    @model_validator(mode="after")
    def _ordered(self) -> Freeze:
        for text in (self.start, self.end):
            if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00", text):
                raise ValueError(f'{text!r} is no time of day; write it in quotes, as "18:00"')
        if self.start == self.end or self.start == "24:00":
            raise ValueError("a freeze that begins when it ends is none")
        if self.since and self.until and self.until < self.since:
            raise ValueError("the last day of a freeze lies before its first")
        return self

    def holds(self, now: datetime) -> bool:
        """Whether `now` (timezone-aware) lies in it."""
        local = now.astimezone(ZoneInfo(self.timezone))
        clock = f"{local:%H:%M}"
        if self.start < self.end:
            return self.start <= clock < self.end and self._on(local.date())
        return (clock >= self.start and self._on(local.date())) or (clock < self.end and self._on(local.date() - _DAY))

    def _on(self, day: date) -> bool:
        within = (self.since is None or self.since <= day) and (self.until is None or day <= self.until)
        return within and (not self.weekdays or _WEEK[day.weekday()] in self.weekdays)


class ApprovalRules(_Rule):
    """Who must have approved. An approval names the digest of the version's record and a reason."""

    count: Annotated[int, Field(ge=0, le=100)] = 0
    """How many people must approve, each once."""
    roles: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Only approvals by people with one of these roles count; none: anyone's."""
    four_eyes: bool = True
    """Whoever registered the version, and whoever promotes it, does not count."""
    valid_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """Days after which an approval counts no more."""


class StageRules(_Rule):
    """What a version must show before it can hold a stage. The defaults ask for the gate's verdict only."""

    gate: bool = True
    """The gate's decision is read back, and must have passed this very adapter."""
    after: str | None = None
    """The stage it must hold, or have held and not been rolled back from."""
    hours: Annotated[float, Field(ge=0, le=87_600)] = 0.0
    """Hours it must have held that stage."""
    requests: Annotated[int, Field(ge=0)] = 0
    """Requests that it must have answered, as counted by tuneline serve."""
    approvals: ApprovalRules = ApprovalRules()
    freeze: Annotated[tuple[Freeze, ...], Field(strict=False)] = ()
    """Times in which the stage takes nothing. Rolling back is always possible."""
    roles: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Only people and services with one of these roles may move the stage, forward or back; none: anyone."""

    @model_validator(mode="after")
    def _check_after(self) -> StageRules:
        if (self.hours or self.requests) and self.after is None:
            raise ValueError("hours and requests are counted in a stage: say which, with after")
        return self


Roles = Mapping[str, frozenset[str]]
"""Name of a person or service → roles. None in its place: no identities are kept."""


def decide_promotion(
    events: Sequence[Event],
    version: str,
    stage: str,
    rules: StageRules,
    *,
    actor: str,
    now: datetime,
    traffic: int | None = None,
    roles: Roles | None = None,
) -> list[str]:
    """Every condition that `version` does not meet for `stage`, in words; empty when it may take it.

    traffic: requests it has answered so far; None where nobody counts. now: timezone-aware.
    """
    return [
        *role_missing(stage, rules, actor, roles),
        *_time_missing(events, version, rules, now),
        *_traffic_missing(version, rules, traffic),
        *refused(events, version, stage),
        *_approvals_missing(events, version, stage, rules.approvals, actor, now, roles),
        *_frozen(stage, rules, now),
    ]


def role_missing(stage: str, rules: StageRules, actor: str, roles: Roles | None) -> Iterator[str]:
    """Whether `actor` may move the stage at all; asked of rollbacks and revocations too."""
    if not rules.roles:
        return
    wanted = " or ".join(rules.roles)
    if roles is None:
        yield f"{stage} is moved by {wanted} only, and no identities say who that is: name their file (TUNELINE_IDENTITIES)"
    elif not roles.get(actor, frozenset()) & set(rules.roles):
        yield f"{stage} is moved by {wanted} only, which {actor} is not: let one of them do it"


def time_held(events: Sequence[Event], version: str, stage: str, now: datetime) -> timedelta:
    """How long a version has held a stage since it was last rolled back from it."""
    total = timedelta()
    for reign in reigns(events, stage):
        if reign.version != version:
            continue
        if reign.until is not None and reign.until.event in (EventKind.ROLLED_BACK, EventKind.REVOKED):
            total = timedelta()
        else:
            # A clock that was set back must not give time.
            total += max((reign.until.at if reign.until else now) - reign.since.at, timedelta())
    return total


def counted_approvals(
    events: Sequence[Event], version: str, stage: str, rules: ApprovalRules, actor: str, now: datetime, roles: Roles | None
) -> tuple[list[str], list[str]]:
    """(who has approved so that it counts, each approval that does not and why)."""
    author = registrations(events)[version].actor
    counted, left = [], []
    for who, event in opinions(events, version, stage).items():
        if event.event is not EventKind.APPROVED:
            continue  # said by refused
        if rules.four_eyes and who in (author, actor):
            left.append(f"{who}'s own does not count, as {'its author' if who == author else 'the one who promotes'}")
        elif event.at + timedelta(days=rules.valid_days) <= now:
            left.append(f"{who}'s has expired ({event.at:%Y-%m-%d %H:%M} UTC, valid for {rules.valid_days:g} days)")
        elif rules.roles and not (roles or {}).get(who, frozenset()) & set(rules.roles):
            left.append(f"{who} is not {' or '.join(rules.roles)}")
        else:
            counted.append(who)
    return counted, left


def _time_missing(events: Sequence[Event], version: str, rules: StageRules, now: datetime) -> Iterator[str]:
    if rules.after is None:
        return
    if version not in stack(events, rules.after):
        yield f"version {version} has not held {rules.after}: tuneline promote {version} --to {rules.after} --reason …"
        return
    held, wanted = time_held(events, version, rules.after, now), timedelta(hours=rules.hours)
    if held < wanted:
        still = (wanted - held).total_seconds() / 3600
        said = f"version {version} has held {rules.after} for {held.total_seconds() / 3600:.1f} of {rules.hours:g} hours"
        gone = "" if holder(events, rules.after) == version else f", and does not hold it now: promote it to {rules.after} again"
        yield f"{said}{gone or f': wait {still:.1f} hours'}"


def _traffic_missing(version: str, rules: StageRules, traffic: int | None) -> Iterator[str]:
    if not rules.requests:
        return
    if traffic is None:
        yield f"{rules.requests} requests in {rules.after} are asked for, and nobody counts: serve it with tuneline serve"
    elif traffic < rules.requests:
        yield f"version {version} has answered {traffic} of {rules.requests} requests in {rules.after}: let it answer more"


def _approvals_missing(
    events: Sequence[Event],
    version: str,
    stage: str,
    rules: ApprovalRules,
    actor: str,
    now: datetime,
    roles: Roles | None,
) -> Iterator[str]:
    if not rules.count:
        return
    if rules.roles and roles is None:
        yield (
            f"approvals by {' or '.join(rules.roles)} are asked for, and no identities say who that is: "
            "name their file (TUNELINE_IDENTITIES)"
        )
        return
    counted, left = counted_approvals(events, version, stage, rules, actor, now, roles)
    if len(counted) < rules.count:
        whose = f" by {' or '.join(rules.roles)}" if rules.roles else ""
        why = f" ({'; '.join(left)})" if left else ""
        yield (
            f"{len(counted)} of {rules.count} approvals{whose}{why}: "
            f"tuneline approve {version} --to {stage} --reason …, by another person"
        )


def refused(events: Sequence[Event], version: str, stage: str) -> Iterator[str]:
    """Who refused the version for the stage, and has not taken it back; this is asked whatever the rules are."""
    for event in vetoes(events, version, stage):
        who, why = event.actor, " ".join(event.reason.split())[:200]
        yield (
            f"{who} refused version {version} for {stage} on {event.at:%Y-%m-%d} ({why}): "
            f"only {who} can take that back, by tuneline approve {version} --to {stage} --reason …"
        )


def _frozen(stage: str, rules: StageRules, now: datetime) -> Iterator[str]:
    for freeze in rules.freeze:
        if freeze.holds(now):
            ends = f"until {freeze.end} {freeze.timezone}" if freeze.end != "24:00" else f"today, in {freeze.timezone}"
            yield f"{stage} takes nothing during {freeze.name} ({ends}): wait for its end; rolling back is possible"
