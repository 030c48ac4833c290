"""The whole flow killed at seeded changes of the disk, again and again within one run: nothing is lost, nothing done twice.

`make drill-chaos` kills at two hundred points, with a server answering beside it; `make test` at a few. Power cuts, which lose
what was written and not synced, are not played: a killed process leaves what it wrote.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.drills.chaos_town import PARAMS, Chaos, Served
from tests.story_town import Town

HERE = Path(__file__).parent
SEED = int(os.environ.get("TUNELINE_DRILL_SEED", "7"))
POINTS = int(os.environ.get("TUNELINE_DRILL_POINTS", "200"))
KILLS = 10
LATE = (0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99)
"""Shares of a run close together at its end, where it is kept and then registered."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed here, which the shim needs")
    made = tmp_path_factory.mktemp("shim") / "kill_at.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, HERE / "kill_at.c", "-ldl"], check=True)
    return made


def drawn(generator: random.Random, most: int) -> Iterator[int]:
    """Points, spread so that `KILLS` of them reach about to the end of a run."""
    while True:
        yield generator.randint(1, max(2, 2 * most // KILLS))


def begun(new_town: Callable[..., Town], shim: Path) -> tuple[Chaos, int]:
    """A town with one version in production, and how many changes of the disk a whole run makes: its second, as the first one
    makes servers and databases, too."""
    town = new_town(PARAMS)
    chaos = Chaos(town, shim)
    town.batch(1, rows=120, name="0001.jsonl")
    chaos.done("run --json")
    chaos.done("promote 1 --to production --by alice --reason first")
    town.batch(2, rows=40, name="0002.jsonl")
    return chaos, chaos.count()


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_two_hundred_points(new_town: Callable[..., Town], shim: Path) -> None:
    generator = random.Random(SEED)
    chaos, whole = begun(new_town, shim)
    served = Served(chaos)
    try:
        for batch in count(3):
            name = f"batch {batch}"
            chaos.town.batch(1 + batch % 2, rows=40, name=f"{batch:04}.jsonl", seed=100 + batch)
            chaos.killed_run(drawn(generator, whole), min(KILLS, POINTS - chaos.points), name)
            if chaos.wrong:
                break
            version = str(batch)
            moved = chaos.start(generator.randint(1, 60), f"promote {version} --to production --by alice --reason better")
            chaos.look(f"{name}, promotion killed at {moved.die_at}")
            chaos.done(f"promote {version} --to production --by alice --reason better")
            served.ask()
            print(f"{name}: {chaos.points} points, {served.asked} answers", flush=True)
            if chaos.points >= POINTS:
                break
        chaos.look_at_prefect()
    finally:
        served.close()
    assert not chaos.wrong, "\n".join(chaos.wrong)
    for version in range(1, batch + 1):
        chaos.done(f"audit verify {version}")
    print(f"{chaos.points} kills in {batch - 2} runs of {whole} changes each, seed {SEED}; {served.asked} answers beside")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "shares", "found"),
    [
        # What was kept is registered by the next start, which does no stage again in any case: killed before that.
        ("if run.store.restore(name):", "if False:", (0.5, 0.6, 0.7, 0.8), "did again what was done"),
        ("        _finish_what_was_killed(held, params)\n", "", LATE, "versions were registered for one batch"),
    ],
    ids=["repeats_finished_steps", "forgets_what_was_kept"],
)
def test_a_planted_bug_is_found(
    new_town: Callable[..., Town], shim: Path, right: str, wrong: str, shares: tuple[float, ...], found: str
) -> None:
    chaos, whole = begun(new_town, shim)
    flow = chaos.town.root / "flows" / "retrain.py"
    assert right in flow.read_text(), "the flow no longer has the line that this bug takes away"
    flow.write_text(flow.read_text().replace(right, wrong))
    chaos.town.git("commit", "-qam", "a bug")
    # One kill a run, since a start after a kill has less to do.
    for batch, share in enumerate(shares, start=3):
        chaos.town.batch(1 + batch % 2, rows=40, name=f"{batch:04}.jsonl", seed=100 + batch)
        chaos.killed_run(iter([int(whole * share)]), 1, f"batch {batch}, killed at {share} of a run")
        if any(found in line for line in chaos.wrong):
            return
    raise AssertionError("\n".join(chaos.wrong) or f"nothing was found by {chaos.points} kills")


def test_a_few_points(new_town: Callable[..., Town], shim: Path) -> None:
    generator = random.Random(SEED)
    chaos, whole = begun(new_town, shim)
    chaos.town.batch(1, rows=40, name="0003.jsonl", seed=103)
    chaos.killed_run(drawn(generator, 3 * whole), 3, "batch 3")
    assert chaos.points >= 2
    assert not chaos.wrong, "\n".join(chaos.wrong)
