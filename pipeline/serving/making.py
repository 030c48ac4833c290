"""What an engine needs of that which makes answers: to load releases, to ask them, to forget them. No release is chosen here.

built_in.py makes answers in this process; backends/vllm.py has a vLLM server make them. Who answers is engine.py's to say.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Protocol

from pipeline.domain.record import FileDigest
from pipeline.domain.serving import Ask, Labelled, Piece, Release


class Maker(Protocol):
    """Handles are its own: whoever holds one gives it back as it came."""

    def start(self) -> None:
        """Get ready to load. Safe to repeat, also after it failed. Raises what is wrong (no base, no server)."""
        ...

    def close(self) -> None:
        """End what waits and runs with TryLater. Safe to repeat."""
        ...

    def load(self, name: str, folder: Path, files: tuple[FileDigest, ...]) -> Any:
        """Verify the adapter in `folder` against its digests, load it beside those that answer, warm it up; returns its handle.

        name: model@version#digest, never used for another. Those that answer go on meanwhile. Raises Broken, Tampered, Misuse or
        TryLater, with nothing changed.
        """
        ...

    def unload(self, handle: Any) -> None:
        """Forget a release that nobody asks any more."""
        ...

    def answer(self, handle: Any, ask: Ask, release: Release) -> AsyncGenerator[Piece, None]:
        """Pieces of one answer by that very handle. Raises Full when too many wait. Closing it frees its place."""
        ...

    async def label(self, handle: Any, ask: Ask, release: Release) -> Labelled: ...

    def count(self, handle: Any, ask: Ask) -> int:
        """Tokens of the prompt."""
        ...

    def load_now(self) -> tuple[int, int]:
        """How many asks wait, and how many are being answered."""
        ...
