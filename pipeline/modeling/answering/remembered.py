"""Answers and likelihoods that were made before, on disk, by all that they depend on: who is asked, what, and how.

A champion that is measured against ten candidates answers the same rows once. Nobody may rely on anything being there: what
cannot be read is as if it were not, and is made again. SQLite from the standard library: whole rows or none, several processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.domain.record import canonical_json

log = logging.getLogger(__name__)

FILE = "answers.sqlite"
MOST = 2_000_000
"""Rows that are kept; the oldest go first."""
LONGEST = 1 << 20
"""Characters of one value; a longer one is not kept."""
_AT_ONCE = 500


class Remembered:
    """What is kept below `folder`; with None nothing is. most: rows."""

    def __init__(self, folder: Path | None, *, most: int = MOST) -> None:
        self._path = folder / FILE if folder is not None else None
        self._most = most

    @property
    def keeps(self) -> bool:
        """Whether there is a folder to keep anything in."""
        return self._path is not None

    def find(self, keys: Sequence[str]) -> dict[str, Any]:
        """What is kept under those of `keys` that are known; see `key`."""
        found: dict[str, Any] = {}
        with self._open() as store:
            if store is None:
                return found
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                places = ",".join("?" * len(some))
                for name, value, check in store.execute(f"SELECT name, value, sum FROM kept WHERE name IN ({places})", some):
                    if check == _sum(name, value):
                        found[name] = json.loads(value)
        return found

    def keep(self, values: Mapping[str, Any]) -> None:
        """Keep JSON values under their keys, all of them or none."""
        rows = [(name, canonical_json(value)) for name, value in values.items()]
        with self._open() as store:
            if store and rows:
                made = [(name, value, _sum(name, value)) for name, value in rows if len(value) <= LONGEST]
                store.executemany("INSERT OR REPLACE INTO kept (name, value, sum) VALUES (?, ?, ?)", made)
                store.execute(
                    "DELETE FROM kept WHERE rowid <= (SELECT rowid FROM kept ORDER BY rowid DESC LIMIT 1 OFFSET ?)", (self._most,)
                )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        """The store within one transaction; None where there is none, or none that can be used."""
        store = None
        if self._path is not None:
            try:
                store = _opened(self._path)
            except (sqlite3.Error, OSError) as error:
                log.warning("%s cannot be used, answers are made again: %s", self._path, error)
        if store is None:
            yield None
            return
        with contextlib.closing(store):
            try:
                with store:
                    yield store
            except sqlite3.DatabaseError as error:
                log.warning("%s cannot be used, answers are made again: %s", self._path, error)


def key(asked: Any) -> str:
    """The name under which the answer to `asked` is kept: the digest of all that it depends on, a JSON value."""
    return hashlib.sha256(canonical_json(asked).encode()).hexdigest()


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, or not to be written: nothing is wrong with the file
            raise
        log.warning("%s is damaged and begun anew: %s", path, error)
        path.unlink()
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    store = sqlite3.connect(path, timeout=10)
    try:
        store.execute("PRAGMA synchronous = NORMAL")
        store.execute("CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL, sum TEXT NOT NULL)")
    except sqlite3.Error:
        store.close()
        raise
    return store


def _sum(name: str, value: str) -> str:
    """Tells a value that was changed, or put under another name."""
    return hashlib.sha256(f"{name}\n{value}".encode()).hexdigest()[:16]
