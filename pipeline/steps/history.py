"""Tell what happened to a model or a stage, event by event, in sentences. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.domain.erasure import erasures
from pipeline.domain.lineage import Holding
from pipeline.domain.record import Value
from pipeline.domain.reigns import of_stage
from pipeline.domain.release import Event, EventKind
from pipeline.domain.wording import no_such_model
from pipeline.errors import Misuse
from pipeline.moving import known_events
from pipeline.ports import Ledger


class HistoryRow(Value):
    """An event, and the sentence that says it."""

    event: Event
    sentence: str


def history(model: str, stage: str | None = None, *, ledger: Ledger, last: int | None = None) -> tuple[HistoryRow, ...]:
    """A model's events, oldest first; of one stage, if given. Raises Misuse for an unknown model or a stage never named.

    last: no more than so many, the newest; they are looked up, rather than all events read and proven.
    """
    if last is not None:
        found = ledger.latest(model, stage, count=last)
        if any(stage is None or e.stage == stage for e in found):
            return tuple(HistoryRow(event=e, sentence=_sentence(e)) for e in found)
    events = known_events(model, ledger)
    if stage is None:
        return tuple(HistoryRow(event=e, sentence=_sentence(e)) for e in events)
    named = sorted({e.stage for e in events if e.stage})
    if stage not in named:
        raise Misuse(
            f"nothing has happened to a stage {stage[:60]!r}", fix=f"stages with a history: {', '.join(named) or 'none'}"
        )
    return tuple(HistoryRow(event=e, sentence=_sentence(e)) for e in events if of_stage(e, stage))


def at(model: str, stage: str, when: datetime, *, ledger: Ledger, stages: Sequence[str] = ()) -> Holding:
    """Who held `stage` at an instant, by which event, and until which; looked up, rather than all events read and proven.

    Raises Misuse for an unknown model or stage, or a naive time.
    """
    if when.tzinfo is None:
        raise Misuse(f"{when.isoformat()} names no instant", fix="give it an offset, as in 2026-11-23T09:30+01:00")
    if ledger.head(model)[0] == 0:
        raise no_such_model(model, ledger.models())
    known = dict.fromkeys([*stages, *ledger.stages(model)])
    if stage not in known:
        raise Misuse(f"there is no stage {stage[:60]!r}", fix=f"stages: {', '.join(known) or 'none'}")
    reign = ledger.reign(model, stage, when)
    version, since, until = (reign.version, reign.since, reign.until) if reign else (None, None, None)
    return Holding(model=model, stage=stage, at=when.isoformat(), version=version, event=since, until=until)


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
        EventKind.REFUSED: f"{event.actor} refused version {event.version} for {event.stage}",
        EventKind.PROMOTED: f"{event.actor} promoted version {event.version} to {event.stage}{after}",
        EventKind.ROLLED_BACK: f"{event.actor} rolled {event.stage} back from {event.leaves} to {event.version}",
        EventKind.REVOKED: f"{event.actor} revoked version {event.version}",
        EventKind.ADOPTED: f"{event.actor} adopted version {event.version}, which a hand had put on {event.stage}{after}",
        EventKind.JUDGED: f"{event.actor} had a candidate judged",
    }[event.event]
    return f"{said}: {event.reason}"
