"""Decontamination: rows to train on that repeat what is held out (eval, test, benchmarks, edge cases).

What a leak is: a held-out prompt that a model sees in training, whatever answer stands beside it there. So prompts are held
against prompts (equal, or near: held_texts.py says what that means); and because a prompt can also be quoted, its word n-grams
are looked for in the whole row, answer included. System messages are left out, since many rows share one. Held-out answers are
not looked for: many questions rightly have the same answer.

Rows stream by once; the held side is in memory. Which rows are held out is for steps/split.py to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.curation.compared import answers, prompts
from pipeline.curation.held_texts import HeldTexts, words_of
from pipeline.curation.in_order import in_order
from pipeline.curation.shingles import Hashes, joined
from pipeline.domain.curated import SplitFile
from pipeline.domain.data import CheckResult
from pipeline.domain.record import digest_file
from pipeline.params import LeakParams
from pipeline.ports import Progress, silent

LEAKS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("how", pa.string()),
        ("similarity", pa.float64()),
        ("held_id", pa.string()),
        ("held_in", pa.string()),
        ("held_source", pa.string()),
        ("held_line", pa.int64()),
    ]
)
"""A row a leak: the row to train on, how it repeats a held-out one and how much of it (0 to 1), and that one: in which set it is
held (`test`, …), from which line of which source."""

_SHORT = pa.dictionary(pa.int32(), pa.string())
_HELD_SCHEMA = pa.schema([("id", pa.string()), ("held_in", _SHORT), ("source", _SHORT), ("line", pa.int64())])

HOWS = ("exact", "near", "ngram")
"""In the order in which they are asked. A row is counted once, under the first that holds and whose policy is not off."""

_ROWS = 8192
_GROUP = 50_000
_SAMPLES = 10
_EXPECTED = {
    "exact": "no row to train on has a held-out prompt, but for case, spacing and punctuation",
    "near": "no row to train on has a prompt that differs from a held-out one in few words",
    "ngram": "no row to train on holds much of a held-out prompt",
}


@dataclass(frozen=True, slots=True)
class Leaks:
    """What `check_leaks` found. file: leaks.parquet, of LEAKS_SCHEMA. checks: one for each way that is looked for. drop: which of
    the rows to train on the policy leaves out: their numbers in the order in which they came (int64, ascending)."""

    file: SplitFile
    checks: tuple[CheckResult, ...]
    drop: Any


@dataclass(frozen=True, slots=True)
class Held:
    """What is held out: its prompts, indexed, and a table of id, held_in, source and line, a row a text."""

    texts: HeldTexts
    table: Any


@dataclass(frozen=True, slots=True)
class Found:
    """The leaks of some rows: their numbers (int64, ascending) and a table of LEAKS_SCHEMA; and how many rows were looked at."""

    rows: Any
    table: Any
    looked_at: int


def check_leaks(
    held: Iterable[tuple[str, Any]],
    train: Callable[[], Iterable[Any]],
    params: LeakParams,
    *,
    out: Path,
    progress: Progress = silent,
) -> Leaks:
    """Hold the rows of `train` against those of `held`, write `out`/leaks.parquet, and judge by policy.

    held: (what the row is held in, such as `test`; a RecordBatch of EXAMPLE_COLUMNS). train: gives the RecordBatches to train on,
    and is called once. The same rows in the same order give the same bytes, in whatever batches they come.
    """
    policies = {how: getattr(params, how) for how in HOWS}
    asked = [how for how in HOWS if policies[how] != "off"]
    against = take_in(held if asked else (), params)
    counts: Counter[tuple[str, str]] = Counter()
    samples: dict[str, list[str]] = {how: [] for how in HOWS}
    drop = [np.zeros(0, np.int64)]
    seen = 0
    out.mkdir(parents=True, exist_ok=True)
    path = out / "leaks.parquet"
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with pq.ParquetWriter(temporary, LEAKS_SCHEMA, version="2.6", compression="zstd") as writer:
            for found in _grouped(find_leaks(against, train() if asked else (), asked)):
                seen += found.looked_at
                progress("looking for leaks", seen, 0)
                hows = found.table["how"].to_pylist()
                drop.append(found.rows[np.array([policies[how] == "drop" for how in hows], bool)])
                _tell(found.table, counts, samples)
                if found.table.num_rows:
                    writer.write_table(found.table)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    file = SplitFile(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size, rows=sum(counts.values()))
    checks = tuple(_check(how, policies[how], counts, samples[how], against.table.num_rows, seen) for how in asked)
    return Leaks(file, checks, np.concatenate(drop))


def take_in(held: Iterable[tuple[str, Any]], params: LeakParams) -> Held:
    """Index what is held out; see `check_leaks` for `held`."""
    words: list[Hashes] = []
    tables = [_HELD_SCHEMA.empty_table()]
    for name, batch in held:
        found = words_of(prompts(batch))
        words.append(Hashes(found.values.astype(np.uint32), found.starts))
        columns = [batch.column("id"), pa.array([name] * batch.num_rows), batch.column("source"), batch.column("line")]
        tables.append(pa.table(columns, names=_HELD_SCHEMA.names).cast(_HELD_SCHEMA))
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    return Held(HeldTexts(joined(words), params), table)


def find_leaks(held: Held, train: Iterable[Any], asked: Sequence[str] = HOWS) -> Iterator[Found]:
    """The leaks among the rows of `train` (RecordBatches of EXAMPLE_COLUMNS), in order, in lots of bounded size."""
    start = 0
    parts = (batch.slice(at, _ROWS) for batch in train for at in range(0, batch.num_rows, _ROWS))
    for found in in_order(partial(_judge, held, asked), parts):
        yield Found(found.rows + start, found.table, found.looked_at)
        start += found.looked_at


def _judge(held: Held, asked: Sequence[str], batch: Any) -> Found:
    words = words_of(prompts(batch))
    ways = {
        "exact": lambda: held.texts.equal(words),
        "near": lambda: held.texts.near(words),
        "ngram": lambda: held.texts.overlapping(words, words_of(answers(batch))),
    }
    how = np.zeros(batch.num_rows, np.int8)
    other, similarity = np.zeros(batch.num_rows, np.int64), np.zeros(batch.num_rows)
    for number, name in enumerate(asked, start=1):
        matches = ways[name]()
        new = how[matches.row] == 0
        rows = matches.row[new]
        how[rows], other[rows], similarity[rows] = number, matches.held[new], matches.similarity[new]
    rows = np.flatnonzero(how)
    own = [batch.column(name).take(pa.array(rows)) for name in ("id", "source", "line")]
    hows = pa.array([asked[number - 1] for number in how[rows].tolist()], pa.string())
    columns = [*own, hows, pa.array(similarity[rows]), *held.table.take(other[rows]).columns]
    return Found(rows, pa.table(columns, names=LEAKS_SCHEMA.names).cast(LEAKS_SCHEMA), batch.num_rows)


def _grouped(lots: Iterable[Found]) -> Iterator[Found]:
    """The same leaks in lots whose sizes depend on the leaks alone, so that the file does."""
    waiting: list[Found] = []
    for lot in lots:
        waiting.append(lot)
        while sum(found.table.num_rows for found in waiting) >= _GROUP:
            whole = _merged(waiting)
            yield Found(whole.rows[:_GROUP], whole.table.slice(0, _GROUP), whole.looked_at)
            waiting = [Found(whole.rows[_GROUP:], whole.table.slice(_GROUP), 0)]
    if waiting:
        yield _merged(waiting)


def _merged(lots: list[Found]) -> Found:
    table = pa.concat_tables([lot.table for lot in lots]).combine_chunks()
    return Found(np.concatenate([lot.rows for lot in lots]), table, sum(lot.looked_at for lot in lots))


def _tell(table: Any, counts: Counter[tuple[str, str]], samples: dict[str, list[str]]) -> None:
    """Add to what the checks say: rows by (how, held in), and the first few of each how."""
    for leak in table.select(["how", "held_in"]).group_by(["how", "held_in"]).aggregate([([], "count_all")]).to_pylist():
        counts[leak["how"], leak["held_in"]] += leak["count_all"]
    for how, told in samples.items():
        if len(told) < _SAMPLES:
            wanted = table.filter(pc.equal(table["how"], how)).slice(0, _SAMPLES - len(told))
            told.extend(map(_sample, wanted.to_pylist()))


def _sample(leak: dict[str, Any]) -> str:
    held = f"{leak['held_in']} {leak['held_source']}:{leak['held_line']}"
    return f"{leak['source']}:{leak['line']} repeats {held} ({leak['how']} {leak['similarity']:.2f})"


def _check(how: str, policy: str, counts: Counter[tuple[str, str]], samples: list[str], held: int, seen: int) -> CheckResult:
    by_set = {name: count for (found, name), count in sorted(counts.items()) if found == how}
    leaks = sum(by_set.values())
    of = ": " + ", ".join(f"{count} of {name}" for name, count in by_set.items()) if by_set else ""
    return CheckResult(
        name=f"leaks.{how}",
        passed=policy != "block" or leaks == 0,
        expected=f"{_EXPECTED[how]} (split.leaks.{how}: {policy})",
        observed=f"{leaks} of {seen} rows repeat one of {held} held out{of}",
        samples=tuple(samples),
    )
