"""The engine on a real ledger and real adapters: who answers, who does not, and what is told of it."""

from __future__ import annotations

import asyncio
import shutil
import time

import pytest
from serving_world import MODEL, QUESTIONS, World, ask, heard, listen

from pipeline.domain.serving import Ask, Full, NotServed
from pipeline.errors import BadInput, Misuse, Tampered, TryLater
from pipeline.serving.engine import ReleaseEngine
from pipeline.serving.traffic import TrafficFile


@pytest.fixture
def world(lively, adapters, tmp_path):
    world = World(tmp_path, lively)
    for folder in adapters[0].values():
        world.register(folder)
    return world


@pytest.fixture
def running():
    """Starts engines, and closes them."""
    started: list[ReleaseEngine] = []

    def start(engine):
        started.append(engine)
        engine.start()
        return engine

    yield start
    for engine in started:
        engine.close()


def until(true, seconds=20.0):
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def held(engine):
    found = [release for release in engine.releases() if release.role == "production"]
    return found[0].version if found else None


def test_answers_name_the_release_that_holds_production(world, adapters, running):
    engine = running(world.engine())
    assert not engine.health().ready
    assert "production" in engine.health().alarms[0]
    with pytest.raises(TryLater):
        listen(engine, ask("a"))
    world.promote("1")
    until(lambda: held(engine) == "1")
    assert not engine.health().alarms
    text, release = listen(engine, ask("a"))
    assert (text, release.name, release.role) == (adapters[1]["1"][0], f"{MODEL}@1", "production")
    world.promote("2")
    until(lambda: held(engine) == "2")
    assert listen(engine, ask("b", QUESTIONS[1]))[0] == adapters[1]["2"][1]
    world.roll_back()
    until(lambda: held(engine) == "1")
    assert listen(engine, ask("c", QUESTIONS[1]))[0] == adapters[1]["1"][1]
    swap = engine.health().last_swap
    assert (swap.role, swap.version, swap.before) == ("production", "1", "2")
    assert engine.health().counts["answered"] == 3


def test_an_answer_ends_on_the_release_it_began_with(world, adapters, running):
    world.promote("1")
    engine = running(world.engine())

    async def across():
        pieces, names = [], set()
        async for piece in engine.ask(ask("a")):
            pieces.append(piece.text)
            names.add(piece.release.version)
            if len(pieces) == 1:
                world.promote("2")
                await asyncio.to_thread(until, lambda: held(engine) == "2")
        return "".join(pieces), names

    assert asyncio.run(across()) == (adapters[1]["1"][0], {"1"})
    assert listen(engine, ask("b"))[0] == adapters[1]["2"][0]


def test_a_bad_adapter_leaves_the_old_one_serving(world, adapters, running):
    """F2: damaged in the registry, swapped for another's, of another base, without a handshake, refused by a further check."""
    refused = []
    engine = world.engine(verify=lambda record, folder: refused.append(record.version))
    world.promote("1")
    running(engine)
    weights = world.files("2") / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    world.promote("2")
    until(lambda: engine.health().alarms)
    (alarm,) = engine.health().alarms
    assert "version 2 holds production and cannot be served" in alarm
    assert "version 1 still answers" in alarm
    assert listen(engine, ask("a"))[0] == adapters[1]["1"][0]
    assert engine.health().ready
    (world.files("3") / "tuneline.json").unlink()
    world.promote("3")
    until(lambda: "version 3" in " ".join(engine.health().alarms))
    assert held(engine) == "1"
    assert "1" in refused
    assert "2" not in refused  # what is damaged is not even looked at
    weights.write_bytes(whole)
    world.promote("2")
    until(lambda: held(engine) == "2")
    assert not engine.health().alarms


def test_a_release_that_fails_its_probe_or_signature_is_not_served(world, adapters, lively, running, tmp_path):
    from tuner_kit import edit_weights

    odd = tmp_path / "odd"
    shutil.copytree(adapters[0]["4"], odd)
    edit_weights(odd, lambda tensors: {key: tensor * 3 for key, tensor in tensors.items()}, "adapter_model.safetensors")
    five = world.register(odd)

    def verify(record, folder):
        if record.version == "3":
            raise Tampered("the signature is not that of these files")

    world.promote("1")
    engine = running(world.engine(verify=verify))
    world.promote(five)
    until(lambda: "probe" in " ".join(engine.health().alarms))
    world.promote("3")
    until(lambda: "signature" in " ".join(engine.health().alarms))
    assert listen(engine, ask("a"))[0] == adapters[1]["1"][0]
    with pytest.raises(Tampered):
        listen(engine, ask("a", release="3"))
    world.promote("2")
    until(lambda: held(engine) == "2")
    assert listen(engine, ask("a"))[0] == adapters[1]["2"][0]


def test_pins_load_what_is_asked_and_forget_the_least_used(world, adapters, running):
    world.promote("1")
    engine = running(world.engine(hot=2))
    for version in ("2", "3", "2", "4", "1", "3"):
        text, release = listen(engine, ask("a", release=version))
        assert (text, release.version) == (adapters[1][version][0], version)
        assert release.role == ("production" if version == "1" else "pinned") or release.role == "pinned"
        assert len(engine.releases()) <= 2
    assert held(engine) == "1"
    for unknown in ("9", "../1", "1\n", "", "x" * 5000):
        with pytest.raises(NotServed):
            listen(engine, ask("a", release=unknown))


def test_a_revoked_version_answers_nobody(world, adapters, running):
    world.promote("1")
    world.promote("2")
    engine = running(world.engine())
    assert held(engine) == "2"
    world.revoke("2")
    until(lambda: held(engine) == "1")
    with pytest.raises(NotServed):
        listen(engine, ask("a", release="2"))
    world.revoke("1")
    until(lambda: not engine.health().ready)
    with pytest.raises(TryLater):
        listen(engine, ask("b"))


def test_a_full_queue_refuses_and_says_when(world, adapters, running):
    """F8: ten times what there is room for."""
    world.promote("1")
    engine = running(world.engine(rows=2, queue=4))

    async def crowd():
        return await asyncio.gather(*(heard(engine, ask(f"a{n}", most=24)) for n in range(24)), return_exceptions=True)

    told = asyncio.run(crowd())
    full = [one for one in told if isinstance(one, Full)]
    assert 0 < len(told) - len(full) < 24
    assert all(not isinstance(one, Exception) or isinstance(one, Full) for one in told)
    assert all(one.retry_after >= 1.0 for one in full)
    until(lambda: (engine.health().waiting, engine.health().running) == (0, 0))
    assert engine.health().counts["refused"] == len(full)
    assert listen(engine, ask("after"))[0] == adapters[1]["1"][0]


def test_who_vanishes_frees_the_place(world, adapters, running):
    """F7: clients that go after the first piece, while they wait, and before they began. The drill has a thousand of them."""
    world.promote("1")
    engine = running(world.engine(rows=4, queue=2000))

    async def one(n):
        pieces = engine.ask(ask(f"v{n}", most=60, temperature=1.0))
        if n % 3:
            await anext(pieces)
        await pieces.aclose()

    async def vanish():
        for start in range(0, 80, 40):
            tasks = [asyncio.create_task(one(n)) for n in range(start, start + 40)]
            await asyncio.sleep(0.01)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return await asyncio.gather(*(heard(engine, ask(f"s{n}")) for n in range(8)))

    after = asyncio.run(vanish())
    assert {text for text, _ in after} == {adapters[1]["1"][0]}
    until(lambda: engine.health().running == 0)
    assert engine.health().waiting == 0
    assert all(not loaded.users for loaded in engine._follower.hot.all())
    assert not any(lane.rows for lane in engine._maker._together.lanes)


def test_bad_asks_are_refused_and_cost_nobody_anything(world, adapters, running):
    world.promote("1")
    engine = running(world.engine())
    schema = {"type": "object", "properties": {"a": {"pattern": "("}}}
    for wrong in (
        Ask(id="x"),
        ask("x", "word " * 2000),
        ask("x", most=0),
        ask("x", schema={"type": 3}),
        ask("x", schema=schema | {"properties": {"a": {"type": "string", "pattern": "("}}}),
        Ask(id="x", messages=({"role": "user"},)),
        Ask(id="x", messages=()),
        Ask(id="x", prompt=""),
    ):
        with pytest.raises(BadInput):
            listen(engine, wrong)
    with pytest.raises(Misuse):
        asyncio.run(engine.classify(Ask(id="x", text="hello")))
    assert engine.health().counts.get("failed", 0) == 0
    assert listen(engine, ask("a"))[0] == adapters[1]["1"][0]
    assert engine.count(ask("a")) == len(engine._maker._together.tokenizer(QUESTIONS[0])["input_ids"]) + 4


def test_an_engine_that_closes_ends_what_runs(world, adapters):
    world.promote("1")
    engine = world.engine()
    engine.start()

    async def cut():
        task = asyncio.create_task(heard(engine, ask("a", most=100, temperature=1.0)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(engine.close)
        return await asyncio.gather(task, return_exceptions=True)

    (told,) = asyncio.run(cut())
    assert isinstance(told, TryLater) or told[0]
    with pytest.raises(TryLater):
        listen(engine, ask("b"))
    engine.close()


def test_a_missing_base_is_an_alarm_until_it_is_there(world, adapters, lively, running, tmp_path):
    world.promote("1")
    world.base = tmp_path / "base"
    engine = running(world.engine())
    assert not engine.health().ready
    assert "nothing can be loaded" in engine.health().alarms[0]
    shutil.copytree(lively, world.base)
    until(lambda: held(engine) == "1")
    assert listen(engine, ask("a"))[0] == adapters[1]["1"][0]


def test_the_ledger_may_be_away_for_a_while(world, adapters, running, monkeypatch):
    world.promote("1")
    engine = running(world.engine())

    def away(model):
        raise TryLater("the ledger does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(world.ledger, "head", away)
        until(lambda: "ledger" in " ".join(engine.health().alarms))
        assert listen(engine, ask("a"))[0] == adapters[1]["1"][0]
    until(lambda: not engine.health().alarms)


def test_requests_are_counted_on_disk(world, adapters, running, tmp_path):
    world.promote("1")
    path = tmp_path / "serving" / "traffic.db"
    engine = world.engine(traffic=TrafficFile(path))
    running(engine)
    for n in range(5):
        listen(engine, ask(f"a{n}"))
    listen(engine, ask("p", release="2"))
    engine.close()
    counts = TrafficFile(path)
    assert [counts.answered(MODEL, version) for version in ("1", "2")] == [5, 0]
    counts.add(MODEL, "1")
    counts.flush()
    assert TrafficFile(path).answered(MODEL, "1") == 6
