"""What is asked of the store of feedback: by the server, which binds remarks to answers, and by who takes them into snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from pipeline.domain.feedback import GivenAnswer, Remark


class FeedbackBook(Protocol):
    """Answers for a while, remarks for good. Nothing comes here that personal data was not redacted from."""

    def keep(self, answers: Sequence[GivenAnswer], *, before: datetime, most: int) -> None:
        """Keep answers so that remarks can be bound to them. before: answers older than that go, and of a model's answers the
        oldest beyond `most`."""
        ...

    def find(self, model: str, id: str) -> GivenAnswer | None:
        """An answer that is still kept."""
        ...

    def say(self, remark: Remark) -> bool:
        """Keep a remark; False when the very same was said before. Raises Conflict when its caller said another of the answer."""
        ...

    def after(self, model: str, number: int, *, until: datetime | None = None) -> Iterator[tuple[int, Remark]]:
        """Remarks that came after the one with `number`, in their order, numbered from 1; up to the first one after `until`."""
        ...

    def waiting(self, model: str) -> int:
        """How many rows a model could learn from remarks that are in no snapshot yet."""
        ...
