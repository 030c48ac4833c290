from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The small project of the release tests is the ground that this one is built on.
sys.path.append(str(Path(__file__).resolve().parent.parent / "release"))

from gc_world import Desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Seven runs of one model under real git and in DVC's stores: four versions, two that were refused, one of data alone."""
    made = Desk(tmp_path_factory.mktemp("desk"))
    made.live()
    return made
