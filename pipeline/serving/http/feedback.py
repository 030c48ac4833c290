"""POST /v1/feedback: what people think of answers, each bound to the answer, to who asked for it and to the release that gave it.

Every answer is remembered for a while: who asked, in memory; and, where params want it, the question and the answer, redacted, in
the store of feedback. Only who asked may judge, once; another's answer is not there for it. Thumbs steer canary releases at once
(Engine.feedback); all else waits for the next snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.domain.feedback import GivenAnswer, Remark, RemarkKind, caller_digest
from pipeline.errors import Conflict, TryLater
from pipeline.params.serve import FeedbackParams
from pipeline.ports import FeedbackBook
from pipeline.serving.asked import Ask, Engine, Labelled, NotServed, Release
from pipeline.serving.http.access import Caller
from pipeline.serving.http.fields import Fields
from pipeline.serving.http.keeping import Keeper
from pipeline.serving.http.problems import Problem, bad
from pipeline.serving.http.shapes import Shape
from pipeline.serving.http.wanted import Wanted

LOG = logging.getLogger("tuneline.serve")
_REMEMBERED = 10_000
_FRESH = 2000
_COMMENT = 2000
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Said:
    """What a request says of an answer. over: the id of the answer that it was better than."""

    id: str
    good: bool | None
    corrected: str | None
    over: str | None
    comment: str | None


class FeedbackDesk:
    """redact: takes personal data out of a text. book: None where nothing is to be kept but thumbs for canary releases."""

    def __init__(
        self,
        model: str,
        engine: Engine,
        params: FeedbackParams,
        *,
        book: FeedbackBook | None = None,
        redact: Callable[[str], str] = lambda text: text,
        keeper: Keeper | None = None,
    ) -> None:
        self._model = model
        self._engine = engine
        self._params = params
        self._book = book if params.keep_hours else None
        self._redact = redact
        self._keeper = keeper
        self._lock = threading.Lock()
        self._askers: OrderedDict[str, str] = OrderedDict()
        self._thumbs: OrderedDict[str, bool] = OrderedDict()
        self._fresh: OrderedDict[str, GivenAnswer] = OrderedDict()

    def answered(self, caller: Caller, wanted: Wanted, shape: Shape, release: Release) -> None:
        """Remember the answers of a request."""
        for ask, choice in zip(wanted.asks, shape.choices, strict=True):
            asked: Any = _messages(ask) if ask.messages is not None else ask.prompt or ""
            self._remember(caller, ask.id, release, asked, "".join(choice.text), ())

    def labelled(self, caller: Caller, wanted: Wanted, found: Sequence[Labelled], release: Release) -> None:
        """Remember the labels of a request."""
        for ask, one in zip(wanted.asks, found, strict=True):
            names = tuple(sorted(name for name, _ in one.labels))
            self._remember(caller, ask.id, release, ask.text or "", one.labels[0][0], names)

    def _remember(self, caller: Caller, id: str, release: Release, asked: Any, answered: str, labels: tuple[str, ...]) -> None:
        who = caller_digest(self._model, caller.id)
        with self._lock:
            self._askers[id] = who
            while len(self._askers) > _REMEMBERED:
                self._askers.popitem(last=False)
        length = len(answered) + (len(asked) if isinstance(asked, str) else sum(len(m["content"]) for m in asked))
        if self._book is None or length > self._params.max_chars or not answered.strip():
            return
        given = GivenAnswer(
            id=id,
            model=self._model,
            release=release.name,
            digest=release.digest,
            caller=who,
            at=datetime.now(UTC),
            asked=asked,
            answered=answered,
            labels=labels,
        )
        with self._lock:
            if len(self._fresh) >= _FRESH:
                return
            self._fresh[id] = given
        if self._keeper is not None and not self._keeper.put(self._flush):
            with self._lock:
                self._fresh.pop(id, None)

    def _flush(self) -> None:
        """Write what is fresh; by the keeper's thread."""
        if self._book is None:
            return
        with self._lock:
            some = list(self._fresh.items())[:_AT_ONCE]
        if not some:
            return
        before = datetime.now(UTC) - timedelta(hours=self._params.keep_hours)
        try:
            self._book.keep([self._clean(given) for _, given in some], before=before, most=self._params.max_answers)
        finally:
            with self._lock:
                for id, _ in some:
                    self._fresh.pop(id, None)

    def _clean(self, given: GivenAnswer) -> GivenAnswer:
        if isinstance(given.asked, str):
            asked: Any = self._redact(given.asked)
        else:
            asked = [{"role": m["role"], "content": self._redact(m["content"])} for m in given.asked]
        # A label is one of a known few; to alter it would make it none.
        answered = given.answered if given.labels else self._redact(given.answered)
        return given.model_copy(update={"asked": asked, "answered": answered})

    async def take(self, body: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """Take a request's feedback, and say what was understood. Raises Problem."""
        said = self._read(Fields(body))
        who = caller_digest(self._model, caller.id)
        shown: dict[str, Any] = {"id": said.id, "object": "feedback"}
        if self._book is None:
            if said.good is None or said.corrected is not None or said.over is not None or said.comment is not None:
                raise bad("this server keeps no answers (serve.feedback.keep_hours is 0): only good can be said", "good")
            self._check_asker(said.id, who)
            self._thumb(said.id, said.good)
            return {**shown, "good": said.good}
        release = await asyncio.to_thread(self._keep_remarks, said, who)
        told = {"good": said.good, "corrected": said.corrected is not None or None, "over": said.over}
        return {**shown, "release": release, **{name: value for name, value in told.items() if value is not None}}

    def _check_asker(self, id: str, who: str) -> None:
        with self._lock:
            known = self._askers.get(id) == who
        if not known:
            raise _unknown(id)

    def _keep_remarks(self, said: Said, who: str) -> str:
        """Bind what was said to its answer and keep it; the release that gave the answer."""
        assert self._book is not None
        given = self._find(said.id, who)
        other = self._find(said.over, who) if said.over is not None else None
        if other is not None and other.question != given.question:
            raise bad("over must name another answer to the same question", "over")
        if said.corrected is not None and given.labels and said.corrected not in given.labels:
            raise bad(f"corrected must be one of the {len(given.labels)} labels of {given.release}", "corrected")
        comment = self._redact(said.comment) if said.comment is not None else None
        now, remarks = datetime.now(UTC), []
        if said.corrected is not None:
            text = said.corrected if given.labels else self._redact(said.corrected)
            remarks.append(Remark(answer=given, kind=RemarkKind.CORRECTED, at=now, text=text, comment=comment))
        if other is not None:
            kind, text = RemarkKind.PREFERRED, other.answered
            remarks.append(Remark(answer=given, kind=kind, at=now, text=text, over=other.id, comment=comment))
        if said.good is not None:
            remarks.append(Remark(answer=given, kind=RemarkKind.GOOD, at=now, good=said.good, comment=comment))
        try:
            fresh = [self._book.say(remark) for remark in remarks]
        except Conflict as error:
            raise Problem(409, "already_given", error.what, param="id") from None
        except TryLater as error:
            raise Problem(503, "not_ready", error.what, headers={"retry-after": "1"}) from None
        # What should have been something else was not good, whoever leaves it at that.
        good = said.good if said.good is not None else False if said.corrected is not None else None
        if good is not None and any(fresh):
            with suppress(Problem):
                self._thumb(said.id, good)
        return given.release

    def _find(self, id: str, who: str) -> GivenAnswer:
        assert self._book is not None
        with self._lock:
            fresh = self._fresh.get(id)
        given = self._clean(fresh) if fresh is not None else self._book.find(self._model, id)
        oldest = datetime.now(UTC) - timedelta(hours=self._params.keep_hours)
        if given is None or given.caller != who or given.at < oldest:
            raise _unknown(id)
        return given

    def _thumb(self, id: str, good: bool) -> None:
        """Tell the engine, once an answer: else one caller could stop a canary release by saying the same again and again."""
        with self._lock:
            before = self._thumbs.get(id)
        if before is None:
            try:
                self._engine.feedback(id, good)
            except NotServed:
                raise _unknown(id) from None
            with self._lock:
                self._thumbs[id] = good
                while len(self._thumbs) > _REMEMBERED:
                    self._thumbs.popitem(last=False)
        elif before is not good:
            raise Problem(409, "already_given", "this caller has said something else of this answer before", param="id")

    def _read(self, fields: Fields) -> Said:
        preferred, over = fields.take("preferred"), fields.take("over")
        good = fields.flag("good") if fields.has("good") else None
        corrected = fields.text("corrected", longest=self._params.max_chars) if fields.has("corrected") else None
        comment = fields.text("comment", longest=_COMMENT) if fields.has("comment") else None
        if corrected is not None and not corrected.strip():
            raise bad("corrected must say something", "corrected")
        if isinstance(preferred, str) and not fields.has("id"):
            id: str = _an_id(preferred, "preferred")
        else:
            id = fields.text("id", longest=100)
        fields.done()
        if (preferred is None) is not (over is None):
            raise bad("preferred and over belong together", "over" if over is None else "preferred")
        better, worse = _named(id, preferred, "preferred"), _named(id, over, "over")
        if better is not None and better == worse:
            raise bad("over must name another answer than preferred", "over")
        if isinstance(preferred, str) and id not in (better, better.rpartition("-")[0] if better else None):
            raise bad("preferred is not an answer of id; leave id out where two answers are named", "preferred")
        if good is None and corrected is None and better is None:
            raise bad("say good, corrected, or preferred and over", "good", "missing_required_parameter")
        return Said(better or id, good, corrected, worse, comment)


def _named(id: str, value: Any, param: str) -> str | None:
    """The answer that a number (the choice of the request `id`) or an id names."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10_000:
        return f"{id}-{value}"
    return _an_id(value, param)


def _an_id(value: Any, param: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 100:
        raise bad(f"{param} must be the number of a choice, or the id of an answer", param)
    return value


def _messages(ask: Ask) -> list[dict[str, str]]:
    return [{"role": str(m["role"]), "content": str(m["content"])} for m in ask.messages or ()]


def _unknown(id: str) -> Problem:
    return Problem(404, "answer_not_found", "there is no such answer of yours here, or it is too long ago", param="id")
