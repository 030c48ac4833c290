"""What the HTTP app may ask of an engine. No torch, no HTTP: the app is written against this, and every engine fulfils it.

The values live in domain/serving.py, where backends/vllm.py (another engine) finds them too; they are named here again, so that
the app has one place to import from. Notes for who writes the app:

- Errors come from the first step of the iterator, so ask for the first Piece before the status line is sent: Full (429, with
  error.retry_after seconds), NotServed (404), BadInput and Misuse (400), TryLater (503: no release yet, or the engine stops);
  Broken in the middle of an answer ends its stream with an error.
- To cancel, close the iterator (`await pieces.aclose()`, or end the task that runs over it);
  its slot is free with the next token.
- For n > 1, ask n times, each with an id and, where a seed was given, a seed of its own (seed + number).
- `start` and `close` block; call them in a thread (asyncio.to_thread) from a lifespan.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from pipeline.domain.serving import Ask as Ask
from pipeline.domain.serving import Full as Full
from pipeline.domain.serving import Health as Health
from pipeline.domain.serving import Labelled as Labelled
from pipeline.domain.serving import NotServed as NotServed
from pipeline.domain.serving import Piece as Piece
from pipeline.domain.serving import Release as Release
from pipeline.domain.serving import Swap as Swap
from pipeline.domain.serving import TokenChance as TokenChance


class Engine(Protocol):
    """Answers, from releases that it follows in the ledger."""

    def start(self) -> None:
        """Load who holds the served stage and begin to follow. Returns when that is done; health() says how it went."""
        ...

    def close(self) -> None:
        """Answer nobody any more: what waits and what runs ends with TryLater. Safe to repeat."""
        ...

    def ask(self, ask: Ask) -> AsyncIterator[Piece]:
        """An async generator: has aclose(). The first step raises what is wrong with the request."""
        ...

    async def classify(self, ask: Ask) -> Labelled:
        """Labels for ask.text."""
        ...

    def releases(self) -> tuple[Release, ...]:
        """Who can answer now without being loaded first; production before others."""
        ...

    def health(self) -> Health:
        """How it stands; cheap, may be called at any time from any thread."""
        ...

    def feedback(self, ask_id: str, good: bool) -> None:
        """Note what a person thought of an answer. Raises NotServed for an id that is not (or no longer) remembered."""
        ...

    def count(self, ask: Ask) -> int:
        """Tokens of the prompt, before it is queued; what limits are held against. Raises BadInput."""
        ...
