"""What is asked of the store of feedback: by the server, which binds opinions to answers, and by who takes them into snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from pipeline.domain.feedback import GivenAnswer, Opinion


class FeedbackBook(Protocol):
    """Answers for a while, opinions for good. Nothing comes here that personal data was not redacted from."""

    def keep(self, answers: Sequence[GivenAnswer], *, before: datetime, most: int) -> None:
        """Keep answers so that opinions can be bound to them. before: answers older than that go, and of a model's answers the
        oldest beyond `most`."""
        ...

    def find(self, model: str, id: str) -> GivenAnswer | None:
        """An answer that is still kept."""
        ...

    def say(self, opinion: Opinion) -> bool:
        """Keep an opinion; False when the very same was said before. Raises Conflict when the caller said another of this answer."""
        ...

    def after(self, model: str, number: int, *, until: datetime | None = None) -> Iterator[tuple[int, Opinion]]:
        """Opinions that came after the one with `number`, in their order, numbered from 1; up to the first one after `until`."""
        ...

    def waiting(self, model: str) -> int:
        """How many rows a model could learn from opinions that are in no snapshot yet."""
        ...
