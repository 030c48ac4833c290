"""How many requests each version has answered, on disk: what a stage's rule of so many requests is held against.

Several servers of one project may add to the same file. Implements ports.Traffic. No torch, no HTTP.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


class TrafficFile:
    """path: of the SQLite file, made by the first count. Counts are gathered here until `flush` writes them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def add(self, model: str, version: str) -> None:
        with self._lock:
            self._fresh[model, version] += 1

    def flush(self) -> None:
        """Write what was added since. What cannot be written now is kept for the next time."""
        with self._lock:
            fresh, self._fresh = self._fresh, Counter()
        if not fresh:
            return
        try:
            with self._open() as store:
                store.executemany(
                    "INSERT INTO answered (model, version, count) VALUES (?, ?, ?) "
                    "ON CONFLICT (model, version) DO UPDATE SET count = count + excluded.count",
                    [(model, version, count) for (model, version), count in fresh.items()],
                )
        except (sqlite3.Error, OSError):
            with self._lock:
                self._fresh.update(fresh)
            raise

    def answered(self, model: str, version: str) -> int:
        """Requests that `version` answered, as far as they are written."""
        if not self._path.is_file():
            return 0
        with self._open() as store:
            found = store.execute("SELECT count FROM answered WHERE model = ? AND version = ?", (model, version)).fetchone()
        return int(found[0]) if found else 0

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self._path, timeout=10)) as store, store:
            store.execute(
                "CREATE TABLE IF NOT EXISTS answered "
                "(model TEXT NOT NULL, version TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (model, version))"
            )
            yield store
