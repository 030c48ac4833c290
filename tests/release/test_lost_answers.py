"""The event was stored and the answer to its commit was lost: what is stored tells, one event is there, and it is a success."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from release_world import MODEL, World
from sqlalchemy import event as hooks
from whole_chain import first_broken_link

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "drills"))

from release_postgres import KillablePostgres

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.release import EventKind
from pipeline.moving import utc_now


class CuttingProxy:
    """A TCP proxy before a server. Armed, it lets one COMMIT of a transaction that inserted an event through, and hangs up.

    wait: whether the server's answer is waited for, and thrown away; if not, nobody knows what the server does with it.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.armed: bool | None = None
        self.cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, *, wait: bool) -> None:
        self.armed = wait

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        inserted = False
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    said = ready.recv(65536)
                    if not said:
                        return
                    (server if ready is client else client).sendall(said)
                    if ready is not client:
                        continue
                    inserted = inserted or b"INSERT INTO events" in said
                    if b"COMMIT" not in said:
                        continue
                    if inserted and self.armed is not None:
                        wait, self.armed = self.armed, None
                        self.cut += 1
                        if wait:
                            assert server.recv(65536), "the server has answered"
                        return
                    inserted = False


@pytest.fixture
def proxied() -> Iterator[tuple[CuttingProxy, str, str]]:
    server = KillablePostgres()
    proxy = CuttingProxy(server.port)
    yield proxy, server.url, server.url.replace(f":{server.port}/", f":{proxy.port}/")
    proxy.close()
    server.close()


@pytest.mark.parametrize("moves", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_on_postgresql_each_commit_whose_answer_is_lost_is_found_by_reading(
    tmp_path: Path, proxied: tuple[CuttingProxy, str, str], moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, direct, through = proxied
    world = World(tmp_path)
    world.ledger, world.clock = SqlLedger(through), utc_now
    for name in ("one", "two"):
        world.register(name)
    inserts = list[int]()
    real = world.ledger._store.insert

    def counting(*words: object) -> None:
        inserts.append(1)
        real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(world.ledger._store, "insert", counting)
    for turn in range(moves):
        proxy.arm(wait=turn % 4 != 0)
        record = world.promote(str(1 + turn % 2))
        assert (record.changed, record.sequence, record.version) == (True, 3 + turn, str(1 + turn % 2))
    assert proxy.cut == moves, "each commit lost its answer"
    events = SqlLedger(direct).events(MODEL)
    assert len(events) == 2 + moves
    assert first_broken_link(events) is None
    assert SqlLedger(direct).verify() == ()
    assert [e.event for e in events[2:]] == [EventKind.PROMOTED] * moves
    assert moves <= len(inserts) <= moves + moves // 4, "what the server had answered was found by reading, not by writing again"


def test_on_sqlite_a_process_that_dies_between_the_commit_and_its_answer_has_made_one_event(world: World) -> None:
    """There is no network; whoever asks again, as after a kill, is told of the event that is there."""
    for name in ("one", "two"):
        world.register(name)

    def dying() -> None:
        engine = world.ledger._store._engine
        wrote = list[bool]()
        hooks.listen(engine, "before_cursor_execute", lambda c, cur, sql, *_: wrote.append("INSERT INTO events" in sql))
        real = engine.dialect.do_commit

        def commit(connection: object) -> None:
            real(connection)  # type: ignore[arg-type]
            if any(wrote):
                os.kill(os.getpid(), signal.SIGKILL)

        engine.dialect.do_commit = commit  # type: ignore[method-assign]
        world.promote("1")

    for turn in range(3):
        process = multiprocessing.get_context("fork").Process(target=dying)
        process.start()
        process.join()
        assert process.exitcode == (0 if turn else -signal.SIGKILL), "the second finds the work done, and commits nothing"
        assert len(world.ledger.events(MODEL)) == 3
    record = world.promote("1")
    assert (record.changed, record.sequence, record.version) == (False, 3, "1")
    assert world.registry.aliases(MODEL)["production"] == "1"
    assert len(world.ledger.events(MODEL)) == 3
    assert world.ledger.verify() == ()
