"""What a person should know of a server, a sentence each, until it is put right. Said once in the log, and kept in its health."""

from __future__ import annotations

import logging
import threading

log = logging.getLogger(__name__)


class Alarms:
    """By what they are about; a later one about the same replaces the one before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing: dict[str, str] = {}
        self.raised = 0

    def set(self, about: str, sentence: str) -> None:
        with self._lock:
            fresh = self._standing.get(about) != sentence
            self._standing[about] = sentence
            self.raised += fresh
        if fresh:
            log.warning("%s", sentence)

    def clear(self, about: str) -> None:
        with self._lock:
            ended = self._standing.pop(about, None)
        if ended is not None:
            log.info("over: %s", ended)

    def all(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._standing.values())
