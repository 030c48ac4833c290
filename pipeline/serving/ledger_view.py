"""What a server asks of the ledger, many times a second: has it moved, who holds a stage, what is a version made of."""

from __future__ import annotations

import threading

from pipeline.domain.release import EventKind, ModelVersion, revoked
from pipeline.ports import Ledger


class LedgerView:
    """One model's ledger. What was read of versions is kept as long as the head stays where it is."""

    def __init__(self, ledger: Ledger, model: str) -> None:
        self._ledger, self._model = ledger, model
        self._lock = threading.Lock()
        self._at: tuple[int, str] | None = None
        self._records: dict[str, tuple[str, str]] = {}
        self._revoked: frozenset[str] = frozenset()

    def head(self) -> tuple[int, str]:
        return self._ledger.head(self._model)

    def holder(self, stage: str) -> str | None:
        return self._ledger.holder(self._model, stage)

    def record(self, version: str) -> ModelVersion | None:
        """The ModelVersion that the ledger keeps; None for a version that it does not know."""
        self._read()
        found = self._records.get(version)
        return ModelVersion.from_json(found[0], where="the ledger", digest=found[1]) if found else None

    def revoked(self) -> frozenset[str]:
        self._read()
        return self._revoked

    def _read(self) -> None:
        with self._lock:
            head = self.head()
            if head == self._at:
                return
            events = self._ledger.events(self._model)
            made = [e for e in events if e.event is EventKind.REGISTERED and e.record is not None]
            self._records = {e.version: (e.record or "", e.subject) for e in made}
            self._revoked = revoked(events)
            self._at = head
