"""OpenAI's protocol as the app speaks it, against a server over a real tiny model: shapes, streams, parameters, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.data import Task
from pipeline.params import ServeParams
from pipeline.params.serve import LimitParams
from tests.modeling.modeling_kit import build_tiny_base
from tests.serving.http_kit import Running, TinyEngine, chat, serving


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TinyEngine:
    return TinyEngine(build_tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def desk(engine: TinyEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = LimitParams(body_bytes=200_000, answers=4, prompt_tokens=90, answer_tokens=64)
    with serving(engine, tmp_path_factory.mktemp("home"), ServeParams(limits=limits)) as running:
        yield running


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_chat_answer_names_its_release(desk: Running) -> None:
    status, headers, answer = desk.ask("/v1/chat/completions", chat())
    assert status == 200
    assert answer["model"] == "desk@7"
    assert answer["system_fingerprint"] == "desk@7#" + "7" * 12
    assert headers["x-tuneline-release"] == "desk@7#" + "7" * 64
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"]["role"] == "assistant"


def test_a_stream_says_what_the_whole_answer_says(desk: Running) -> None:
    _, _, whole = desk.ask("/v1/chat/completions", chat(logprobs=True, top_logprobs=2))
    status, headers, text = desk.ask(
        "/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2)
    )
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    chunks = events(text)
    assert all(chunk["model"] == "desk@7" and chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    deltas = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(d["delta"].get("content", "") for d in deltas) == whole["choices"][0]["message"]["content"]
    said = [entry for d in deltas if d["logprobs"] for entry in d["logprobs"]["content"]]
    assert said == whole["choices"][0]["logprobs"]["content"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in said)
    assert [d["finish_reason"] for d in deltas][-1] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


def test_completions_of_several_prompts(desk: Running) -> None:
    body = {
        "model": "desk@6",
        "prompt": ["Where is", "It is in"],
        "n": 2,
        "max_tokens": 5,
        "temperature": 1.5,
        "seed": 3,
        "logprobs": 1,
    }
    status, _, answer = desk.ask("/v1/completions", body)
    assert status == 200
    assert answer["model"] == "desk@6"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts[0] != texts[1], "each choice has a seed of its own"
    assert desk.ask("/v1/completions", body)[2]["choices"] == answer["choices"], "a seed makes it repeatable"
    assert len(answer["choices"][0]["logprobs"]["text_offset"]) == 5
    _, _, text = desk.ask("/v1/completions", body | {"stream": True})
    streamed = [""] * 4
    for chunk in events(text):
        for choice in chunk["choices"]:
            streamed[choice["index"]] += choice["text"]
    assert streamed == texts


def test_answers_of_one_request_come_from_one_release(desk: Running, engine: TinyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    before = engine.ask

    def noting(ask: Any) -> Any:
        asked.append(ask.release)
        return before(ask)

    monkeypatch.setattr(engine, "ask", noting)
    _, _, answer = desk.ask("/v1/chat/completions", chat(n=3))
    assert len(answer["choices"]) == 3
    assert asked == [None, "7", "7"]


def test_stop_ends_an_answer(desk: Running) -> None:
    _, _, whole = desk.ask("/v1/chat/completions", chat(max_tokens=12))
    text = whole["choices"][0]["message"]["content"]
    _, _, cut = desk.ask("/v1/chat/completions", chat(max_tokens=12, stop=[text[3:5]]))
    assert cut["choices"][0]["message"]["content"] == text[: text.index(text[3:5])]
    assert cut["choices"][0]["finish_reason"] == "stop"


def test_models_are_listed_and_found(desk: Running) -> None:
    _, _, listed = desk.ask("/v1/models")
    assert [model["id"] for model in listed["data"]] == ["desk", "desk@7", "desk@6"]
    assert desk.ask("/v1/models/desk")[2]["release"] == "desk@7"
    assert desk.ask("/v1/models/desk@6")[2]["digest"] == "6" * 64
    assert desk.ask("/v1/models/other")[0] == 404


def test_feedback_reaches_the_engine(desk: Running, engine: TinyEngine) -> None:
    _, _, answer = desk.ask("/v1/chat/completions", chat())
    assert desk.ask("/v1/feedback", {"id": answer["id"], "good": True})[0] == 200
    assert engine.good[answer["id"]] is True
    status, _, error = desk.ask("/v1/feedback", {"id": "chatcmpl-none", "good": True})
    assert (status, error["error"]["code"]) == (404, "answer_not_found")


def test_readiness_and_metrics(desk: Running, engine: TinyEngine) -> None:
    desk.ask("/v1/chat/completions", chat())
    assert desk.ask("/healthz")[0] == 200
    assert desk.ask("/readyz")[0] == 200
    engine.ready = False
    assert desk.ask("/readyz")[0] == 503
    engine.ready = True
    page = desk.ask("/metrics")[2]
    assert 'tuneline_http_requests_total{endpoint="chat",status="200"}' in page
    assert 'tuneline_release_info{digest="777777777777",role="production",version="7"} 1.0' in page
    assert 'tuneline_tokens_total{kind="answer",version="7"}' in page


BAD: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"model": "other"}, 404, "model_not_found", "model"),
    ({"model": "desk@8"}, 404, "model_not_found", "model"),
    ({"model": "../../etc/passwd"}, 404, "model_not_found", "model"),
    ({"model": "desk@../7"}, 404, "model_not_found", "model"),
    ({"model": 3}, 400, "invalid_value", "model"),
    ({"model": ...}, 400, "missing_required_parameter", "model"),
    ({"messages": ...}, 400, "missing_required_parameter", "messages"),
    ({"messages": []}, 400, "invalid_value", "messages"),
    ({"messages": [{"role": "user", "content": "x"}] * 257}, 400, "too_many", "messages"),
    ({"messages": [{"role": "boss", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
    ({"messages": [{"role": "user"}]}, 400, "invalid_value", "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "unsupported_content", "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "word " * 90}]}, 400, "context_length_exceeded", "messages"),
    ({"messages": [{"role": "user", "content": "x" * 9000}]}, 400, "context_length_exceeded", "messages"),
    ({"n": 10**9}, 400, "invalid_value", "n"),
    ({"n": 0}, 400, "invalid_value", "n"),
    ({"max_tokens": 65}, 400, "invalid_value", "max_tokens"),
    ({"max_tokens": 2.5}, 400, "invalid_value", "max_tokens"),
    ({"temperature": 3}, 400, "invalid_value", "temperature"),
    ({"temperature": "warm"}, 400, "invalid_value", "temperature"),
    ({"top_p": -1}, 400, "invalid_value", "top_p"),
    ({"seed": 2**63}, 400, "invalid_value", "seed"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "invalid_value", "stop"),
    ({"stop": ""}, 400, "invalid_value", "stop"),
    ({"top_logprobs": 3}, 400, "invalid_value", "top_logprobs"),
    ({"logprobs": 3}, 400, "invalid_value", "logprobs"),
    ({"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
    ({"response_format": {"type": "yaml"}}, 400, "invalid_value", "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, 400, "missing_required_parameter", "response_format"),
    ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
    ({"frequency_penalty": 0.5}, 400, "unsupported_parameter", "frequency_penalty"),
    ({"top_k": 5}, 400, "unknown_parameter", "top_k"),
]


@pytest.mark.parametrize(("changes", "status", "code", "param"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said(desk: Running, changes: dict[str, Any], status: int, code: str, param: str | None) -> None:
    got, _, answer = desk.ask("/v1/chat/completions", chat(**changes))
    error = answer["error"]
    assert (got, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_what_asks_for_nothing_is_taken(desk: Running) -> None:
    neutral = {
        "user": "u",
        "metadata": {"a": "b"},
        "frequency_penalty": 0,
        "logit_bias": {},
        "tools": None,
        "seed": None,
        "store": False,
    }
    assert desk.ask("/v1/chat/completions", chat(**neutral))[0] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'{"model": "desk", "model": "desk"}', "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "too_deep"),
    ],
)
def test_bodies_that_are_no_json(desk: Running, body: bytes, code: str) -> None:
    status, _, answer = desk.ask("/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (400, code)


def test_paths_and_methods(desk: Running) -> None:
    assert desk.ask("/v1/chat/completions")[0] == 405
    for path in ("/", "/v1", "/v1/models/../../keys.json", "/%2e%2e/keys.json", "/v1/chat/completions/"):
        status, _, answer = desk.ask(path)
        assert status == 404, path
        assert answer["error"]["code"] in ("unknown_path", "model_not_found")


def test_classification(engine: TinyEngine, tmp_path: Path) -> None:
    with serving(engine, tmp_path, task=Task.CLASSIFY) as desk:
        status, headers, answer = desk.ask("/v1/classify", {"model": "desk", "input": ["Where is Oslo?", "It is in Peru."]})
        assert status == 200
        assert answer["model"] == "desk@7"
        assert answer["labels"] == ["city", "land", "other"]
        for entry in answer["data"]:
            assert entry["label"] == answer["labels"][entry["probs"].index(max(entry["probs"]))]
            assert sum(entry["probs"]) == pytest.approx(1)
        assert headers["x-tuneline-release"].startswith("desk@7#")
        status, _, answer = desk.ask("/v1/chat/completions", chat())
        assert (status, answer["error"]["code"]) == (400, "wrong_task")
        assert desk.ask("/v1/classify", {"model": "desk", "input": ["a"] * 65})[2]["error"]["code"] == "too_many"
