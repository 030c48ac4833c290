"""What is taken away, and what is left alone: other models, the ledger, the other rows of a table, the other cells of a row."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_kit import example, table_of

from pipeline.backends.byte_search import search_files
from pipeline.backends.erasing import BLANK, Plan, blank_cells, clear_passing, keep_remains, plan
from pipeline.backends.needles import Needles
from pipeline.domain.erasure import ErasedFile
from pipeline.domain.record import digest_file
from pipeline.errors import TryLater
from pipeline.workspace import Project

TEXT = 'Ann "Nüß" of Köln'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / ".tuneline")


def put(path: Path, content: str = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def stored(project: Project, md5: str, *, remote: bool = False) -> Path:
    store = project.remote if remote else project.root / ".dvc" / "cache"
    return put(store / "files" / "md5" / md5[:2] / md5[2:])


def test_files_are_sorted_by_where_they_lie(project: Project) -> None:
    mine, theirs, nobodys = ("a" * 32, "b" * 32, "c" * 32)
    owners = {
        mine: [("desk", "data/snapshot/shards/x.parquet"), ("desk", "data/remains/m/y.parquet")],
        theirs: [("desk", "data/snapshot/shards/z.parquet"), ("shop", "data/snapshot/shards/z.parquet")],
    }
    objects = [stored(project, mine), stored(project, mine, remote=True), stored(project, nobodys)]
    shared = stored(project, theirs)
    page = put(project.mlflow_artifacts / "desk" / "run" / "artifacts" / "report.html")
    foreign_page = put(project.mlflow_artifacts / "shop" / "run" / "report.html")
    run, foreign_run = (put(project.runs / name / "work" / "page.html") for name in ("desk-0001", "desk-shop-0001"))
    ledger, other = put(project.ledger), put(project.prefect / "note.txt")
    put(project.prefect / "prefect.db-wal")
    places = [*objects, shared, page, foreign_page, run, foreign_run, ledger, other, project.prefect / "prefect.db-wal"]
    made = plan(places, project, "desk", owners)
    assert set(made.objects) == {mine, nobodys}
    assert made.names == {"x", "y"}, "an index of what is left of a table goes with it"
    assert [(file.path, file.md5) for file in made.erased] == [
        ("data/snapshot/shards/x.parquet", mine),
        ("tracked by no kept run", nobodys),
        ("desk/run/artifacts/report.html", ""),
    ]
    assert made.erased[2].sha256 == digest_file(page)
    assert made.folders == {project.runs / "desk-0001"}
    assert made.files == [page, other]
    assert made.elsewhere == {shared: "shop", foreign_page: "shop", foreign_run: "desk-shop"}


def test_the_other_rows_of_a_table_are_kept_and_nothing_of_the_record(tmp_path: Path) -> None:
    examples = [example(number) for number in range(30)]
    tables = {
        "shards/s.parquet": table_of(examples),
        "evaluate/predictions.parquet": pa.table(
            {"id": [one.id for one in examples], "expected": ["shared answer"] * 30, "candidate_f1": [0.5] * 30}
        ),
        "drift/texts.parquet": pa.table({"text": [*(one.output for one in examples)], "n": list(range(30))}),
        "shards/alone.parquet": table_of(examples[4:5]),
        "split/page.html": None,
    }
    planned = Plan()
    for number, (path, table) in enumerate(tables.items()):
        place = tmp_path / f"{number}"
        pq.write_table(table, place, row_group_size=7) if table is not None else place.write_text(examples[4].output)
        planned.objects[f"{number}" * 32] = place
        planned.erased.append(ErasedFile(path=path, sha256=f"{number}", md5=f"{number}" * 32))
    needles = Needles([examples[4].output], [examples[4].id])
    folder = tmp_path / "remains"
    assert keep_remains(planned, folder, needles)
    left = {path.name: pq.read_table(path) for path in sorted(folder.rglob("*.parquet"))}
    assert {name: table.num_rows for name, table in left.items()} == dict.fromkeys(
        ("predictions.parquet", "s.parquet", "texts.parquet"), 29
    )
    assert left["s.parquet"].schema == tables["shards/s.parquet"].schema
    assert examples[4].id not in left["predictions.parquet"]["id"].to_pylist()
    assert search_files([folder], needles).hits == ()
    for file in planned.erased:
        path = folder / file.md5 / Path(file.path).name
        assert file.left == (hashlib.md5(path.read_bytes()).hexdigest() if path.exists() else "")


def test_cells_are_blanked_and_free_pages_keep_nothing(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute('CREATE TABLE "odd ""name" (id INTEGER PRIMARY KEY, body TEXT, raw BLOB, n REAL)')
    filler = "x" * 5000
    rows = [(1, f"{filler}{TEXT}", None, 1.5), (2, "other", TEXT.encode(), 2.5), (3, "a", b"b", None)]
    database.executemany('INSERT INTO "odd ""name" VALUES (?, ?, ?, ?)', rows)
    database.execute('INSERT INTO "odd ""name" VALUES (4, ?, NULL, NULL)', [TEXT])
    database.execute('DELETE FROM "odd ""name" WHERE id = 4')
    database.commit()
    needles = Needles([TEXT])
    assert search_files([tmp_path], needles).hits
    assert blank_cells(path, needles) == 2
    assert search_files([tmp_path], needles).hits == ()
    blank = BLANK.decode()
    assert database.execute('SELECT * FROM "odd ""name"').fetchall() == [
        (1, f"{filler}{blank}", None, 1.5),
        (2, "other", BLANK, 2.5),
        (3, "a", b"b", None),
    ]
    assert blank_cells(path, needles) == 0
    database.close()


def test_a_database_in_use_is_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.backends import erasing

    monkeypatch.setattr(erasing, "_PATIENCE", 0.1)
    path = tmp_path / "some.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (body TEXT)")
    database.execute("INSERT INTO t VALUES (?)", [TEXT])
    database.commit()
    database.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TryLater, match="in use"):
        blank_cells(path, Needles([TEXT]))
    database.close()


def test_what_is_passing_goes(project: Project) -> None:
    for folder in (project.checkpoints, project.sweeps, project.curves, project.staging, project.scratch):
        put(folder / "deep" / "file")
    put(project.key, "k")
    clear_passing(project)
    assert [path.name for path in sorted(project.state.iterdir())] == ["key"]
