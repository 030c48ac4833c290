"""Follows the ledger: who should answer, loaded, verified and warm before it does; then one assignment, and it is so.

Whatever goes wrong on the way leaves those who answer as they are, and raises an alarm that stays until it is put right. A
version that was revoked answers nobody any more, whoever else there is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipeline.domain.proof import differences
from pipeline.domain.record import FileDigest
from pipeline.domain.release import ModelVersion
from pipeline.domain.serving import Full, NotServed, Release, Role, Swap
from pipeline.errors import Broken, Tampered, TryLater, TunelineError
from pipeline.ports import Registry
from pipeline.serving.alarms import Alarms
from pipeline.serving.hot import Hot, Loaded
from pipeline.serving.ledger_view import LedgerView
from pipeline.serving.making import Maker
from pipeline.serving.routing import Routes

log = logging.getLogger(__name__)

HANDSHAKE = "tuneline.json"
RETRY = 5.0
"""Seconds after which a release that could not be loaded is tried again, twice as long each time, up to a minute."""

Verify = Callable[[ModelVersion, Path], None]


@dataclass(frozen=True, slots=True)
class Stages:
    """Which stage each role follows; None: nobody has the role."""

    production: str
    canary: str | None = None
    shadow: str | None = None


@dataclass(slots=True)
class _Failed:
    again: float
    pause: float


class Follower:
    """routes: who answers now; read it once an ask. verify: further checks of a version's folder (its signature)."""

    def __init__(
        self,
        model: str,
        stages: Stages,
        *,
        maker: Maker,
        view: LedgerView,
        registry: Registry,
        hot: int,
        alarms: Alarms,
        verify: Verify = lambda version, folder: None,
        retry: float = RETRY,
    ) -> None:
        self.routes = Routes()
        self.hot = Hot(hot)
        self.swaps: list[Swap] = []
        self.able = False  # whether anything can be loaded and asked
        self._model, self._stages, self._maker = model, stages, maker
        self._view, self._registry, self._verify, self._alarms = view, registry, verify, alarms
        self._retry = retry
        self._head: tuple[int, str] | None = None
        self._failed: dict[tuple[Role, str], _Failed] = {}
        self._stopped: set[tuple[Role, str]] = set()
        self._former: str | None = None
        self._loading = threading.Lock()  # one release at a time; may be held for seconds
        self._swapping = threading.Lock()  # held for an assignment

    def look(self) -> None:
        """One look at the ledger, and all that follows from it. Never raises."""
        noticed = time.monotonic()
        try:
            self._maker.start()
            self.able = True
            self._alarms.clear("start")
        except Exception as error:
            self.able = False
            self._alarms.set("start", f"nothing can be loaded: {_sentence(error)}")
            return
        try:
            head = self._view.head()
            self._alarms.clear("ledger")
            if head == self._head and not any(one.again <= noticed for one in self._failed.values()):
                self._sweep()
                return
            wanted = {role: self._view.holder(stage) if stage else None for role, stage in self._by_role()}
            revoked = self._view.revoked()
        except Exception as error:
            self._alarms.set("ledger", f"the ledger cannot be read, so no release is changed: {_sentence(error)}")
            return
        for loaded in self.hot.all():
            if loaded.release.version in revoked:
                self._withdraw(loaded)
        if wanted["production"] is None:
            self._alarms.set("nobody", f"no version of {self._model} holds {self._stages.production}")
        else:
            self._alarms.clear("nobody")
        for role, version in wanted.items():
            if role != "production" and version == wanted["production"]:
                version = None
            self._follow(role, None if version in revoked else version, noticed)
        self._failed = {key: one for key, one in self._failed.items() if wanted.get(key[0]) == key[1]}
        for role, version in [key for key in self._stopped if wanted.get(key[0]) != key[1]]:
            self._stopped.discard((role, version))
            self._alarms.clear(f"{role} {version}")
        self._head = head
        self._sweep()

    def pinned(self, version: str) -> Loaded:
        """A release asked for by name, loaded if need be. Raises NotServed, Full when all places are in use, or what is wrong."""
        found = self.hot.find(version)
        if found is not None:
            return found
        if self._head is None:
            raise TryLater("the server has not started", fix="try again")
        record = self._view.record(version)
        if record is None or version in self._view.revoked():
            raise NotServed(f"there is no release {self._model}@{version} here", fix="GET /v1/models lists what there is")
        if not self._loading.acquire(timeout=30):
            raise Full("other releases are being loaded", retry_after=10.0)
        try:
            return self.hot.find(version) or self._load(record, "pinned", or_full=True)
        finally:
            self._loading.release()

    def stop(self, role: Role, version: str) -> bool:
        """Give a role to nobody until another version holds its stage; False when that version has it no more."""
        current = getattr(self.routes, role)
        if current is None or current.release.version != version:
            return False
        self._stopped.add((role, version))
        return self._swap(role, None, time.monotonic(), only_from=current)

    def _follow(self, role: Role, version: str | None, noticed: float) -> None:
        """Bring `role` to `version`, if that can be."""
        current: Loaded | None = getattr(self.routes, role)
        now = current.release.version if current else None
        if version == now or (role, version) in self._stopped:
            if version == now:
                self._alarms.clear(role)
            return
        if version is None:
            self._swap(role, None, noticed)
            self._alarms.clear(role)
            return
        failed = self._failed.get((role, version))
        if failed is not None and failed.again > time.monotonic():
            return
        try:
            with self._loading:
                loaded = self.hot.find(version)
                if loaded is None:
                    record = self._view.record(version)
                    if record is None:
                        raise Broken(f"the ledger has no record of version {version}")
                    loaded = self._load(record, role)
            self._swap(role, loaded, noticed)
        except Exception as error:
            pause = min(60.0, 2 * failed.pause) if failed else self._retry
            self._failed[role, version] = _Failed(time.monotonic() + pause, pause)
            still = f"version {now} still answers" if now else "nobody answers"
            self._alarms.set(
                role, f"version {version} holds {self._stage(role)} and cannot be served: {_sentence(error)}; {still}"
            )
        else:
            self._failed.pop((role, version), None)
            self._alarms.clear(role)

    def _load(self, record: ModelVersion, role: Role, *, or_full: bool = False) -> Loaded:
        """A release, verified and warm, among the hot ones. or_full: raise Full rather than have too many."""
        release = Release(self._model, record.version, record.digest, role)
        if not self.hot.make_room(self._keep()) and or_full:
            raise Full("all places for releases are in use", fix="try again, or raise serve.hot", retry_after=5.0)
        self._sweep()
        folder = self._registry.artifacts(self._model, record.version)
        wrong = differences(folder, record.files)
        if wrong:
            raise Tampered(f"its files are not those that were registered ({wrong[0]})", fix="restore them from a backup")
        self._verify(record, folder)
        place, files = adapter_files(record)
        handle = self._maker.load(f"{release.name}#{record.digest[:16]}", folder / place, files)
        loaded = Loaded(release, handle)
        self.hot.add(loaded)
        return loaded

    def _swap(self, role: Role, loaded: Loaded | None, noticed: float, *, only_from: Loaded | None = None) -> bool:
        """The moment from which another answers. What was asked before keeps whom it has. only_from: if that one still does."""
        began = time.monotonic()
        with self._swapping:
            before: Loaded | None = getattr(self.routes, role)
            if only_from is not None and before is not only_from:
                return False
            self.routes = replace(self.routes, **{role: loaded})
        ended = time.monotonic()
        if role == "production" and before is not None:
            self._former = before.release.version
        names = [one.release.version if one else None for one in (loaded, before)]
        self.swaps.append(Swap(role, names[0], names[1], time.time(), ended - began, ended - noticed))
        del self.swaps[:-1000]
        log.info("%s: %s in the place of %s", role, *names)
        return True

    def _withdraw(self, loaded: Loaded) -> None:
        """Nobody is answered by a revoked version from now on."""
        for role, _ in self._by_role():
            if getattr(self.routes, role) is loaded:
                self._swap(role, None, time.monotonic(), only_from=loaded)
        self.hot.drop(loaded.release.version)

    def _sweep(self) -> None:
        for loaded in self.hot.gone():
            try:
                self._maker.unload(loaded.handle)
            except Exception as error:
                log.warning("%s could not be unloaded: %s", loaded.release.name, error)

    def _keep(self) -> set[str]:
        held = [self.routes.production, self.routes.canary, self.routes.shadow]
        return {one.release.version for one in held if one} | ({self._former} if self._former else set())

    def _by_role(self) -> tuple[tuple[Role, str | None], ...]:
        return ("production", self._stages.production), ("canary", self._stages.canary), ("shadow", self._stages.shadow)

    def _stage(self, role: Role) -> str:
        return dict(self._by_role())[role] or ""


def adapter_files(record: ModelVersion) -> tuple[str, tuple[FileDigest, ...]]:
    """The folder among a version's files that is the adapter, and its files relative to that. Raises Broken if there is none."""
    places = [PurePosixPath(file.path).parent.as_posix() for file in record.files if PurePosixPath(file.path).name == HANDSHAKE]
    if not places:
        raise Broken(f"{record.name} version {record.version} has no adapter of ours among its files", where=HANDSHAKE)
    place = min(places, key=lambda path: (path != "artifacts/adapter", path))
    start = "" if place == "." else f"{place}/"
    files = [f.model_copy(update={"path": f.path.removeprefix(start)}) for f in record.files if f.path.startswith(start)]
    return place, tuple(sorted(files, key=lambda file: file.path))


def _sentence(error: Exception) -> str:
    if isinstance(error, TunelineError):
        return f"{error.where}: {error.what}" if error.where else error.what
    return f"{type(error).__name__}: {error}"
