"""The official `openai` client against `tuneline serve` in a process of its own, on a project with a promoted release."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.story_town import Town

QUESTION = [{"role": "user", "content": "My parcel has not come. Where is it?"}]
SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["refund", "delivery", "other"]}, "sure": {"type": "boolean"}},
    "required": ["intent", "sure"],
    "additionalProperties": False,
}
LIMITS = "\nserve: {batch: 4, queue: 2, limits: {prompt_tokens: 100, answer_tokens: 100}, rates: {tokens_per_minute: 100000}}\n"


@dataclass
class Desk:
    """A running `tuneline serve`, and the keys to it."""

    process: subprocess.Popen[str]
    said: dict[str, Any]
    keys: dict[str, str]
    environment: dict[str, str]

    def client(self, key: str = "app", **changes: Any) -> openai.OpenAI:
        given = {"base_url": f"{self.said['url']}/v1", "api_key": self.keys.get(key, key), "max_retries": 0, "timeout": 120}
        return openai.OpenAI(**(given | changes))


@pytest.fixture(scope="module")
def desk(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    home = tmp_path_factory.mktemp("serving")
    params = home / "params.yaml"
    params.write_text((town.root / "params.yaml").read_text() + LIMITS)
    environment = {"TUNELINE_SERVING_KEYS": str(home / "keys.json")}
    asked = {"app": "--scope infer", "slow": "--requests 2", "auditor": "--scope read", "robot": "--scope infer --scope promote"}
    keys = {name: town(f"keys add {name} {words} --json", **environment).json["key"] for name, words in asked.items()}
    log = home / "stderr"
    command = [sys.executable, "-m", "pipeline", "serve", "--port", "0", "--params", str(params), "--json"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=town.root, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **environment}
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Desk(process, json.loads(line), keys, environment)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, log.read_text()
    finally:
        process.kill()
    said = log.read_text()
    assert "chat 200" in said
    assert "parcel" not in said
    assert not any(key in said for key in keys.values())


def test_a_chat_names_its_release(desk: Desk) -> None:
    raw = desk.client().chat.completions.with_raw_response.create(model="desk", messages=QUESTION, max_completion_tokens=20)
    answer = raw.parse()
    assert answer.model == "desk@1"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens <= 20
    assert answer.choices[0].message.role == "assistant"
    assert raw.headers["x-tuneline-release"].startswith("desk@1#")
    assert answer.system_fingerprint == raw.headers["x-tuneline-release"][: len("desk@1#") + 12]
    again = desk.client().chat.completions.create(model="desk", messages=QUESTION, max_completion_tokens=20)
    assert again.choices[0].message.content == answer.choices[0].message.content, "greedy unless asked otherwise"


def test_a_stream_is_the_answer_piece_by_piece(desk: Desk) -> None:
    asked: dict[str, Any] = {
        "model": "desk",
        "messages": QUESTION,
        "max_completion_tokens": 24,
        "logprobs": True,
        "top_logprobs": 2,
    }
    whole = desk.client().chat.completions.create(**asked)
    chunks = list(desk.client().chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    deltas = [choice for chunk in chunks for choice in chunk.choices]
    assert len(deltas) > 2
    assert "".join(choice.delta.content or "" for choice in deltas) == whole.choices[0].message.content
    assert {chunk.model for chunk in chunks} == {"desk@1"}
    assert chunks[-1].usage == whole.usage
    assert [choice.finish_reason for choice in deltas if choice.finish_reason] == [whole.choices[0].finish_reason]
    chances = [entry for choice in deltas if choice.logprobs for entry in choice.logprobs.content or []]
    assert whole.choices[0].logprobs is not None
    assert [entry.token for entry in chances] == [entry.token for entry in whole.choices[0].logprobs.content or []]
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in chances)


def test_json_comes_as_its_schema_has_it(desk: Desk) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA, "strict": True}}
    for seed in range(4):
        answer = desk.client().chat.completions.create(
            model="desk",
            messages=QUESTION,
            max_completion_tokens=60,
            temperature=1.0,
            seed=seed,
            response_format=asked,  # type: ignore[call-overload]
        )
        ticket = json.loads(answer.choices[0].message.content)
        assert ticket["intent"] in ("refund", "delivery", "other")
        assert isinstance(ticket["sure"], bool)
        assert set(ticket) == {"intent", "sure"}


def test_a_version_can_be_pinned(desk: Desk) -> None:
    answer = desk.client().chat.completions.create(model="desk@1", messages=QUESTION, max_completion_tokens=4)
    assert answer.model == "desk@1"
    assert {"desk", "desk@1"} <= {model.id for model in desk.client().models.list()}
    with pytest.raises(openai.NotFoundError) as told:
        desk.client().chat.completions.create(model="desk@2", messages=QUESTION)
    assert (told.value.code, told.value.param) == ("model_not_found", "model")


def test_completions_go_on_and_stop_and_repeat(desk: Desk) -> None:
    client = desk.client()
    asked: dict[str, Any] = {"model": "desk", "prompt": "Dear customer, your order", "max_tokens": 12, "temperature": 1.0, "n": 2}
    first, again = (client.completions.create(**asked, seed=5) for _ in range(2))
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in again.choices]
    assert texts[0] != texts[1]
    stop = texts[0][2:4]
    cut = client.completions.create(**{**asked, "n": 1}, seed=5, stop=[stop])
    assert cut.choices[0].text == texts[0][: texts[0].index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_errors_are_those_the_client_knows(desk: Desk) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown:
        desk.client("tl_nobody").chat.completions.create(model="desk", messages=QUESTION)
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as lacking:
        desk.client("auditor").chat.completions.create(model="desk", messages=QUESTION)
    assert lacking.value.code == "missing_scope"
    with pytest.raises(openai.NotFoundError):
        desk.client().chat.completions.create(model="../../.tuneline/key", messages=QUESTION)
    with pytest.raises(openai.BadRequestError) as wrong:
        desk.client().chat.completions.create(model="desk", messages=QUESTION, temperature=9)
    assert (wrong.value.code, wrong.value.param) == ("invalid_value", "temperature")
    with pytest.raises(openai.BadRequestError) as long:
        desk.client().chat.completions.create(model="desk", messages=[{"role": "user", "content": "word " * 200}])
    assert long.value.code == "context_length_exceeded"
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
    with pytest.raises(openai.BadRequestError) as unusable:
        desk.client().chat.completions.create(model="desk", messages=QUESTION, response_format=shape)  # type: ignore[call-overload]
    assert unusable.value.param == "response_format"
    for _ in range(2):
        desk.client("slow").chat.completions.create(model="desk", messages=QUESTION, max_completion_tokens=1)
    with pytest.raises(openai.RateLimitError) as often:
        desk.client("slow").chat.completions.create(model="desk", messages=QUESTION, max_completion_tokens=1)
    assert often.value.code == "rate_limit_exceeded"
    assert int(often.value.response.headers["retry-after"]) >= 1


def test_moving_a_release_needs_the_scope_and_obeys_the_ledger(desk: Desk) -> None:
    def move(key: str, body: dict[str, str]) -> httpx.Response:
        headers = {"authorization": f"Bearer {desk.keys[key]}"} if key else {}
        return httpx.post(f"{desk.said['url']}/v1/releases/promote", json=body, headers=headers, timeout=60)

    again = {"version": "1", "to": "production", "reason": "again"}
    assert move("", again).status_code == 401
    assert move("app", again).status_code == 403
    held = move("robot", again)
    assert held.status_code == 200
    assert held.json()["version"] == "1"
    assert held.json()["changed"] is False, "it holds production already"
    unknown = move("robot", {**again, "version": "99"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "invalid_value")
    told = httpx.get(f"{desk.said['url']}/v1/releases", headers={"authorization": f"Bearer {desk.keys['auditor']}"}).json()
    assert [row["version"] for row in told["data"]] == ["1"]
    assert told["served"][0]["name"] == "desk@1"


def test_answers_are_counted_for_the_rules_of_stages(desk: Desk, town: Town) -> None:
    end, count = time.monotonic() + 30, 0
    while not count and time.monotonic() < end:
        path = town.root / ".tuneline" / "serving" / "traffic.db"
        if path.exists():
            with sqlite3.connect(path) as store:
                count = (store.execute("SELECT sum(count) FROM answered WHERE version = '1'").fetchone() or (0,))[0] or 0
        time.sleep(0.1)
    assert count > 0


def test_a_revoked_key_is_refused_at_once(desk: Desk, town: Town) -> None:
    assert town("keys revoke slow --json", **desk.environment).json[0]["state"] == "was revoked"
    with pytest.raises(openai.AuthenticationError):
        desk.client("slow").models.list()
    listed = town("keys list", **desk.environment).out
    assert "slow  infer  was revoked" in listed
    assert not any(key in listed for key in desk.keys.values())


def test_an_address_others_reach_needs_a_key(town: Town, tmp_path: Path) -> None:
    refused = town("serve --host 0.0.0.0 --port 0", expect=2, TUNELINE_SERVING_KEYS=str(tmp_path / "keys.json"))
    assert "tuneline keys add" in refused.err
