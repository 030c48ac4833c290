"""SIGKILL at every write, fsync, rename, link, unlink and truncate of register, promote and roll back.

Whatever moment it is, the pointer names a version that is registered and whole, and the next start mends the rest without a
person. A shim that counts these calls is compiled here and preloaded; planted ordering bugs must be found. All points:
`make drill-kill-release`; a seeded sample runs with the other tests.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
DEEDS = ("register", "promote", "rollback")
SAMPLE = 3


class Killer:
    """The process that forks children and has them killed; see release_killed.py."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler is installed here, which the shim needs")
        shim = folder / "kill_at.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "kill_at.c", "-ldl"], check=True)
        env = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONDONTWRITEBYTECODE": "1"}
        (folder / "home").mkdir()
        command = [sys.executable, str(HERE / "release_killed.py"), str(folder / "home")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, deed: str, number: int, bug: str | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"deed": deed, "number": number, "bug": bug}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the killer has ended"
        return dict(json.loads(line))

    def points(self, deed: str, bug: str | None = None) -> int:
        """How many calls a deed makes when nothing kills it."""
        said = self.ask(deed, 1_000_000, bug)
        assert not said["killed"]
        assert said["counted"] > 20, "the shim counts nothing"
        return int(said["counted"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    made = Killer(tmp_path_factory.mktemp("killer"))
    yield made
    made.close()


@pytest.mark.parametrize("deed", DEEDS)
def test_killed_at_some_points_a_release_is_whole_and_mends_itself(killer: Killer, deed: str) -> None:
    count = killer.points(deed)
    for number in random.Random(deed).sample(range(1, count + 1), SAMPLE):
        said = killer.ask(deed, number)
        assert said == {"killed": True, "counted": None, "found": []}, f"{deed} at call {number} of {count}"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("deed", DEEDS)
def test_killed_at_every_point_a_release_is_whole_and_mends_itself(killer: Killer, deed: str) -> None:
    count = killer.points(deed)
    bad = {n: said["found"] for n in range(1, count + 1) if (said := killer.ask(deed, n))["found"] or not said["killed"]}
    print(f"{deed}: {count} points")
    assert bad == {}


@pytest.mark.parametrize(
    ("deed", "bug"),
    [
        ("promote", "points_before_it_writes"),
        ("rollback", "seals_before_it_stores"),
        ("register", "registers_before_it_copies"),
    ],
)
def test_a_planted_ordering_bug_is_found(killer: Killer, deed: str, bug: str) -> None:
    count = killer.points(deed, bug)
    found = next((said["found"] for n in range(count, 0, -1) if (said := killer.ask(deed, n, bug))["found"]), None)
    assert found, f"{count} points of {deed} with {bug}, and nothing was found"
