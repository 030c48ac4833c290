"""Whether a release keeps the declared objectives: errors, latency, refusals and feedback over its last requests. Pure.

Nothing is decided on fewer requests than were asked for; what breaks an objective is told in a sentence with its numbers.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol


class Objectives(Protocol):
    """What is kept (params/serve.py); None: not kept."""

    @property
    def errors(self) -> float | None: ...
    @property
    def p95_seconds(self) -> float | None: ...
    @property
    def refusals(self) -> float | None: ...
    @property
    def bad_feedback(self) -> float | None: ...
    @property
    def min_requests(self) -> int: ...
    @property
    def window(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. seconds: to its end; refused: the answer is empty or a refusal."""

    failed: bool
    seconds: float
    refused: bool = False


class Watch:
    """The last requests of one release."""

    def __init__(self, objectives: Objectives) -> None:
        self._asked = objectives
        self._outcomes: deque[Outcome] = deque(maxlen=objectives.window)
        self._feedback: deque[bool] = deque(maxlen=objectives.window)

    def note(self, outcome: Outcome) -> str | None:
        """Add one; what is broken by now, or None."""
        self._outcomes.append(outcome)
        return self.broken()

    def heard(self, good: bool) -> str | None:
        """Add what a person said of an answer; what is broken by now, or None."""
        self._feedback.append(good)
        return self.broken()

    def broken(self) -> str | None:
        asked, seen = self._asked, len(self._outcomes)
        if seen >= asked.min_requests:
            failed = sum(one.failed for one in self._outcomes)
            if asked.errors is not None and failed > asked.errors * seen:
                return f"{failed} of its last {seen} requests failed; {asked.errors:.1%} may"
            answered = [one for one in self._outcomes if not one.failed]
            late = _p95([one.seconds for one in answered])
            if asked.p95_seconds is not None and late is not None and late > asked.p95_seconds:
                return f"95 in 100 of its last {seen} answers took up to {late:.2f} s; {asked.p95_seconds:.2f} s are allowed"
            refused = sum(one.refused for one in answered)
            if asked.refusals is not None and refused > asked.refusals * len(answered):
                return f"{refused} of its last {len(answered)} answers were empty or refusals; {asked.refusals:.1%} may be"
        judged = len(self._feedback)
        bad = judged - sum(self._feedback)
        if asked.bad_feedback is not None and judged >= asked.min_requests and bad > asked.bad_feedback * judged:
            return f"{bad} of the last {judged} judgements of its answers were bad; {asked.bad_feedback:.1%} may be"
        return None


def _p95(seconds: list[float]) -> float | None:
    return sorted(seconds)[max(0, math.ceil(0.95 * len(seconds)) - 1)] if seconds else None
