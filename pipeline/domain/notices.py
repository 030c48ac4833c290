"""What people are told of, wherever it happens. Pure values; who is told, and how, is backends/notices.py's."""

from __future__ import annotations

from enum import StrEnum

from pipeline.domain.record import Value


class NoticeKind(StrEnum):
    REFUSED = "refused"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REVOKED = "revoked"
    RUN_FAILED = "run_failed"
    DRIFT = "drift"
    UNHEALTHY = "unhealthy"


class Notice(Value):
    """title: one line. lines: what, why, and what to do, a sentence each; never a row of data, never a secret.

    id: the same id is told once, however often it is asked for: what repeats gives one, such as the digest of a ledger's event.
    """

    kind: NoticeKind
    model: str
    title: str
    lines: tuple[str, ...] = ()
    id: str | None = None
