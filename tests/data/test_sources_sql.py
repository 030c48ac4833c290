"""Queries of real databases, SQLite and PostgreSQL: what is new by a watermark, and passwords that are shown nowhere."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import traceback
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.sources import staged_rows
from pipeline.domain.data import Snapshot
from pipeline.errors import BadInput, TryLater
from tests.data.source_bench import Postgres, SourceBench, postgres

__all__ = ["postgres"]

QUERY = "SELECT id, question AS prompt, reply AS completion FROM tickets WHERE id > coalesce(:since, 0)"


@pytest.fixture
def bench(tmp_path: Path) -> SourceBench:
    return SourceBench(tmp_path)


@pytest.fixture
def database(bench: SourceBench) -> Path:
    path = bench.root / "crm.db"
    write(path, "CREATE TABLE tickets (id INTEGER PRIMARY KEY, question TEXT, reply TEXT, at TEXT, extra)")
    write(
        path, *(f"INSERT INTO tickets VALUES ({n}, 'q {n}', 'answer {n}', '2026-01-{n:02d} 10:00:00', NULL)" for n in (3, 1, 2))
    )
    return path


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def entry(**more: Any) -> dict[str, Any]:
    return {"name": "tickets", "sql": QUERY, "url": "sqlite:///crm.db", "watermark": "id"} | more


def marks(snapshot: Snapshot) -> list[tuple[str, int, str | None]]:
    return [(source.name, source.accepted, source.watermark) for source in snapshot.sources]


def test_each_run_asks_for_what_is_beyond_the_last(bench: SourceBench, database: Path) -> None:
    first = bench.take(entry())
    assert marks(first) == [("sql/tickets.jsonl", 3, "3")]
    assert bench.outputs == ["answer 1", "answer 2", "answer 3"]
    assert json.loads(bench.examples[0].meta) == {"id": "1"}
    assert bench.take(entry()) is first
    write(database, "INSERT INTO tickets VALUES (7, 'q 7', 'answer 7', '', NULL)", "DELETE FROM tickets WHERE id = 1")
    second = bench.take(entry())
    assert marks(second)[1:] == [("sql/tickets.jsonl", 1, "7")]
    assert {source.origin for source in second.sources} == {"tickets"}
    # Another entry has a watermark of its own.
    third = bench.take(
        entry(),
        entry(
            name="other",
            sql=QUERY.replace("FROM", "|| '!' AS completion, 1 AS x FROM").replace("reply AS completion || '!'", "reply || '!'"),
        ),
    )
    assert marks(third)[2:] == [("sql/other.jsonl", 3, "7")]


def test_the_same_rows_make_the_same_bytes_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for order, memory in (("ASC", 64 << 20), ("DESC", 64 << 20), ("DESC", 2000)):
        monkeypatch.setattr(staged_rows, "_SORTED_BYTES", memory)
        monkeypatch.setattr(staged_rows, "_MOST_PARTS", 3)
        bench = SourceBench(tmp_path / f"{order}{memory}")
        path = bench.root / "crm.db"
        write(path, "CREATE TABLE tickets (id INTEGER, question TEXT, reply TEXT)")
        write(path, *(f"INSERT INTO tickets VALUES ({n}, 'q {n}', 'answer {n % 7}')" for n in range(1, 501)))
        bench.take(entry(sql=f"{QUERY} ORDER BY id {order}"))
        assert len(bench.examples) == 500
        made.append({name: content for name, content in bench.files().items() if name.startswith("data/")})
    assert made[0] == made[1] == made[2]


def test_a_text_or_a_time_can_be_a_watermark(bench: SourceBench, database: Path) -> None:
    query = "SELECT question AS prompt, reply AS completion, at FROM tickets WHERE (:since IS NULL OR at > :since)"
    assert marks(bench.take(entry(sql=query, watermark="at")))[0][2] == '"2026-01-03 10:00:00"'
    write(database, "INSERT INTO tickets VALUES (9, 'q 9', 'answer 9', '2026-01-03 10:00:01', NULL)")
    assert marks(bench.take(entry(sql=query, watermark="at")))[1] == ("sql/tickets.jsonl", 1, '"2026-01-03 10:00:01"')


def test_a_watermark_that_could_be_more_than_a_value_is_refused(bench: SourceBench, database: Path) -> None:
    query = "SELECT question AS prompt, reply AS completion, extra FROM tickets WHERE :since IS NULL OR extra > :since"
    for value in ("'it''s'", "'a\\b'", "x'ff'"):
        write(database, f"UPDATE tickets SET extra = {value}")
        assert "neither a number" in bench.refused(entry(sql=query, watermark="extra"), kind=BadInput)


def test_as_of_is_kept_to_by_the_query(bench: SourceBench, database: Path) -> None:
    query = QUERY + " AND at <= :as_of"
    bench.take(entry(sql=query), as_of=datetime(2026, 1, 2, 12, tzinfo=UTC))
    assert bench.outputs == ["answer 1", "answer 2"]
    bench.take(entry(sql=query))
    assert bench.outputs == ["answer 1", "answer 2", "answer 3"]
    said = bench.refused(entry(), kind=BadInput, as_of=datetime(2026, 1, 2, tzinfo=UTC))
    assert "the query has no :as_of" in said


def test_values_become_what_json_has_for_them(bench: SourceBench, database: Path) -> None:
    write(database, "UPDATE tickets SET extra = x'00ff' WHERE id = 1", "UPDATE tickets SET extra = 9e999 WHERE id = 2")
    bench.take(entry(sql=QUERY.replace("SELECT", "SELECT extra,")))
    assert [json.loads(example.meta) for example in bench.examples] == [{"extra": "AP8=", "id": "1"}, {"id": "3"}]
    assert [row.code for row in bench.quarantine] == ["bad_number"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sql": "SELECT * FROM absent WHERE id > :since"}, "no such table: absent"),
        ({"sql": "SELEC :since"}, "syntax error"),
        ({"sql": "SELECT id, id FROM tickets WHERE id > :since OR 1"}, "share a name"),
        ({"watermark": "at"}, "no column 'at'; there are: id, prompt, completion"),
        ({"url": "sqlite:///absent.db"}, "no such SQLite file"),
        ({"url": "nodatabase://h/d"}, "driver of nodatabase is not installed"),
        ({"url": "env:TUNELINE_DATABASE_ABSENT"}, "TUNELINE_DATABASE_ABSENT is not set"),
        ({"sql": "DELETE FROM tickets WHERE id > coalesce(:since, 0) RETURNING id, question, reply"}, "readonly database"),
    ],
)
def test_what_is_wrong_is_said(bench: SourceBench, database: Path, change: dict[str, Any], problem: str) -> None:
    said = bench.refused(entry(**change), kind=BadInput)
    assert problem in said
    assert "ingest.sources, tickets" in said
    assert not (bench.root / "absent.db").exists()


def test_rows_beyond_the_limit_are_refused(bench: SourceBench, database: Path) -> None:
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"
    query = f"{endless} SELECT id, hex(zeroblob(1000)) AS prompt FROM n WHERE id > :since OR 1"
    assert "max_staged_bytes" in bench.refused(entry(sql=query), kind=BadInput, max_staged_bytes=1 << 20)


def test_a_query_without_rows_is_nothing_new(bench: SourceBench, database: Path) -> None:
    write(database, "DELETE FROM tickets")
    assert bench.take(entry()).sources == ()


PG_QUERY = """
    SELECT id, question AS prompt, reply AS completion, at, price, tags, note
    FROM tickets WHERE (:since IS NULL OR at > :since) AND at <= CAST(:as_of AS timestamptz)
"""


@pytest.fixture
def tickets(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    monkeypatch.setenv("TUNELINE_DATABASE_CRM", postgres.url())
    postgres.run(
        "DROP TABLE IF EXISTS tickets",
        "CREATE TABLE tickets (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), question text, reply text,"
        " at timestamptz, price numeric(10, 2), tags jsonb, note bytea)",
        "INSERT INTO tickets (question, reply, at, price, tags, note) SELECT 'q ' || n, 'answer ' || n,"
        " timestamptz '2026-01-01 00:00:00+00' + n * interval '1 hour', n * 1.10, '[1, {\"a\": null}]', '\\x00ff'"
        " FROM generate_series(1, 3000) AS n",
    )
    return postgres


def pg(**more: Any) -> dict[str, Any]:
    return {"name": "crm", "sql": PG_QUERY, "url": "env:TUNELINE_DATABASE_CRM", "watermark": "at"} | more


def test_postgresql(bench: SourceBench, tickets: Postgres) -> None:
    first = bench.take(pg())
    assert [(s.read, s.accepted) for s in first.sources] == [(3000, 3000)]
    one = next(example for example in bench.examples if example.output == "answer 10")
    meta = json.loads(one.meta)
    assert (meta["price"], meta["tags"], meta["note"], meta["at"][:13]) == ("11.00", '[1,{"a":null}]', "AP8=", "2026-01-01T10")
    assert bench.take(pg()) is first
    tickets.run("INSERT INTO tickets (question, reply, at) VALUES ('new', 'newer', '2027-01-01'), ('later', 'x', '2028-01-01')")
    second = bench.take(pg(), as_of=datetime(2027, 6, 1, tzinfo=UTC))
    assert [(s.accepted, json.loads(str(s.watermark))[:10]) for s in second.batch] == [(1, "2027-01-01")]


def test_a_query_cannot_write_to_postgresql(bench: SourceBench, tickets: Postgres) -> None:
    tickets.run("CREATE SEQUENCE IF NOT EXISTS numbers")
    change = {"sql": "SELECT nextval('numbers') AS prompt, 'x' AS completion", "watermark": None}
    assert "read-only transaction" in bench.refused(pg(**change), kind=BadInput)
    change = {"sql": "DELETE FROM tickets RETURNING question AS prompt, reply AS completion", "watermark": None}
    assert "the query fails" in bench.refused(pg(**change), kind=BadInput)
    bench.take(pg())
    assert len(bench.examples) == 3000


@pytest.mark.parametrize("what", ["password", "port", "query", "not a url"])
def test_a_password_is_shown_nowhere(
    bench: SourceBench,
    tickets: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    what: str,
) -> None:
    secret = "hunter2/:@%41" if what == "password" else tickets.password
    url = {
        "password": tickets.url(password="hunter2%2F%3A%40%2541"),
        "port": tickets.url(port=1),
        "query": tickets.url(),
        "not a url": f"postgresql+psycopg//tuneline:{secret}@127.0.0.1",
    }[what]
    monkeypatch.setenv("TUNELINE_DATABASE_CRM", url)
    caplog.set_level(logging.DEBUG)
    change = {"sql": f"SELECT '{secret}' || nothing FROM tickets WHERE :since IS NULL"} if what == "query" else {}
    kind = BadInput if what in ("query", "not a url") else TryLater
    with pytest.raises(kind) as caught:
        bench.take(pg(**change))
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    assert "ingest.sources, crm" in shown
    for form in {secret, "hunter2"} if what == "password" else {secret}:
        assert form not in shown


def test_no_record_or_file_holds_where_the_database_is(bench: SourceBench, tickets: Postgres) -> None:
    bench.take(pg())
    for content in bench.files().values():
        assert tickets.password.encode() not in content
        assert b"127.0.0.1" not in content


MEASURED = """
import resource, sys
from pathlib import Path
from pipeline.backends.sources.sql import fetch_rows
from pipeline.params import IngestParams

root = Path(sys.argv[1])
query = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, 'q ' || id AS prompt FROM n LIMIT 200000"
params = IngestParams(sources=[{"name": "q", "sql": query, "url": "sqlite:///crm.db"}])
entry = params.entry_of(params.sources[0])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
[found] = fetch_rows(entry, params.reading_of(entry), root / "out", root=root, as_of=None, earlier=(), limit=1 << 30)
print(found.path.read_bytes().count(b"\\n"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_rows_are_streamed(bench: SourceBench, database: Path) -> None:
    (bench.root / "out").mkdir()
    done = subprocess.run([sys.executable, "-c", MEASURED, str(bench.root)], capture_output=True, text=True, check=True)
    count, grown_kib = map(int, done.stdout.split())
    assert count == 200_000
    assert grown_kib < 120_000
