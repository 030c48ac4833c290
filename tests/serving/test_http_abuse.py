"""What a server must stand: trickles, silent sockets, endless bodies, clients that vanish or do not read, too many at once."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.params import ServeParams
from pipeline.params.serve import LimitParams, RateParams, TimeoutParams
from tests.modeling.modeling_kit import build_tiny_base
from tests.serving.http_kit import Running, TinyEngine, chat, serving, wait_until

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
TIMES = TimeoutParams(header=0.6, body=0.8, idle=0.7, write=0.8, answer=30, drain=20)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def desk(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits, rates = (
        LimitParams(body_bytes=100_000, answer_tokens=512),
        RateParams(requests_per_minute=10**6, tokens_per_minute=10**9),
    )
    params = ServeParams(timeouts=TIMES, limits=limits, rates=rates)
    with serving(TinyEngine(base, slots=4, queue=4), tmp_path_factory.mktemp("home"), params) as running:
        yield running


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    got = b""
    while True:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            return got
        if not more:
            return got
        got += more


def until(connection: socket.socket, part: bytes) -> bytes:
    """What comes until `part` has."""
    got = b""
    while part not in got:
        more = connection.recv(65536)
        assert more, got
        got += more
    return got


def trickle(connection: socket.socket, data: bytes, pause: float) -> bytes:
    """Send byte by byte until the server has enough of it; what it said."""
    done = threading.Event()

    def send() -> None:
        for place in range(len(data)):
            try:
                connection.sendall(data[place : place + 1])
            except OSError:
                return
            if done.wait(pause):
                return

    sender = threading.Thread(target=send)
    sender.start()
    said = rest(connection)
    done.set()
    sender.join()
    return said


def test_a_trickled_head_is_ended(desk: Running) -> None:
    said = trickle(desk.socket(), HEAD * 10, 0.02)
    assert said.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in said


def test_a_trickled_body_is_ended(desk: Running) -> None:
    counted = desk.engine.counted
    said = trickle(desk.socket(HEAD + b"content-length: 5000\r\n\r\n"), b'{"model": "' + b"x" * 4000, 0.02)
    assert said.startswith(b"HTTP/1.1 408")
    assert desk.engine.counted == counted


def test_a_trickled_second_request_is_ended(desk: Running) -> None:
    connection = desk.socket(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    until(connection, b'{"status":"ok"}')
    said = trickle(connection, HEAD * 10, 0.02)
    assert said.startswith(b"HTTP/1.1 408")


def test_an_idle_connection_is_ended(desk: Running) -> None:
    connection = desk.socket(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert rest(connection).endswith(b'{"status":"ok"}')


def test_a_thousand_silent_sockets_disturb_nobody(desk: Running) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 1000 if hard >= 4096 else 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    before = desk.server.guard.closed["header"]
    silent = [desk.socket() for _ in range(count)]
    try:
        assert desk.ask("/v1/chat/completions", chat())[0] == 200
        for connection in silent:
            assert rest(connection) == b"", "nothing was said, so nothing is answered"
        assert desk.server.guard.closed["header"] - before + desk.server.guard.closed["gave_way"] >= count
    finally:
        for connection in silent:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_of_too_many_connections_the_longest_silent_gives_way(base: Path, tmp_path: Path) -> None:
    params = ServeParams(timeouts=TIMES.model_copy(update={"header": 30.0}), limits=LimitParams(connections=8))
    with serving(TinyEngine(base), tmp_path, params) as desk:
        silent = [desk.socket() for _ in range(20)]
        assert desk.ask("/healthz")[0] == 200
        assert rest(silent[0]) == b""
        assert desk.server.guard.closed["gave_way"] >= 12
        for connection in silent:
            connection.close()


def test_where_nobody_is_silent_the_newcomer_goes(base: Path, tmp_path: Path) -> None:
    params = ServeParams(timeouts=TIMES.model_copy(update={"body": 30.0}), limits=LimitParams(connections=8))
    with serving(TinyEngine(base), tmp_path, params) as desk:
        busy = [desk.socket(HEAD + b"content-length: 10\r\n\r\n") for _ in range(8)]
        wait_until(lambda: desk.server.connections == 8 and not desk.server.guard.silent)
        said = rest(desk.socket())
        assert said.startswith(b"HTTP/1.1 503")
        assert b"too_many_connections" in said
        for connection in busy:
            connection.close()


def test_a_body_without_end_is_refused_while_it_is_read(desk: Running) -> None:
    process, counted = psutil.Process(), desk.engine.counted
    before = process.memory_info().rss
    connection = desk.socket(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    try:
        for _ in range(1 << 20):  # 64 gigabytes, if they were taken: what comes after the refusal is read for two seconds
            connection.sendall(chunk)
            sent += len(chunk)
    except OSError:
        pass
    said = rest(connection)
    assert sent < 1 << 36, "the server has closed"
    assert said == b"" or said.startswith(b"HTTP/1.1 413")
    assert process.memory_info().rss - before < 64 << 20
    assert desk.engine.counted == counted


def test_a_refusal_can_be_read_by_who_still_sends(desk: Running) -> None:
    connection = desk.socket(HEAD + b"content-length: 3000000\r\n\r\n")
    connection.sendall(b"x" * 3_000_000)
    assert until(connection, b"body_too_large").startswith(b"HTTP/1.1 413")
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert b'{"status":"ok"}' in until(connection, b"ok"), "what was thrown away was no more than the body"


def test_bombs_are_refused_unopened(desk: Running) -> None:
    counted = desk.engine.counted
    bomb = gzip.compress(b" " * 30_000_000)
    assert desk.ask("/v1/chat/completions", bomb, content_encoding="gzip")[2]["error"]["code"] == "unsupported_encoding"
    assert desk.ask("/v1/chat/completions", b"{}", content_type="text/plain")[0] == 415
    deep = b'{"a":' + b"[" * 90_000
    assert desk.ask("/v1/chat/completions", deep)[2]["error"]["code"] == "too_deep"
    many = json.dumps(chat(messages=[{"role": "user", "content": ""}] * 3000)).encode()
    assert desk.ask("/v1/chat/completions", many)[2]["error"]["code"] in ("too_many", "body_too_large")
    assert desk.engine.counted == counted, "nothing was tokenised"


@pytest.mark.parametrize("rounds", [4, pytest.param(84, marks=pytest.mark.slow)])
def test_a_client_that_vanishes_frees_its_slot(desk: Running, rounds: int) -> None:
    for stream in (True, False):
        body = json.dumps(chat(max_tokens=512, stream=stream)).encode()
        for _ in range(rounds):
            leaving = [desk.socket(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body) for _ in range(6)]
            wait_until(lambda: desk.engine.running == 4)
            for connection in leaving:
                connection.close()
            wait_until(lambda: desk.engine.running + desk.engine.waiting == 0)
    assert desk.ask("/v1/chat/completions", chat())[0] == 200


def test_a_client_that_does_not_read_is_ended(base: Path, tmp_path: Path) -> None:
    params = ServeParams(timeouts=TIMES, rates=RateParams(requests_per_minute=10**6))
    with serving(TinyEngine(base), tmp_path, params) as desk:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", desk.port))
        connection.settimeout(0.2)
        with suppress(OSError):
            for _ in range(20):
                connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n" * 200)
        wait_until(lambda: desk.server.guard.closed["unread"] == 1)
        assert desk.ask("/healthz")[0] == 200
        connection.close()


def test_ten_times_the_load_is_refused_not_queued(desk: Running) -> None:
    def one(number: int) -> tuple[int, dict[str, str], Any]:
        return desk.ask("/v1/chat/completions", chat(max_tokens=20, seed=number))

    with ThreadPoolExecutor(80) as pool:
        got = list(pool.map(one, range(80)))
    statuses = Counter(status for status, _, _ in got)
    assert set(statuses) == {200, 429}
    assert statuses[200] >= 8
    refused = [(headers, answer) for status, headers, answer in got if status == 429]
    assert all(int(headers["retry-after"]) >= 1 and answer["error"]["code"] == "queue_full" for headers, answer in refused)
    assert desk.engine.most <= 4


def test_an_answer_that_takes_too_long_is_ended(base: Path, tmp_path: Path) -> None:
    params = ServeParams(timeouts=TIMES.model_copy(update={"answer": 0.4}), limits=LimitParams(answer_tokens=100_000))
    with serving(TinyEngine(base), tmp_path, params) as desk:
        status, _, answer = desk.ask("/v1/chat/completions", chat(max_tokens=100_000))
        assert (status, answer["error"]["code"]) == (504, "answer_timeout")
        _, _, text = desk.ask("/v1/chat/completions", chat(max_tokens=100_000, stream=True))
        assert '"code":"answer_timeout"' in text.rstrip().rpartition("data: ")[2]
        wait_until(lambda: desk.engine.running == 0)


def test_what_outlasts_the_end_is_told_so(base: Path, tmp_path: Path) -> None:
    params = ServeParams(timeouts=TIMES.model_copy(update={"drain": 0.3}), limits=LimitParams(answer_tokens=20_000))
    with serving(TinyEngine(base), tmp_path, params) as desk, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(desk.ask, "/v1/chat/completions", chat(max_tokens=20_000, stream=s)) for s in (False, True)]
        wait_until(lambda: desk.engine.running == 2)
        desk.server.stop()
        status, _, answer = asked[0].result(60)
        assert (status, answer["error"]["code"]) == (503, "shutting_down")
        assert '"code":"shutting_down"' in asked[1].result(60)[2]
        wait_until(lambda: desk.engine.running == 0)


def test_a_server_that_ends_lets_answers_finish(base: Path, tmp_path: Path) -> None:
    with serving(TinyEngine(base), tmp_path, ServeParams(timeouts=TIMES)) as desk:
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(desk.ask, "/v1/chat/completions", chat(max_tokens=120))
            wait_until(lambda: desk.engine.running == 1)
            desk.server.stop()
            status, _, answer = under_way.result(60)
        assert status == 200
        assert answer["usage"]["completion_tokens"] == 120
        time.sleep(0.2)
        with pytest.raises(OSError, match="refused"):
            desk.socket()
