"""The log of requests: a sample, redacted before the disk, with how each request went, bounded, and never in an answer's way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.backends.personal_data import PatternPersonalData
from pipeline.curation.redaction import redact
from pipeline.domain.data import Task
from pipeline.domain.monitoring import LoggedRequest
from pipeline.serving.http.keeping import Keeper
from pipeline.serving.http.request_log import RequestLog
from tests.modeling.modeling_kit import build_tiny_base
from tests.serving.http_kit import TinyEngine, chat, serving

DAY = 86_400.0


def redaction(text: str) -> str:
    return redact(text, PatternPersonalData(["email", "phone"]))[0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TinyEngine:
    return TinyEngine(build_tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    yield made
    made.close()


def log_in(path: Path, keeper: Keeper, **changes: object) -> RequestLog:
    given = {"share": 1.0, "days": 30, "max_bytes": 1 << 20} | changes
    return RequestLog(path, redaction, keeper, **given)  # type: ignore[arg-type]


def lines(path: Path) -> list[LoggedRequest]:
    return [LoggedRequest.model_validate_json(line) for file in sorted(path.iterdir()) for line in file.read_text().splitlines()]


def test_a_line_says_what_was_asked_and_how_it_went_without_personal_data(
    engine: TinyEngine, tmp_path: Path, keeper: Keeper
) -> None:
    path = tmp_path / "requests"
    with serving(engine, tmp_path, log=log_in(path, keeper)) as desk:
        said = [{"role": "user", "content": "Write to ada@example.org, please."}]
        _, _, answer = desk.ask("/v1/chat/completions", chat(messages=said, response_format={"type": "json_object"}))
        keeper.settle()
        [line] = lines(path)
    assert line.asked == ([{"role": "user", "content": "Write to <EMAIL>, please."}],)
    assert line.answered == (answer["choices"][0]["message"]["content"],)
    assert (line.id, line.release, line.digest, line.role) == (answer["id"], "desk@7", "7" * 64, "production")
    assert (line.endpoint, line.json_wanted, line.json_valid, line.finish) == ("chat", True, (False,), ("length",))
    assert (line.prompt_tokens, line.answer_tokens) == (answer["usage"]["prompt_tokens"], 6)
    assert line.first is not None
    assert 0 < line.first <= line.seconds
    [file] = path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_failures_and_labels_are_written_down_too_and_bad_requests_are_not(
    engine: TinyEngine, tmp_path: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "requests"
    with serving(engine, tmp_path, log=log_in(path, keeper)) as desk:
        before = engine._chances

        def breaks(ids: list[int]) -> object:
            if len(ids) > before_break[0]:
                raise RuntimeError("ada@example.org broke it")
            return before(ids)

        before_break = [10_000]
        monkeypatch.setattr(engine, "_chances", breaks)
        count = desk.ask("/v1/chat/completions", chat())[2]["usage"]["prompt_tokens"]
        before_break[0] = count + 2
        assert desk.ask("/v1/chat/completions", chat())[0] == 500
        before_break[0] = 0
        assert desk.ask("/v1/chat/completions", chat())[0] == 500
        assert desk.ask("/v1/chat/completions", chat(temperature=9))[0] == 400
        assert desk.ask("/v1/chat/completions", chat(model="desk@99"))[0] == 404
        keeper.settle()
    fine, partly, none = lines(path)
    assert fine.error is None
    assert (partly.error, partly.release, len(partly.answered[0]) > 0) == ("internal_error", "desk@7", True)
    assert (none.error, none.release, none.answered) == ("internal_error", None, ())
    monkeypatch.undo()
    with serving(engine, tmp_path, task=Task.CLASSIFY, log=log_in(tmp_path / "labels", keeper)) as desk:
        _, _, told = desk.ask("/v1/classify", {"model": "desk", "input": ["Oslo", "Norway"]})
        keeper.settle()
    [line] = lines(tmp_path / "labels")
    assert line.answered == tuple(one["label"] for one in told["data"])
    assert (line.endpoint, line.asked, line.json_valid) == ("classify", ("Oslo", "Norway"), ())


def test_files_go_by_days_and_by_bytes(tmp_path: Path, keeper: Keeper) -> None:
    now = [100 * DAY]
    log = log_in(tmp_path, keeper, days=2, max_bytes=1 << 16, clock=lambda: now[0])
    for _ in range(6):
        log._write({"x": "y"})
        now[0] += DAY
    assert [file.name[:10] for file in sorted(tmp_path.iterdir())] == ["1970-04-14", "1970-04-15", "1970-04-16"]
    for _ in range(300):
        log._write({"x": "y" * 1000})
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1 << 16
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) > 1 << 15


def test_a_share_is_drawn_by_the_id(tmp_path: Path, keeper: Keeper) -> None:
    half = log_in(tmp_path, keeper, share=0.5)
    drawn = [half.wants(f"chatcmpl-{n}") for n in range(1000)]
    assert 400 < sum(drawn) < 600
    assert drawn == [half.wants(f"chatcmpl-{n}") for n in range(1000)]


def test_what_cannot_be_redacted_is_not_written_and_what_waits_is_bounded(engine: TinyEngine, tmp_path: Path) -> None:
    gate, keeper = threading.Event(), Keeper(most=3)

    def stuck(text: str) -> str:
        gate.wait(60)
        raise ValueError(text)

    log = RequestLog(tmp_path / "requests", stuck, keeper, share=1.0, days=1, max_bytes=1 << 20)
    with serving(engine, tmp_path, log=log) as desk:
        for _ in range(8):
            assert desk.ask("/v1/chat/completions", chat())[0] == 200, "no answer waits for the log"
        assert keeper.dropped >= 4
        gate.set()
        keeper.settle()
    assert not (tmp_path / "requests").exists()
    keeper.close()
