"""How fast a record is found: index build time and size, and `tuneline who-has` over many runs.

    python bench/who_has.py --rows 10000000 --runs 30

Synthetic rows are written by the real shard writer into a project of its own: a git repository with a tag a run, and a DVC cache
with each run's snapshot and split. Look-ups are by id, by prompt, by answer, and of records that nobody has; through the step in
one process, and through the command in a new process each. Nothing is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.backends.record_index import index_shards
from pipeline.curation.shards import SCHEMA, SHARD_ROWS, TableWriter
from pipeline.domain.curated import SplitFile, Splits, SplitSide
from pipeline.domain.data import Shard, Snapshot, SourceFile, Task
from pipeline.domain.record import digest_file
from pipeline.wiring import World

PARAMS = "model: {name: bench, task: generate, base: ./base}\n"
GROUP = 20_000
SIDES = {"test": lambda n: n % 10 == 0, "eval": lambda n: n % 20 == 1, "train": lambda n: n % 10 and n % 20 != 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--lookups", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        started = time.perf_counter()
        snapshot = make_project(root, arguments.rows, arguments.runs)
        print(f"{snapshot.rows:,} rows in {len(snapshot.shards)} shards, {arguments.runs} runs; made in {since(started):.0f} s")
        world = World.here(root)
        started = time.perf_counter()
        index_shards(root / "data", snapshot, world.project.index, world.record_key, world.settings.workers)
        seconds = since(started)
        size = sum(path.stat().st_size for path in world.project.index.glob("*.idx"))
        each, rate = size / snapshot.rows, snapshot.rows / seconds
        print(f"index: {seconds:.1f} s, {rate:,.0f} rows/s; {size / 1e6:.0f} MB, {each:.0f} bytes a row")
        started = time.perf_counter()
        find(world, "warm up: facts of each run are read once")
        print(f"first look-up ever: {since(started):.2f} s")
        measure(world, snapshot.rows, arguments.lookups)
        measure_command(root, snapshot.rows)
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def measure(world: World, rows: int, lookups: int) -> None:
    rng = random.Random(7)
    times: dict[str, list[float]] = {}
    for number in range(lookups):
        kind, record, expected = pick(rng, rows, number)
        fresh = World.here(world.start)
        started = time.perf_counter()
        found = find(fresh, record)
        times.setdefault(kind, []).append(since(started))
        if found != expected:
            raise SystemExit(f"{kind} {record!r}: {found} rows instead of {expected}")
    times["any"] = [one for several in times.values() for one in several]
    for kind, seconds in times.items():
        print(f"look-up by {kind:<7} {summary(seconds)}")


def measure_command(root: Path, rows: int) -> None:
    rng = random.Random(8)
    seconds = []
    for number in range(12):
        _, record, _ = pick(rng, rows, number)
        started = time.perf_counter()
        command = [sys.executable, "-m", "pipeline", "who-has", record, "--json"]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        subprocess.run(command, cwd=root, env=env, check=True, capture_output=True)
        seconds.append(since(started))
    print(f"the command, a new process each: {summary(seconds)}")


def pick(rng: random.Random, rows: int, number: int) -> tuple[str, str, int]:
    """(kind, record, how many rows have it)."""
    row = rng.randrange(rows)
    return [("id", id_of(row), 1), ("prompt", prompt_of(row), 1), ("answer", answer_of(row), 1), ("miss", f"no row {row}", 0)][
        number % 4
    ]


def find(world: World, record: str) -> int:
    from pipeline.steps.who_has import who_has

    found = who_has(
        record, model="bench", key=world.record_key, past=world.past_runs, index=world.record_index, ledger=world.ledger
    )
    return found.count


def id_of(row: int) -> str:
    return hashlib.md5(b"%d" % row).hexdigest()


def prompt_of(row: int) -> str:
    return f"Where is parcel {row} that I sent to my aunt in the mountains last week, and why does nobody answer?"


def answer_of(row: int) -> str:
    return f"Parcel {row} waits at the post office, since the road is closed."


def make_project(root: Path, rows: int, runs: int) -> Snapshot:
    """A git repository whose tags name runs, with growing snapshots in its DVC cache; returns the newest snapshot."""
    (root / "params.yaml").write_text(PARAMS)
    git(root, "init", "--quiet")
    for key in ("name", "email"):
        git(root, "config", f"user.{key}", "bench")
    git(root, "add", "params.yaml")
    git(root, "commit", "--quiet", "--message", "start")
    objects: dict[str, str] = {}
    parts: dict[str, list[SplitFile]] = {side: [] for side in SIDES}
    shards = []
    for start in range(0, rows, SHARD_ROWS):
        shard, sides = write_shard(root, start, min(start + SHARD_ROWS, rows), objects)
        shards.append(shard)
        for side, file in sides.items():
            parts[side].append(file)
    snapshot = None
    for run in range(1, runs + 1):
        held = -(-len(shards) * run // runs)
        snapshot = keep_run(root, run, shards[:held], {side: files[:held] for side, files in parts.items()}, objects)
    assert snapshot is not None
    return snapshot


def write_shard(root: Path, start: int, end: int, objects: dict[str, str]) -> tuple[Shard, dict[str, SplitFile]]:
    folder = root / "data" / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.tmp" for name in ("shard", *SIDES)}
    writers = {name: TableWriter(path) for name, path in paths.items()}
    for table, numbers in tables(start, end):
        writers["shard"].add_table(table)
        for side, on in SIDES.items():
            writers[side].add_table(table.filter(pa.array([bool(on(number)) for number in numbers])))
    for writer in writers.values():
        writer.close()
    sha256 = digest_file(paths["shard"])
    name = f"{sha256[:16]}.parquet"
    shard = Shard(path=f"shards/{name}", sha256=sha256, bytes=paths["shard"].stat().st_size, rows=writers["shard"].rows)
    objects[f"data/snapshot/shards/{name}"] = store(root, paths["shard"].read_bytes())
    paths["shard"].rename(folder / name)
    sides = {}
    for side in SIDES:
        path = paths[side]
        sides[side] = SplitFile(
            path=f"{side}/{name}", sha256=digest_file(path), bytes=path.stat().st_size, rows=writers[side].rows
        )
        objects[f"work/split/{side}/{name}"] = store(root, path.read_bytes())
        path.unlink()
    return shard, sides


def tables(start: int, end: int) -> Iterator[tuple[pa.Table, range]]:
    for first in range(start, end, GROUP):
        numbers = range(first, min(first + GROUP, end))
        ids = [id_of(number) for number in numbers]
        columns = {
            "id": ids,
            "group": ids,
            "input": [json.dumps([{"content": prompt_of(n), "role": "user"}], separators=(",", ":")) for n in numbers],
            "output": [answer_of(number) for number in numbers],
            "meta": ["{}"] * len(numbers),
            "source": ["inbox/rows.jsonl"] * len(numbers),
            "line": [number + 1 for number in numbers],
            "kind": ["answer"] * len(numbers),
        }
        yield pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA), numbers


def keep_run(root: Path, run: int, shards: list[Shard], parts: dict[str, list[SplitFile]], objects: dict[str, str]) -> Snapshot:
    rows = sum(shard.rows for shard in shards)
    source = SourceFile(name="inbox/rows.jsonl", sha256="0" * 64, bytes=1, read=rows, accepted=rows, duplicate=0, quarantined=0)
    snapshot = Snapshot(
        dataset="bench", task=Task.GENERATE, parent=None, sources=(source,), shards=tuple(shards), quarantine=(), fresh=1
    )
    sides = {side: SplitSide(parts=tuple(files)) for side, files in parts.items()}
    splits = Splits(
        snapshot=snapshot.digest, validation="", curation="", frozen="", reserved="", params={}, sides=(), leaks=None, **sides
    )
    data = {"snapshot.json": store(root, snapshot.to_json().encode())}
    data |= {shard.path: objects[f"data/snapshot/{shard.path}"] for shard in shards}
    work = {"splits.json": store(root, splits.to_json().encode())}
    work |= {file.path: objects[f"work/split/{file.path}"] for files in parts.values() for file in files}
    (root / "data" / "snapshot.dvc").write_text(f"outs:\n- md5: {listing(root, data)}\n  path: snapshot\n")
    (root / "dvc.lock").write_text(
        f"schema: '2.0'\nstages:\n  split:\n    cmd: split\n    outs:\n    - path: work/split\n      md5: {listing(root, work)}\n"
    )
    git(root, "add", "data/snapshot.dvc", "dvc.lock")
    git(root, "commit", "--quiet", "--allow-empty", "--message", f"run {run}")
    git(root, "update-ref", f"refs/tags/tuneline/bench/run/{run:04d}", "HEAD")
    return snapshot


def listing(root: Path, files: dict[str, str]) -> str:
    rows = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    return store(root, json.dumps(rows).encode(), ".dir")


def store(root: Path, content: bytes, suffix: str = "") -> str:
    """Put bytes where DVC's cache has them, and return their name there."""
    md5 = hashlib.md5(content).hexdigest() + suffix
    path = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)


def since(started: float) -> float:
    return time.perf_counter() - started


def summary(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    worst = ordered[max(0, round(0.95 * len(ordered)) - 1)]
    return f"median {statistics.median(ordered) * 1e3:.0f} ms, p95 {worst * 1e3:.0f} ms, of {len(ordered)}"


if __name__ == "__main__":
    main()
