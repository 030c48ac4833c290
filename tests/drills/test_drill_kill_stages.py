"""SIGKILL at seeded points of training stages, then a restart: adapter and curves are those of a quiet training, byte by byte.

Twenty points for each of SFT, DPO and PPO, at any call of a function in the whole work, within a step, within the writing of a
checkpoint, or from outside at some moment after a step; every fourth training is killed twice more while it recovers. Slow:
`make drill-kill`. One point each runs with the other tests.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODELING = Path(__file__).resolve().parent.parent / "modeling"
POINTS = 20
STEPS = 6


class Server:
    """The process that trains in children; see stage_server.py."""

    def __init__(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("stage_server.py"))]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self._tell() == {"ready": True}

    def run(self, order: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(exit code of the child, what it said at its end). `after` in an order: a step and seconds after which it is killed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        step, seconds = order.get("after", (-1, 0.0))
        pid, last = 0, {}
        while "ended" not in (said := self._tell()):
            pid = said.get("pid", pid)
            if said.get("step") == step:
                time.sleep(seconds)
                os.kill(pid, signal.SIGKILL)
            last = said
        assert "failed" not in last, last["failed"]
        return int(said["ended"]), last

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _tell(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                return dict(json.loads(line))
        raise AssertionError("the server of stages has ended")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(MODELING))
    from modeling_kit import build_tiny_base

    return build_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module", params=["sft", "dpo", "ppo"])
def quiet(request, server, base, tmp_path_factory) -> tuple[dict[str, Any], dict[str, str], dict[str, int]]:
    """What all orders of a stage have in common, what an uninterrupted training leaves, how many calls its parts have."""
    home = tmp_path_factory.mktemp(request.param)
    order = {"objective": request.param, "base": str(base), "home": str(home)}
    code, said = server.run({**order, "folder": str(home / "quiet"), "count": True})
    assert code == 0
    return order, said["left"], said["calls"]


def drill(server: Server, quiet: tuple[dict[str, Any], dict[str, str], dict[str, int]], folder: Path, point: int) -> list[Any]:
    """Kill a training at the places that `point` draws, let it end, and compare. The places that were met."""
    order, expected, calls = quiet
    rng = random.Random(f"{order['objective']} {point}")
    order = {**order, "folder": str(folder)}
    met = []
    for attempt in range(3 if point % 4 == 3 else 1):
        place = _draw(rng, point + attempt, calls)
        code, _ = server.run({**order, **place})
        # The work of a second attempt is shorter: the place may lie beyond its end. The first is always met.
        assert code == -signal.SIGKILL or attempt > 0, place
        met += [place] if code == -signal.SIGKILL else []
    code, said = server.run(order)
    assert code == 0
    assert said["left"] == expected, met
    assert not list(folder.glob(".staging*"))
    assert not list(folder.glob(".adapter*"))
    return met


def _draw(rng: random.Random, point: int, calls: dict[str, int]) -> dict[str, Any]:
    kind = ("writing", "step", "after", "all")[point % 4]
    if kind == "after":
        return {"after": (rng.randint(1, STEPS - 1), rng.uniform(0.0, 0.05))}
    part = f"step {rng.randint(1, STEPS)}" if kind == "step" else kind
    return {"kill": {"part": part, "number": rng.randint(1, calls[part])}}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_twenty_points_a_stage_ends_as_a_quiet_one(quiet, server, tmp_path) -> None:
    met = [place for point in range(POINTS) for place in drill(server, quiet, tmp_path / str(point), point)]
    assert len(met) >= POINTS


def test_killed_while_it_writes_a_checkpoint_a_stage_ends_as_a_quiet_one(quiet, server, tmp_path) -> None:
    assert drill(server, quiet, tmp_path / "one", 4)
