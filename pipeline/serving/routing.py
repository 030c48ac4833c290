"""Who answers an ask: a pinned release, the canary release for its share, else who holds the served stage. Pure.

A share is taken by the hash of the ask's id: the same id is answered by the same side, today and in a test, on every server.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipeline.serving.hot import Loaded


@dataclass(frozen=True, slots=True)
class Routes:
    """Who answers what names no release. Replaced as a whole: whoever reads it once sees one state."""

    production: Loaded | None = None
    canary: Loaded | None = None
    shadow: Loaded | None = None


def of_share(kind: str, ask_id: str, share: float) -> bool:
    """Whether this ask is among the share. kind: canary or shadow, which are drawn apart."""
    if share <= 0.0:
        return False
    number = int.from_bytes(hashlib.sha256(f"{kind}:{ask_id}".encode()).digest()[:7]) / (1 << 56)
    return number < share
