"""Shared by all tests: quiet, offline libraries; a fresh project with real git and DVC; where the real data lies."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from tests.checkouts import ROOT, make_checkout
from tests.towns import new_town, town

__all__ = ["checkout", "new_town", "real_data", "town"]

for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)


# Prefect's threads are not in a fork, and what it does as a process ends fails there. Tests that fork run no flow.
os.register_at_fork(after_in_child=threading._threading_atexits.clear)  # type: ignore[attr-defined]


# A machine may be busy: no test is about time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


TOWN = ("test_openai_client", "test_curve_story", "test_sweep_story", "test_story")
"""Modules whose tests leave the one town as they found it: they share it, in one process."""
LONG = (*TOWN, "test_purge", "test_drill_chaos", "test_drill_gate", "test_released_model", "test_memory_cap")
"""Modules that take minutes each: begun first, so that two processes end at about the same time."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    for item in items:
        # A module stays in one process, since its tests share what they made; a drill may say otherwise.
        if not any(item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.xdist_group("town" if item.path.stem in TOWN else item.path.stem))


def pytest_collection_finish(session: pytest.Session) -> None:
    """xdist 3.8 names groups by an attribute that pytest 9.2 no longer reads; modules are torn apart then, without a word."""
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("xdist does not see the groups of tests: pin a pytest that it works with (9.1 with xdist 3.8)")


@pytest.fixture(autouse=True)
def environment_stays() -> Iterator[None]:
    """MLflow and Prefect leave their addresses in the environment, where the processes of later tests would find them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def no_child_left() -> Iterator[None]:
    """What a test starts ends with it; what an earlier one's multiprocessing keeps for the whole process is not its own."""
    before = psutil.Process().children(recursive=True)
    yield
    assert [child for child in psutil.Process().children(recursive=True) if child not in before] == []


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the project; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("TUNELINE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data is not beside the project (set TUNELINE_REAL_DATA)")
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return make_checkout(tmp_path / "checkout")
