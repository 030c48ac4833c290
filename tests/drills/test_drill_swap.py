"""Promotions and rollbacks under streaming load: none fails, and each is answered by the release it names, and by no other.

All over HTTP: the server is that of hosting.py, releases are moved by the deeds of `tuneline promote` and `tuneline rollback`. A
small seeded sample runs with all tests, its server in a thread; the hundred moves and twenty thousand requests are those of
`make drill-swap`, whose server is a process of its own. Planted bugs show that the checker would see it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

for _folder in ("modeling", "release", "serving"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))

from hosted_world import params_of, project, served  # noqa: E402
from modeling_kit import build_tiny_base  # noqa: E402
from serving_world import ask, heard, listen  # noqa: E402
from swap_load import MOST, VERSIONS, Load, Right, Told, drill, judge, make_world  # noqa: E402
from tuner_kit import build_lively_base  # noqa: E402

os.environ.setdefault("HF_HUB_OFFLINE", "1")
_SERVER = Path(__file__).with_name("swap_server.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("swap")
    base = build_lively_base(root / "base", build_tiny_base(root / "tiny"))
    return make_world(root, base)


def serve_params(clients, rows):
    return {"batch": rows, "queue": 4 * clients, "hot": len(VERSIONS)}


def tell(load, seconds, swaps):
    lags = sorted(load.lags) or [0.0]
    print(
        f"\n{load.answered} answered ({load.pinned} pinned, {load.across} while production moved), {load.events} events, "
        f"{load.moves} moves, {len(load.wrong)} wrong, {seconds:.0f} s; by version {load.by_version}; in answers after "
        f"{lags[len(lags) // 2] * 1000:.0f} ms, at most {lags[-1] * 1000:.0f}; swap at most {max(swaps) * 1e6:.0f} µs"
    )


def run(made, *, requests, moves, clients=16, rows=32, seed=7, plant=None):
    world, right = made
    stores, params = project(world.root), params_of(world.base, **serve_params(clients, rows))
    began = time.monotonic()
    with served(stores, params, plant) as desk:
        engine = desk.hosted.engine
        own = project(world.root)  # who moves releases has connections of their own
        load = asyncio.run(
            drill(
                desk.port, own, params, right, requests=requests, moves=moves, clients=clients, seed=seed, first=plant is not None
            )
        )
    tell(load, time.monotonic() - began, [swap.seconds for swap in engine._follower.swaps])
    return load, engine


def test_a_sample_of_swaps_loses_nothing_and_mixes_nothing(made):
    load, engine = run(made, requests=160, moves=5)
    assert load.wrong == []
    assert (load.moves, load.answered >= 160, load.across > 0) == (5, True, True)
    assert len(load.by_version) > 1
    assert not any(loaded.users for loaded in engine._follower.hot.all())


def test_every_place_that_names_a_release_is_held_against_the_others():
    right = Right({"q": {"1": "one", "2": "two"}}, {"1": "1" * 64, "2": "2" * 64})
    sound = Told("one", frozenset({"desk@1"}), frozenset({"desk@1#" + "1" * 12}), "desk@1#" + "1" * 64, "production", "stop")

    def wrong(pin=None, held="1", **changes):
        load = Load()
        judge(load, right, "q", dataclasses.replace(sound, **changes), pin, held)
        return load.wrong

    assert wrong() == []
    for changes in (
        {"text": "two"},
        {"text": "on"},
        {"models": frozenset({"desk@2"})},
        {"models": frozenset({"desk@1", "desk@2"})},
        {"prints": frozenset({"desk@1#" + "2" * 12})},
        {"header": "desk@2#" + "2" * 64},
        {"header": "desk@1#" + "2" * 64},
        {"role": "pinned"},
        {"finish": None},
        {"held": "2"},
        {"pin": "2", "role": "pinned"},
    ):
        assert wrong(**changes), changes


def names_who_is_served_now(engine):
    """Pieces name whoever holds production when they are sent, not who makes them."""
    whole = engine._maker.answer

    async def answer(handle, asked, release):
        async for piece in whole(handle, asked, release):
            now = engine._follower.routes.production.release
            object.__setattr__(piece, "release", now if asked.release is None else release)
            yield piece

    engine._maker.answer = answer


def one_adapter_for_all(engine):
    """Whoever is first in a batch speaks for all rows of it."""
    adapters = next(iter(engine._maker._together._adapters.values()))
    whole = adapters.speaking
    adapters.speaking = lambda names, steady: whole([names[0]] * len(names), steady=steady)


def takes_off_who_still_speaks(engine):
    """A release that is replaced is taken off at once, whoever is being answered by it."""
    follower, swap = engine._follower, engine._follower._swap

    def swapped(role, loaded, noticed, **more):
        before = follower.routes.production
        done = swap(role, loaded, noticed, **more)
        if role == "production" and before is not None and before is not loaded:
            follower.hot.drop(before.release.version)
            engine._maker.unload(before.handle)
        return done

    follower._swap = swapped


@pytest.mark.parametrize("plant", [names_who_is_served_now, one_adapter_for_all, takes_off_who_still_speaks])
def test_planted_bugs_are_caught(made, plant):
    load, _ = run(made, requests=96, moves=6, plant=plant)
    assert load.wrong


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_moves_and_twenty_thousand_requests(made, tmp_path):
    requests, clients = int(os.environ.get("TUNELINE_DRILL_REQUESTS", "20000")), 64
    world, right = made
    stores = project(world.root)
    given = tmp_path / "serve.json"
    given.write_text(json.dumps(serve_params(clients, rows=64)))
    params = params_of(world.base)
    command = [sys.executable, str(_SERVER), str(world.root), str(world.base), str(given)]
    with (tmp_path / "stderr").open("w") as errors:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        port = int(json.loads(server.stdout.readline())["url"].rpartition(":")[2])
        began = time.monotonic()
        load = asyncio.run(drill(port, stores, params, right, requests=requests, moves=100, clients=clients, seed=7))
        seconds = time.monotonic() - began
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=120)
    finally:
        server.kill()
    told = json.loads(out)
    tell(load, seconds, told["swaps"])
    assert load.wrong == []
    assert load.answered >= requests
    assert load.moves == 100
    assert set(load.by_version) == set(VERSIONS)
    assert (server.returncode, told["alarms"], told["counts"].get("failed", 0)) == (0, [], 0)
    assert told["counts"]["answered"] == load.answered


@pytest.mark.slow
def test_a_thousand_clients_that_vanish_leave_no_row_behind(made):
    world, right = made
    engine = world.engine(rows=16, queue=2000)
    engine.start()
    prompt = sorted(right.answers)[0]

    async def one(number, order):
        pieces = engine.ask(ask(f"v{number}", prompt, most=60, temperature=1.0))
        for _ in range(order.randint(0, 3)):
            await anext(pieces, None)
        await pieces.aclose()

    async def vanish():
        order = random.Random(3)
        for start in range(0, 1000, 100):
            tasks = [asyncio.create_task(one(number, order)) for number in range(start, start + 100)]
            await asyncio.sleep(order.random() * 0.1)
            for task in order.sample(tasks, 40):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return await heard(engine, ask("after", prompt, most=MOST))

    try:
        text, release = asyncio.run(vanish())
        assert text == right.answers[prompt][release.version]
        end = time.monotonic() + 10
        while engine.health().running and time.monotonic() < end:
            time.sleep(0.01)
        assert (engine.health().waiting, engine.health().running) == (0, 0)
        assert not any(loaded.users for loaded in engine._follower.hot.all())
        assert not any(lane.rows for lane in engine._maker._together.lanes)
    finally:
        engine.close()


def _serve_and_swap(world, started):
    engine = world.engine(rows=4)
    engine.start()
    started.set()
    while True:
        world.promote(random.choice(VERSIONS))
        time.sleep(0.05)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_swaps_starts_on_who_holds_production(made):
    """F2: the ledger is all that is left, and all that is needed."""
    world, right = made
    prompt, order, fork = sorted(right.answers)[0], random.Random(5), multiprocessing.get_context("fork")
    for _ in range(5):
        started = fork.Event()
        child = fork.Process(target=_serve_and_swap, args=(world, started), daemon=True)
        child.start()
        assert started.wait(120)
        time.sleep(order.random() * 0.5)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        engine = world.engine(rows=4)
        engine.start()
        try:
            text, release = listen(engine, ask("after", prompt, most=MOST))
        finally:
            engine.close()
        assert release.version == world.ledger.holder("desk", "production")
        assert text == right.answers[prompt][release.version]
