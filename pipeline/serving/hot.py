"""Releases that are loaded, and who may go when there are too many: the ones asked least lately, never one that is in use.

A release in flight holds its place: `users` counts who is being answered by it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from pipeline.domain.serving import Release, Role


@dataclass(eq=False, slots=True)
class Loaded:
    """A release that can answer. handle: the maker's; users: answers under way; dropped: nobody new may ask it."""

    release: Release
    handle: Any
    users: int = 0
    dropped: bool = False

    def named(self, role: Role) -> Release:
        return self.release if self.release.role == role else replace(self.release, role=role)


class Hot:
    """most: how many stay loaded. All of it may be called from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._by_version: OrderedDict[str, Loaded] = OrderedDict()
        self._leaving: list[Loaded] = []

    def find(self, version: str) -> Loaded | None:
        with self._lock:
            return self._by_version.get(version)

    def add(self, loaded: Loaded) -> None:
        with self._lock:
            former = self._by_version.pop(loaded.release.version, None)
            if former is not None:
                former.dropped = True
                self._leaving.append(former)
            self._by_version[loaded.release.version] = loaded

    def hold(self, loaded: Loaded) -> bool:
        """Count one more answer by it; False when it was dropped meanwhile."""
        with self._lock:
            if loaded.dropped:
                return False
            loaded.users += 1
            self._by_version.move_to_end(loaded.release.version)
            return True

    def let_go(self, loaded: Loaded) -> None:
        with self._lock:
            loaded.users -= 1

    def drop(self, version: str) -> None:
        """No new ask reaches it; it is taken off when the last answer by it is whole."""
        with self._lock:
            loaded = self._by_version.pop(version, None)
            if loaded is not None:
                loaded.dropped = True
                self._leaving.append(loaded)

    def make_room(self, keep: Collection[str]) -> bool:
        """Drop who was asked least lately until one more fits; False when all that are left are in use or among `keep`."""
        with self._lock:
            for version, loaded in list(self._by_version.items()):
                if len(self._by_version) < self._most:
                    break
                if version not in keep and not loaded.users:
                    del self._by_version[version]
                    loaded.dropped = True
                    self._leaving.append(loaded)
            return len(self._by_version) < self._most

    def gone(self) -> list[Loaded]:
        """Those that were dropped and answer nobody any more: told once, to be unloaded."""
        with self._lock:
            idle = [loaded for loaded in self._leaving if not loaded.users]
            self._leaving = [loaded for loaded in self._leaving if loaded.users]
            return idle

    def all(self) -> list[Loaded]:
        with self._lock:
            return list(self._by_version.values())
