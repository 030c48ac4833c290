"""Has the shadow answer asks too, unheard: its share of them, and only while the machine has room to spare."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from pipeline.domain.serving import Ask, Full, Release
from pipeline.serving.alarms import Alarms
from pipeline.serving.following import Follower
from pipeline.serving.hot import Loaded
from pipeline.serving.making import Maker
from pipeline.serving.routing import of_share


class Count(Protocol):
    def __call__(self, **more: int) -> None: ...


class Shadowing:
    """share: of the asks. count: adds to the engine's totals."""

    def __init__(self, share: float, follower: Follower, maker: Maker, alarms: Alarms, count: Count) -> None:
        self._share, self._follower, self._maker, self._alarms, self._count = share, follower, maker, alarms, count
        self.under_way: set[asyncio.Task[None]] = set()

    def begin(self, ask: Ask, answered_by: Release, answered: Callable[[Release], None]) -> None:
        """Answer `ask` unheard, if it is the shadow's. answered: is told of the shadow's release when it has."""
        loaded = self._follower.routes.shadow
        if loaded is None or loaded.release.version == answered_by.version or not of_share("shadow", ask.id, self._share):
            return
        waiting, _ = self._maker.load_now()
        if waiting or not self._follower.hot.hold(loaded):
            self._count(shadow_skipped=1)
            return
        unheard = self._answer(replace(ask, id=f"{ask.id}/shadow"), loaded, answered)
        task = asyncio.get_running_loop().create_task(unheard)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def _answer(self, ask: Ask, loaded: Loaded, answered: Callable[[Release], None]) -> None:
        release, tokens = loaded.named("shadow"), 0
        try:
            async with aclosing(self._maker.answer(loaded.handle, ask, release)) as pieces:
                async for piece in pieces:
                    tokens = piece.answer_tokens
            self._count(answered_shadow=1, shadow_tokens=tokens)
            answered(release)
        except Full:
            self._count(shadow_skipped=1)
        except Exception as error:
            self._count(shadow_failed=1)
            self._alarms.set("shadow answers", f"the shadow {release.name} failed: {error}")
        finally:
            self._follower.hot.let_go(loaded)
