"""SIGKILL at seeded moments of a whole run, again and again until it ends by itself: the result is that of a quiet run.

Slow: `make drill-kill`. A sample of one kill, in mid-training, runs with the other tests (tests/story/test_killed.py).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.story_town import Town, adapter_of

KILLS = 8
LONGEST_SECONDS = 45


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_seeded_moments_a_run_ends_as_a_quiet_one(town: Town, new_town: Callable[..., Town]) -> None:
    drilled = new_town()
    drilled.batch(1)
    rng = random.Random(7)
    for _ in range(KILLS):
        run = drilled.start("run")
        # Not a measurement: where in the run a moment falls differs from machine to machine, and any place must do.
        deadline = time.monotonic() + rng.uniform(3, LONGEST_SECONDS)
        while run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        run.kill()
        run.communicate()
    last = drilled("run --json").json
    assert last["ending"] in ("registered", "nothing new")
    rows = drilled("releases --json").json
    assert [row["version"] for row in rows] == ["1"], "one batch makes one version, however often it was killed"
    assert adapter_of(drilled) == adapter_of(town)
    drilled("promote 1 --to production --by drill --reason kept")
    assert "verified" in drilled("audit verify production").out
    assert drilled.git("status", "--porcelain") == ""
