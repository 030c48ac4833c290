from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

# The small project of the release tests is the ground that this one is built on.
sys.path.append(str(Path(__file__).resolve().parent.parent / "release"))

from evidence_world import EvidenceWorld


@pytest.fixture(scope="session")
def mould(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose version 1 was registered with evidence, promoted and anchored; tests work on copies."""
    made = EvidenceWorld(tmp_path_factory.mktemp("mould"))
    made.register("one")
    made.promote("1")
    made.anchor_head()
    return made.root


@pytest.fixture
def world(mould: Path, tmp_path: Path) -> EvidenceWorld:
    shutil.copytree(mould, tmp_path / "world")
    return EvidenceWorld(tmp_path / "world")
