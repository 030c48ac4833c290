"""What people think of answers: remarks bound to the answer and to the release that gave it, and the rows they become. Pure.

An remark says one thing: how good an answer was, what it should have been, or that it was better than another. One caller says
each of them once of an answer. How remarks are kept is backends/feedback.py's subject, how they are taken into a snapshot
backends/sources/feedback.py's.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime

from pipeline.domain.record import Value, digest_value

ORIGIN = "feedback"
"""What records call where feedback comes from; of one caller: feedback/ and the caller's digest."""
CALLER_DIGITS = 12


class RemarkKind(StrEnum):
    GOOD = "good"
    """A thumb: up or down."""
    CORRECTED = "corrected"
    """The answer it should have been."""
    PREFERRED = "preferred"
    """That it was better than another answer to the same question."""


class GivenAnswer(Value):
    """An answer of a release as it is kept for a while, so that feedback can be bound to it. Personal data is redacted.

    id: of the answer. caller: digest of who asked (see caller_digest). asked: messages of role and content, or a text. answered:
    the text, or the label. labels: of a classifier, all it can give.
    """

    id: str
    model: str
    release: str
    digest: str
    caller: str
    at: AwareDatetime
    asked: list[dict[str, str]] | str
    answered: str
    labels: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """What was asked, as one text that is equal where the question is."""
        return digest_value(self.asked)


class Remark(Value):
    """One thing that a caller said of an answer. good: of a thumb. text: the corrected answer, or the other answer of a
    preference, which `over` names. comment: what was said beside it; for people, never learned from."""

    answer: GivenAnswer
    kind: RemarkKind
    at: AwareDatetime
    good: bool | None = None
    text: str | None = None
    over: str | None = None
    comment: str | None = None


def caller_digest(model: str, key_id: str) -> str:
    """What a caller is called where its key's id must not stand: equal for equal keys, of one model."""
    return digest_value(["caller", model, key_id])[:CALLER_DIGITS]


def from_users(origin: str) -> bool:
    """Whether an origin of rows (SourceFile.origin) is users' feedback."""
    return origin.startswith(f"{ORIGIN}/")


def origin_of(caller: str) -> str:
    return f"{ORIGIN}/{caller}"


def rows_of(remark: Remark) -> list[tuple[str, dict[str, Any]]]:
    """(format, row) of what a model can learn from a remark: see docs/formats.md for the formats.

    A thumb is a row of feedback; for a classifier, a thumb up confirms the label. A correction is an answer to learn, and a pair
    in which it is preferred to what was answered. A preference is a pair. What equals itself teaches nothing.
    """
    given = remark.answer
    meta = {"answer_id": given.id, "release": given.release}
    if given.labels:
        label = remark.text if remark.kind is RemarkKind.CORRECTED else given.answered if remark.good else None
        return [("classification", {"text": given.asked, "label": label, **meta})] if label else []
    asked = given.asked if isinstance(given.asked, list) else [{"role": "user", "content": given.asked}]
    if remark.kind is RemarkKind.GOOD:
        return [("feedback", {"messages": [*asked, _said(given.answered)], "label": bool(remark.good), **meta})]
    if remark.text is None or remark.text == given.answered:
        return []
    if remark.kind is RemarkKind.PREFERRED:
        return [("preference", {"prompt": asked, "chosen": _said(given.answered), "rejected": _said(remark.text), **meta})]
    return [
        ("chat", {"messages": [*asked, _said(remark.text)], **meta}),
        ("preference", {"prompt": asked, "chosen": _said(remark.text), "rejected": _said(given.answered), **meta}),
    ]


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
