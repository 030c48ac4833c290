"""The answers of one request: asked together, made by one release, ended together. No HTTP enters.

A request may want several answers. The first one finds out which release answers; the others are asked of that very release, so
that one name is true of all, whatever is promoted meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from pipeline.serving.asked import Ask, Engine, Piece, Release
from pipeline.serving.http.wanted import Wanted, pinned

_AHEAD = 64
T = TypeVar("T")


class Answering:
    """Answers under way. `open` raises what is wrong with the request; `pieces` gives them as they come; `close` frees slots."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine = engine
        self._wanted = wanted
        self._rows: list[AsyncIterator[Piece]] = []
        self._first: list[Piece] = []
        self._pumps: list[asyncio.Task[None]] = []

    @property
    def release(self) -> Release:
        return self._first[0].release

    async def open(self) -> None:
        """Wait for the first piece of every answer."""
        try:
            head, *others = self._wanted.asks
            self._first.append(await self._begin(head))
            others = [pinned(ask, self.release) for ask in others]
            self._first += await together([self._begin(ask) for ask in others])
        except BaseException:
            await self.close()
            raise

    async def _begin(self, ask: Ask) -> Piece:
        row = self._engine.ask(ask)
        self._rows.append(row)
        return await anext(row)

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """(choice, piece), those of one choice in order."""
        if len(self._rows) == 1:
            yield 0, self._first[0]
            async for piece in self._rows[0]:
                yield 0, piece
            return
        for choice, piece in enumerate(self._first):
            yield choice, piece
        queue: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue(_AHEAD)
        self._pumps = [asyncio.create_task(_pump(choice, row, queue)) for choice, row in enumerate(self._rows)]
        left = len(self._rows)
        while left:
            choice, came = await queue.get()
            if isinstance(came, Exception):
                raise came
            if came is None:
                left -= 1
            else:
                yield choice, came

    async def close(self) -> None:
        """End what is under way. Safe to repeat."""
        pumps, self._pumps = self._pumps, []
        for pump in pumps:
            pump.cancel()
        if pumps:
            await asyncio.wait(pumps)
        rows, self._rows = self._rows, []
        for row in rows:
            with suppress(RuntimeError):  # another task is inside it, and is being ended itself
                await row.aclose()  # type: ignore[attr-defined]


async def _pump(choice: int, row: AsyncIterator[Piece], queue: asyncio.Queue[tuple[int, Piece | Exception | None]]) -> None:
    try:
        async for piece in row:
            await queue.put((choice, piece))
        await queue.put((choice, None))
    except Exception as error:
        await queue.put((choice, error))


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order; when one fails the others are ended first, and its error is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
