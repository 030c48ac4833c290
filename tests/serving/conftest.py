"""Fixtures of the engine's tests: a lively little base and adapters on it whose greedy answers differ."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for _folder in ("modeling", "release"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of random weights, large enough that every adapter says something else."""
    from modeling_kit import build_tiny_base
    from tuner_kit import build_lively_base

    folder = tmp_path_factory.mktemp("lively")
    return build_lively_base(folder / "base", build_tiny_base(folder / "tiny"))


@pytest.fixture(scope="session")
def adapters(lively: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Four LoRAs, and what each answers."""
    from serving_world import expected, make_adapter

    home = tmp_path_factory.mktemp("adapters")
    folders = {str(n): make_adapter(lively, home / str(n), seed=n) for n in range(1, 5)}
    said = expected(lively, folders)
    assert len({tuple(answers) for answers in said.values()}) == 4
    return folders, said
