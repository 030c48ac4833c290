from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The small project of the release tests is the ground that this one is built on.
sys.path.append(str(Path(__file__).resolve().parent.parent / "release"))

from evidence_world import EvidenceWorld


@pytest.fixture
def world(tmp_path: Path) -> EvidenceWorld:
    made = EvidenceWorld(tmp_path)
    made.register("one")
    made.promote("1")
    made.anchor_head()
    return made
