"""The engine over a vLLM server: lent adapters by its API under names never used again, asked by ids, missed when away."""

from __future__ import annotations

import asyncio

import pytest
from modeling_kit import model_params
from pydantic import SecretStr
from serving_world import MODEL, QUESTIONS, World, ask, heard, listen, make_adapter
from test_engine import held, running, until  # noqa: F401 - a fixture
from vllm_server import VllmServer, says

from pipeline.backends.vllm import VllmMaker
from pipeline.backends.vllm_words import piece_of, refusal_of
from pipeline.domain.serving import Ask, Full, Release
from pipeline.errors import BadInput, Broken, Misuse, TryLater
from pipeline.params.serve import ServeParams
from pipeline.serving.engine import ReleaseEngine


@pytest.fixture(scope="module")
def folders(lively, adapters, tmp_path_factory):
    made = {name: adapters[0][name] for name in ("1", "2")}
    return made | {"dora": make_adapter(lively, tmp_path_factory.mktemp("vllm") / "dora", seed=43, shape="dora")}


@pytest.fixture
def server():
    server = VllmServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def world(lively, folders, tmp_path):
    world = World(tmp_path, lively)
    for folder in folders.values():
        world.register(folder)
    return world


def engine_of(world, server, *, key="secret", most=64, **more):
    url = f"http://127.0.0.1:{server.port}"
    maker = VllmMaker(url, SecretStr(key), lambda: world.base, model_params(world.base), most=most)
    params = ServeParams(poll_seconds=0.02, **more)
    engine = ReleaseEngine(MODEL, params, maker=maker, ledger=world.ledger, registry=world.registry)
    engine._follower._retry = 0.1
    return engine


def answer_of(world, version, tokens):
    return says(world.files(version), tokens)


def test_releases_are_lent_swapped_and_taken_back(world, server, running):  # noqa: F811
    world.promote("1")
    engine = running(engine_of(world, server, hot=2))
    tokens = engine.count(ask("a"))
    assert listen(engine, ask("a")) == (answer_of(world, "1", tokens), engine.releases()[0])
    world.promote("2")
    until(lambda: held(engine) == "2")
    assert listen(engine, ask("b"))[0] == answer_of(world, "2", tokens)
    assert listen(engine, ask("c", release="1"))[0] == answer_of(world, "1", tokens)
    world.roll_back()
    until(lambda: held(engine) == "1")
    assert len(server.ever) == len(set(server.ever)) == 2  # the former one was hot
    world.revoke("2")
    until(lambda: len(server.adapters) == 1)
    assert all(name.startswith(f"{MODEL}@") for name in server.ever)


def test_what_is_asked_is_ours_to_the_id(world, server, running):  # noqa: F811
    world.promote("1")
    engine = running(engine_of(world, server))
    schema = {"type": "object"}
    listen(engine, ask("a", temperature=0.5, top_p=0.9, seed=7, stop=("x",), schema=schema, most=5))
    body = server.asked[-1]
    voice = engine._follower.routes.production.handle
    said = '[{"content":"Where is Oslo?","role":"user"}]'
    assert body["prompt"] == voice.template.prompts([said])[0]
    assert body["stop_token_ids"] == [2]
    assert (body["temperature"], body["top_p"], body["seed"], body["stop"], body["max_tokens"]) == (0.5, 0.9, 7, ["x"], 5)
    assert body["response_format"]["json_schema"]["schema"] == schema

    async def chances():
        return [chance async for piece in engine.ask(ask("b", logprobs=1)) for chance in piece.chances]

    first = asyncio.run(chances())[0]
    assert (first.logprob, first.top, bytes(first.bytes).decode()) == (-0.5, ((first.token, -0.5),), first.token)
    for wrong in (Ask(id="x"), ask("x", "word " * 2000), ask("x", most=0), Ask(id="x", prompt="")):
        with pytest.raises(BadInput):
            listen(engine, wrong)
    with pytest.raises(Misuse):
        asyncio.run(engine.classify(Ask(id="x", text="y")))


def test_a_server_that_restarts_is_given_its_adapters_again(world, server, running):  # noqa: F811
    world.promote("1")
    engine = running(engine_of(world, server))
    right = answer_of(world, "1", engine.count(ask("a")))
    server.stop()
    with pytest.raises(TryLater):
        listen(engine, ask("a"))
    server.start()

    async def several():
        return {text for text, _ in await asyncio.gather(*(heard(engine, ask(f"b{n}")) for n in range(6)))}

    assert asyncio.run(several()) == {right}
    assert len(server.ever) == len(set(server.ever)) == 2


def test_what_vllm_cannot_serve_leaves_the_old_one(world, server, running):  # noqa: F811
    world.promote("1")
    engine = running(engine_of(world, server))
    world.promote("3")
    until(lambda: "no DoRA" in " ".join(engine.health().alarms))
    server.refuse = (400, "max_lora_rank is 2")
    world.promote("2")
    until(lambda: "max_lora_rank" in " ".join(engine.health().alarms))
    server.refuse = None
    until(lambda: held(engine) == "2")
    assert not engine.health().alarms


def test_wrong_keys_and_addresses_are_told(world, server, running):  # noqa: F811
    world.promote("1")
    engine = running(engine_of(world, server, key="wrong"))
    assert "401" in engine.health().alarms[0]
    assert "wrong" not in " ".join(engine.health().alarms)
    for url in (None, "ftp://x", "http://user:password@x"):
        with pytest.raises(Misuse):
            VllmMaker(url, None, lambda: world.base, model_params(world.base))


def test_who_vanishes_is_gone_for_vllm_too_and_many_are_refused(world, server, running):  # noqa: F811
    world.promote("1")
    engine = running(engine_of(world, server, most=3))
    server.slow = 0.05

    async def vanish():
        pieces = engine.ask(ask("a", most=50))
        await anext(pieces)
        await pieces.aclose()
        told = await asyncio.gather(*(heard(engine, ask(f"b{n}")) for n in range(6)), return_exceptions=True)
        return [type(one) for one in told].count(Full)

    assert asyncio.run(vanish()) == 3
    until(lambda: server.gone == 1)
    assert engine.health().running == 0


def test_whatever_a_server_says_is_an_answer_or_an_error():
    release, asked = Release(MODEL, "1", "d", "production"), ask("a")
    for line in ("", "[]", "{", '{"choices": [{}]}', '{"choices": [{"text": "x", "finish_reason": "abort"}]}', '{"choices": 3}'):
        with pytest.raises(Broken):
            piece_of(line, asked, 3, 0, release)
    assert piece_of('{"choices": []}', asked, 3, 0, release) is None
    with pytest.raises(BadInput):
        piece_of('{"error": {"message": "no", "code": 400}}', asked, 3, 0, release)
    kinds = {429: Full, 400: BadInput, 404: TryLater, 503: TryLater, 500: Broken, 401: Broken}
    for status, kind in kinds.items():
        assert isinstance(refusal_of(status, b"\xff not json" + QUESTIONS[0].encode()), kind)
