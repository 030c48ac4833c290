"""The endpoints that move releases: promote, approve, refuse, roll back; and the one that tells who holds what.

They always need a key, on a loopback address too. The key's name is who acts: it is what the ledger will say. The deeds
themselves are given; the rules they keep are not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from pipeline.params.serve import LimitParams
from pipeline.serving.asked import Engine
from pipeline.serving.http.access import Caller
from pipeline.serving.http.app import Endpoint
from pipeline.serving.http.bodies import read_object
from pipeline.serving.http.calls import Call
from pipeline.serving.http.fields import Fields

_LONGEST = 2000


class Deeds(Protocol):
    """What moves releases of one model. Each blocks, is safe to repeat, and gives a mapping to be shown as JSON."""

    def promote(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]: ...

    def approve(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]: ...

    def refuse(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]: ...

    def roll_back(self, stage: str, *, by: str, reason: str, to: str | None, leaving: str | None) -> Mapping[str, Any]: ...

    def releases(self) -> Sequence[Mapping[str, Any]]: ...


class Admin:
    """The endpoints of one model's releases."""

    def __init__(self, deeds: Deeds, engine: Engine, limits: LimitParams) -> None:
        self._deeds = deeds
        self._engine = engine
        self._limits = limits
        self._one = asyncio.Lock()

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("releases", "GET", "/v1/releases", self._releases, ("read",)),
            Endpoint("promote", "POST", "/v1/releases/promote", self._promote, ("promote",)),
            Endpoint("approve", "POST", "/v1/releases/approve", self._approve, ("approve",)),
            Endpoint("refuse", "POST", "/v1/releases/refuse", self._refuse, ("approve",)),
            Endpoint("rollback", "POST", "/v1/releases/rollback", self._roll_back, ("promote",)),
        )

    async def _releases(self, call: Call, caller: Caller) -> None:
        registered = await asyncio.to_thread(self._deeds.releases)
        health = self._engine.health()
        served = [{**asdict(release), "name": release.name} for release in health.releases]
        standing = {"ready": health.ready, "waiting": health.waiting, "running": health.running, "alarms": list(health.alarms)}
        await call.reply({"object": "list", "data": list(registered), "served": served, "engine": standing})

    async def _promote(self, call: Call, caller: Caller) -> None:
        fields = Fields(await read_object(call.request, self._limits))
        version, to, reason = (fields.text(name, longest=_LONGEST) for name in ("version", "to", "reason"))
        fields.done()
        await self._do(call, self._deeds.promote, version, to, by=caller.name, reason=reason)

    async def _approve(self, call: Call, caller: Caller) -> None:
        fields = Fields(await read_object(call.request, self._limits))
        version, to, reason = (fields.text(name, longest=_LONGEST) for name in ("version", "to", "reason"))
        fields.done()
        await self._do(call, self._deeds.approve, version, to, by=caller.name, reason=reason)

    async def _refuse(self, call: Call, caller: Caller) -> None:
        fields = Fields(await read_object(call.request, self._limits))
        version, to, reason = (fields.text(name, longest=_LONGEST) for name in ("version", "to", "reason"))
        fields.done()
        await self._do(call, self._deeds.refuse, version, to, by=caller.name, reason=reason)

    async def _roll_back(self, call: Call, caller: Caller) -> None:
        fields = Fields(await read_object(call.request, self._limits))
        stage, reason = (fields.text(name, longest=_LONGEST) for name in ("stage", "reason"))
        to, leaving = (fields.text(name, "", longest=_LONGEST) or None for name in ("to", "leaving"))
        fields.done()
        await self._do(call, self._deeds.roll_back, stage, by=caller.name, reason=reason, to=to, leaving=leaving)

    async def _do(self, call: Call, deed: Any, *words: str, **named: str | None) -> None:
        """One deed at a time; it is finished whether or not its client stays."""
        async with self._one:
            done = await asyncio.shield(asyncio.create_task(asyncio.to_thread(deed, *words, **named)))
        call.said["by"] = named["by"] or ""
        await call.reply(done)
