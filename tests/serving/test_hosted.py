"""The server whole, over a real ledger and engine: releases moved over HTTP by keys, their rules kept, answers that follow."""

from __future__ import annotations

import pytest
from hosted_world import UNGATED, params_of, project, served
from http_kit import wait_until
from serving_world import MODEL, QUESTIONS, World

from pipeline.hosting import key_file
from pipeline.serving.routing import of_share

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 12}


@pytest.fixture
def world(lively, adapters, tmp_path):
    world = World(tmp_path / "world", lively)
    for version in ("1", "2"):
        world.register(adapters[0][version])
    world.promote("1")
    return world


def test_releases_are_moved_over_http_and_answers_follow(world, adapters):
    stores = project(world.root)
    rules = {"production": {**UNGATED, "approvals": {"count": 1}}}
    keys = key_file(stores)
    scopes = {"ada": ["promote"], "bob": ["approve"], "shop": ["infer"], "eve": ["read"]}
    tokens = {name: keys.add(name, scope)[1] for name, scope in scopes.items()}
    move = {"version": "2", "to": "production", "reason": "better"}
    with served(stores, params_of(world.base, rules=rules)) as desk:

        def answer():
            status, headers, said = desk.ask("/v1/chat/completions", CHAT, tokens["shop"])
            assert status == 200, said
            version = said["model"].removeprefix(f"{MODEL}@")
            assert headers["x-tuneline-release"] == f"{MODEL}@{version}#{world.subject(version)}"
            assert said["choices"][0]["message"]["content"] == adapters[1][version][0]
            return version

        assert answer() == "1"
        status, _, said = desk.ask("/v1/releases/promote", move, tokens["ada"])
        assert (status, said["error"]["code"]) == (409, "rules_not_met")
        assert "approv" in said["error"]["message"]
        assert desk.ask("/v1/releases/approve", move, tokens["ada"])[0] == 403
        assert desk.ask("/v1/releases/promote", move, tokens["bob"])[0] == 403
        assert world.ledger.holder(MODEL, "production") == "1"
        assert desk.ask("/v1/releases/refuse", move, tokens["ada"])[0] == 403
        assert desk.ask("/v1/releases/refuse", move, tokens["bob"])[2]["event"] == "refused"
        assert desk.ask("/v1/releases/approve", move, tokens["bob"])[0] == 200
        status, _, said = desk.ask("/v1/releases/promote", move, tokens["ada"])
        assert (status, said["version"], said["changed"]) == (200, "2", True)
        wait_until(lambda: answer() == "2")
        back = {"stage": "production", "reason": "worse", "leaving": "2"}
        assert desk.ask("/v1/releases/rollback", back, tokens["shop"])[0] == 403
        status, _, said = desk.ask("/v1/releases/rollback", back, tokens["ada"])
        assert (status, said["version"]) == (200, "1")
        wait_until(lambda: answer() == "1")
        assert desk.ask("/v1/releases/rollback", back, tokens["ada"])[2]["changed"] is False, "a retry goes back no further"
        _, _, told = desk.ask("/v1/releases", None, tokens["eve"])
        assert told["served"][0]["name"] == f"{MODEL}@1"
    deeds = [(event.event.value, event.version, event.actor) for event in world.ledger.events(MODEL)[-3:]]
    assert deeds == [("approved", "2", "bob"), ("promoted", "2", "ada"), ("rolled_back", "1", "ada")]


def test_a_canary_release_answers_its_share_over_http(world, adapters):
    world.promote("2", "staging")
    with served(project(world.root), params_of(world.base, canary={"share": 0.5})) as desk:
        seen = set()
        for _ in range(24):
            status, headers, said = desk.ask("/v1/chat/completions", CHAT)
            version = "2" if of_share("canary", said["id"], 0.5) else "1"
            assert (status, said["model"]) == (200, f"{MODEL}@{version}")
            assert headers["x-tuneline-role"] == {"1": "production", "2": "canary"}[version]
            assert said["choices"][0]["message"]["content"] == adapters[1][version][0]
            seen.add(version)
        assert seen == {"1", "2"}
        assert desk.ask("/v1/feedback", {"id": said["id"], "good": True})[0] == 200
