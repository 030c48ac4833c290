"""Tell what happened to a model or a stage, event by event, in sentences. Changes nothing."""

from __future__ import annotations

from pipeline.domain.erasure import erasures
from pipeline.domain.record import Value
from pipeline.domain.release import Event, EventKind
from pipeline.errors import Misuse
from pipeline.moving import known_events
from pipeline.ports import Ledger


class HistoryRow(Value):
    """An event, and the sentence that says it."""

    event: Event
    sentence: str


def history(model: str, stage: str | None = None, *, ledger: Ledger) -> tuple[HistoryRow, ...]:
    """A model's events, oldest first; of one stage, if given. Raises Misuse for an unknown model or a stage never named."""
    events = known_events(model, ledger)
    if stage is None:
        return tuple(HistoryRow(event=e, sentence=_sentence(e)) for e in events)
    named = sorted({e.stage for e in events if e.stage})
    if stage not in named:
        raise Misuse(
            f"nothing has happened to a stage {stage[:60]!r}", fix=f"stages with a history: {', '.join(named) or 'none'}"
        )
    return tuple(HistoryRow(event=e, sentence=_sentence(e)) for e in events if e.stage == stage or _ends_reigns(e))


def _ends_reigns(event: Event) -> bool:
    return event.event in (EventKind.REVOKED, EventKind.ERASED)


def _erasure(event: Event) -> str:
    """The records themselves are in no event; their keyed digests tell one request from another."""
    ((_, erasure),) = erasures([event])
    named = (*erasure.texts, *erasure.ids)[:1]
    what = f"{erasure.rows} row{'' if erasure.rows == 1 else 's'} ({', '.join(f'keyed:{one}' for one in named)})"
    behind = f", behind {', '.join(f'version {version}' for version in erasure.versions)}" if erasure.versions else ""
    return f"purged {what} and {len(erasure.files)} stored files{behind}" if erasure.purge else f"forgot {what}{behind}"


def _sentence(event: Event) -> str:
    after = f" after {event.leaves}" if event.leaves else ""
    if event.event is EventKind.ERASED:
        return f"{event.actor} {_erasure(event)}: {event.reason}"
    said = {
        EventKind.REGISTERED: f"{event.actor} registered version {event.version}",
        EventKind.APPROVED: f"{event.actor} approved version {event.version} for {event.stage}",
        EventKind.PROMOTED: f"{event.actor} promoted version {event.version} to {event.stage}{after}",
        EventKind.ROLLED_BACK: f"{event.actor} rolled {event.stage} back from {event.leaves} to {event.version}",
        EventKind.REVOKED: f"{event.actor} revoked version {event.version}",
        EventKind.JUDGED: f"{event.actor} had a candidate judged",
    }[event.event]
    return f"{said}: {event.reason}"
