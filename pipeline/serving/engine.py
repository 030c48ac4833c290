"""The engine: answers asks by the release that the ledger names, in step with it. Implements asked.Engine over any Maker.

following.py decides who answers; the maker makes the answers; here an ask is given to one release, which it keeps to its end, and
what becomes of it is counted, watched (canary releases) and repeated unheard (shadows).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.domain.release import ModelVersion
from pipeline.domain.serving import Ask, Health, Labelled, NotServed, Piece, Release, Role
from pipeline.errors import Misuse, TryLater
from pipeline.evaluation.metrics.refusals import refuses
from pipeline.params.serve import ServeParams
from pipeline.ports import Ledger, Registry
from pipeline.serving.alarms import Alarms
from pipeline.serving.following import Follower, Stages
from pipeline.serving.guarding import Breach, CanaryGuard
from pipeline.serving.hot import Loaded
from pipeline.serving.ledger_view import LedgerView
from pipeline.serving.making import Maker
from pipeline.serving.routing import of_share
from pipeline.serving.shadowing import Shadowing
from pipeline.serving.traffic import TrafficFile
from pipeline.serving.watching import Outcome

log = logging.getLogger(__name__)

_REMEMBERED = 10_000
"""Answers that feedback can still be given to."""
_FLUSH = 1.0
"""Seconds between writings of the traffic counts."""
_SWITCH = 0.001
"""Seconds after which Python's threads take turns: with its usual 5 ms, event loops wait that long for the models' thread."""


@dataclass(slots=True)
class _Told:
    """What an answer came to, as far as it got."""

    release: Release
    began: float = field(default_factory=time.monotonic)
    text: list[str] = field(default_factory=list)
    tokens: int = 0
    finished: bool = False


class ReleaseEngine:
    """model: its name. params: the section serve. maker: who makes answers. traffic: where they are counted; None: nowhere.

    verify: further checks of a version's folder before it is loaded (its signature). roll_back: see Breach; used where params.slo
    says so.
    """

    def __init__(
        self,
        model: str,
        params: ServeParams,
        *,
        maker: Maker,
        ledger: Ledger,
        registry: Registry,
        traffic: TrafficFile | None = None,
        verify: Callable[[ModelVersion, Path], None] = lambda version, folder: None,
        roll_back: Breach | None = None,
    ) -> None:
        self._model, self._params, self._maker, self._traffic = model, params, maker, traffic
        self._alarms = Alarms()
        canary, shadow = params.canary, params.shadow
        self._follower = Follower(
            model,
            Stages(params.stage, canary.stage if canary.share else None, shadow.stage if shadow.share else None),
            maker=maker,
            view=LedgerView(ledger, model),
            registry=registry,
            hot=params.hot,
            alarms=self._alarms,
            verify=verify,
        )
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, Release] = OrderedDict()
        self._guard = CanaryGuard(params.slo, canary.stage, self._follower, self._alarms, roll_back)
        self._shadowing = Shadowing(params.shadow.share, self._follower, maker, self._alarms, self._count)

    def start(self) -> None:
        if self._thread is None:
            sys.setswitchinterval(min(_SWITCH, sys.getswitchinterval()))
            self._follower.look()
            self._thread = threading.Thread(target=self._follow, name="tuneline-follower", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        self._maker.close()
        self._flush()

    async def ask(self, ask: Ask) -> AsyncGenerator[Piece, None]:
        loaded, release = await self._take(ask)
        told, left = _Told(release), True
        try:
            async with aclosing(self._maker.answer(loaded.handle, ask, release)) as pieces:
                async for piece in pieces:
                    if not told.tokens and release.role != "pinned":
                        self._shadowing.begin(ask, release, self._add_traffic)
                    told.tokens = piece.answer_tokens
                    told.text.append(piece.text)
                    told.finished = piece.finish is not None
                    if told.finished:
                        self._answered(ask, told)
                    yield piece
            left = False
        except Exception as error:
            left = False
            self._went_wrong(told, error)
            raise
        finally:
            self._follower.hot.let_go(loaded)
            if not told.finished:
                self._count(tokens=told.tokens, cancelled=int(left))

    async def classify(self, ask: Ask) -> Labelled:
        loaded, release = await self._take(ask)
        told = _Told(release)
        try:
            found = await self._maker.label(loaded.handle, ask, release)
            told.text.append(found.labels[0][0])
            told.finished = True
            self._answered(ask, told)
            return found
        except Exception as error:
            self._went_wrong(told, error)
            raise
        finally:
            self._follower.hot.let_go(loaded)

    def releases(self) -> tuple[Release, ...]:
        routes = self._follower.routes
        roles: dict[str, Role] = {}
        named: tuple[tuple[Role, Loaded | None], ...] = (("production", routes.production), ("canary", routes.canary))
        for role, loaded in (*named, ("shadow", routes.shadow)):
            if loaded is not None:
                roles.setdefault(loaded.release.version, role)
        found = [loaded.named(roles.get(loaded.release.version, "pinned")) for loaded in self._follower.hot.all()]
        order = ["production", "canary", "shadow", "pinned"]
        return tuple(sorted(found, key=lambda release: (order.index(release.role), release.version)))

    def health(self) -> Health:
        waiting, running = self._maker.load_now()
        with self._lock:
            counts = dict(self._counts)
        swaps = self._follower.swaps
        return Health(
            ready=self._follower.able and self._follower.routes.production is not None and not self._ending.is_set(),
            releases=self.releases(),
            waiting=waiting,
            running=running,
            alarms=self._alarms.all(),
            last_swap=swaps[-1] if swaps else None,
            counts=counts | {"swaps": len(swaps), "alarms": self._alarms.raised},
        )

    def feedback(self, ask_id: str, good: bool) -> None:
        with self._lock:
            release = self._answers.get(ask_id)
        if release is None:
            raise NotServed("there is no such answer here, or it is too long ago", where=ask_id[:100])
        self._count(**{"feedback_good" if good else "feedback_bad": 1})
        if release.role == "canary":
            self._count(canaries_stopped=self._guard.heard(release, good))

    def count(self, ask: Ask) -> int:
        loaded = self._follower.hot.find(ask.release) if ask.release is not None else None
        loaded = loaded or self._follower.routes.production
        if loaded is None:
            raise self._nobody()
        return self._maker.count(loaded.handle, ask)

    async def _take(self, ask: Ask) -> tuple[Loaded, Release]:
        """Who answers, held until it has."""
        for _ in range(10):
            if ask.release is not None:
                loaded, role = await self._pinned(ask.release), "pinned"
            else:
                routes = self._follower.routes
                mine = routes.canary is not None and of_share("canary", ask.id, self._params.canary.share)
                found = routes.canary if mine else routes.production
                if found is None:
                    raise self._nobody()
                loaded, role = found, "canary" if mine else "production"
            if self._follower.hot.hold(loaded):
                return loaded, loaded.named(role)  # type: ignore[arg-type]
        raise TryLater("releases change faster than asks can be answered", fix="try again")

    async def _pinned(self, version: str) -> Loaded:
        found = self._follower.hot.find(version)
        return found if found is not None else await asyncio.to_thread(self._follower.pinned, version)

    def _nobody(self) -> TryLater:
        return TryLater(f"no release of {self._model} holds {self._params.stage} here", fix="promote one, or try again later")

    def _answered(self, ask: Ask, told: _Told) -> None:
        """An answer is whole."""
        release, text = told.release, "".join(told.text)
        with self._lock:
            self._counts["answered"] += 1
            self._counts["tokens"] += told.tokens
            self._counts[f"answered_{release.role}"] += 1
            self._answers[ask.id] = release
            while len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        self._add_traffic(release)
        if release.role == "canary":
            refused = not text.strip() or (ask.text is None and refuses(text))
            seconds = time.monotonic() - told.began
            self._count(canaries_stopped=self._guard.note(release, Outcome(False, seconds, refused)))

    def _add_traffic(self, release: Release) -> None:
        if self._traffic is not None and release.role != "pinned":
            self._traffic.add(self._model, release.version)

    def _went_wrong(self, told: _Told, error: Exception) -> None:
        """No answer, or half of one. What was wrong with the ask, or with the load, is no fault of the release."""
        if isinstance(error, Misuse | TryLater):
            self._count(refused=1)
        else:
            self._count(failed=1)
            log.error("%s failed: %s", told.release.name, error)
            if told.release.role == "canary":
                outcome = Outcome(True, time.monotonic() - told.began)
                self._count(canaries_stopped=self._guard.note(told.release, outcome))

    def _count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)

    def _follow(self) -> None:
        flushed = time.monotonic()
        while not self._ending.wait(self._params.poll_seconds):
            try:
                self._follower.look()
            except Exception:
                log.exception("the ledger could not be followed")
                self._alarms.set("following", "the ledger cannot be followed: an error of ours, see the log")
            else:
                self._alarms.clear("following")
            if time.monotonic() - flushed >= _FLUSH:
                self._flush()
                flushed = time.monotonic()

    def _flush(self) -> None:
        if self._traffic is None:
            return
        try:
            self._traffic.flush()
            self._alarms.clear("traffic")
        except (sqlite3.Error, OSError) as error:
            self._alarms.set("traffic", f"what was answered cannot be counted: {error}")


def built_in(base: Callable[[], Path], model: Any, params: ServeParams) -> Maker:
    """Answers made in this process (see built_in.py): heavy, so imported here."""
    from pipeline.serving.built_in import BuiltIn

    return BuiltIn(base, model, rows=params.batch, queue=params.queue)
