"""What an event of the ledger is told as. Pure: the event and what is known of it in, a notice out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pipeline.domain.notices import Notice, NoticeKind
from pipeline.domain.release import Event, EventKind

FRESH = timedelta(days=1)
"""A repeated deed that finds itself done tells of it only so long after: what was done before that is no news."""

_KINDS = {
    EventKind.APPROVED: NoticeKind.APPROVED,
    EventKind.REFUSED: NoticeKind.REFUSED,
    EventKind.PROMOTED: NoticeKind.PROMOTED,
    EventKind.ADOPTED: NoticeKind.PROMOTED,
    EventKind.ROLLED_BACK: NoticeKind.ROLLED_BACK,
    EventKind.REVOKED: NoticeKind.REVOKED,
}


def is_news(event: Event, *, by: str, reason: str, now: datetime) -> bool:
    """Whether whoever did (by, reason) just now is to tell of `event`, which may be one that an earlier try of theirs made.

    A deed that finds what somebody else did, or itself did long ago, changed nothing and tells nothing.
    """
    return event.event in _KINDS and (event.actor, event.reason) == (by, reason) and now - event.at < FRESH


def news_of(event: Event, *, holders: Mapping[str, str | None], missing: Sequence[str] = ()) -> Notice:
    """holders: stage → who holds it now. missing: for an approval, what the stage still asks for."""
    model, version, stage = event.model, event.version, event.stage
    title = {
        EventKind.APPROVED: f"{model}: {event.actor} approved version {version} for {stage}",
        EventKind.REFUSED: f"{model}: {event.actor} refused version {version} for {stage}",
        EventKind.PROMOTED: f"{model}: version {version} holds {stage}",
        EventKind.ADOPTED: f"{model}: version {version} holds {stage}, put there by hand and stood by",
        EventKind.ROLLED_BACK: f"{model}: {stage} was rolled back to version {version}",
        EventKind.REVOKED: f"{model}: version {version} was revoked",
    }[event.event]
    lines = [f"by {event.actor}: {event.reason}"]
    if event.leaves is not None:
        lines.append(f"version {event.leaves} held it before")
    if event.event is EventKind.REVOKED:
        lines += [f"{name} is held by {f'version {held}' if held else 'nobody'}" for name, held in holders.items()]
    if event.event is EventKind.APPROVED:
        lines += [f"missing: {said}" for said in missing] or [f"nothing is missing: it can take {stage}"]
    if event.event is EventKind.REFUSED:
        lines.append(f"{stage} does not take it until {event.actor} approves of it")
    if event.event in (EventKind.PROMOTED, EventKind.ADOPTED):
        lines.append(f"back: tuneline rollback --stage {stage} --leaving {version} --reason …")
    lines.append(f"event {event.sequence} of the ledger, {event.at:%Y-%m-%d %H:%M} UTC")
    return Notice(kind=_KINDS[event.event], model=model, title=title, lines=tuple(lines), id=event.digest)
