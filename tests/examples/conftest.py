"""Loads the example scripts by their paths: they are run as scripts, not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_script(path: Path) -> ModuleType:
    """Import a script with its neighbours within reach."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # dataclasses look their own module up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The folder of the base model."""
    return EXAMPLES / "base"


@pytest.fixture(scope="session")
def corpus() -> ModuleType:
    """The script that builds the pretraining text."""
    return load_script(EXAMPLES / "base" / "corpus.py")


@pytest.fixture(scope="session")
def desk() -> ModuleType:
    """The script that makes the support-desk batches."""
    return load_script(EXAMPLES / "helpdesk" / "make_batches.py")
