"""How much of a second Ray worker arrives: taking rows in, and asking a model, by one worker and by two, beside local processes.

    python bench/ray_scaling.py [--rows 400000] [--questions 512] [--rounds 3]

Two nodes of one core each on this machine (infra/ray_cluster.py). Efficiency is seconds of one over twice those of two. What
starting takes is told apart: it is paid once a work. Of two cores the driver needs a part too, so two workers cannot have all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "infra"), str(ROOT / "bench")]

from data_rows import generate  # noqa: E402
from pydantic import SecretStr  # noqa: E402
from ray_cluster import RayCluster  # noqa: E402

from pipeline.backends.ray_engine import RayEngine  # noqa: E402
from pipeline.curation.desk import Desk  # noqa: E402
from pipeline.curation.files import open_checked  # noqa: E402
from pipeline.curation.finding import LocalFiles  # noqa: E402
from pipeline.curation.intake import Chunk, Intake  # noqa: E402
from pipeline.curation.seen import Seen  # noqa: E402
from pipeline.curation.shards import BatchWriter  # noqa: E402
from pipeline.curation.workers import Workers  # noqa: E402
from pipeline.domain.data import Task  # noqa: E402
from pipeline.domain.record import digest_file  # noqa: E402
from pipeline.params import CleanParams, IngestParams, ModelParams  # noqa: E402
from pipeline.params.compute import ComputeParams  # noqa: E402
from pipeline.ports import Crew, silent  # noqa: E402
from pipeline.wiring import row_rules  # noqa: E402

Timed = tuple[float, float, str]
"""Seconds of starting, seconds of work, and a digest of what came out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--questions", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ray-") as folder:
        home = Path(folder)
        size = generate(home / "rows.jsonl", said.rows)
        print(f"{said.rows:,} rows, {size / 1e6:.0f} MB; {said.questions} questions to examples/base; {said.rounds} rounds")
        cluster = RayCluster(home / "ray")
        try:
            cluster.up()
            measure("rows", lambda crew, _: take_in(home, crew), intake(), cluster, said.rounds)
            questions = helpdesk(home, said.questions)
            measure("questions", lambda crew, engine: ask(crew, engine, questions), asking(), cluster, said.rounds)
        finally:
            cluster.down()


def measure(
    what: str, work: Callable[[Crew, RayEngine], Timed], job: Callable[[Any], Any], cluster: RayCluster, rounds: int
) -> None:
    """Rounds of each side in turn; the median of each, and what two have of one."""
    sides: dict[str, list[Timed]] = {}
    for _ in range(rounds):
        for count in (1, 2):
            engine = engine_of(cluster, count)
            with engine.crew(job, at_least=0) as crew:
                sides.setdefault(f"ray {count}", []).append(work(crew, engine))
            if what == "rows":
                with Workers(job, count) as crew:
                    sides.setdefault(f"local {count}", []).append(work(crew, engine))
    digests = {digest for times in sides.values() for *_, digest in times}
    print(f"\n{what}: {'all sides came to the same bytes' if len(digests) == 1 else f'DIFFERENT RESULTS: {digests}'}")
    for side, times in sorted(sides.items()):
        work_s = sorted(seconds for _, seconds, _ in times)
        start = statistics.median(seconds for seconds, *_ in times)
        print(f"  {side:8} {statistics.median(work_s):7.2f} s ({work_s[0]:.2f} to {work_s[-1]:.2f}), started in {start:.1f} s")
    for kind in ("ray", "local"):
        if f"{kind} 1" in sides:
            one, two = (statistics.median(seconds for _, seconds, _ in sides[f"{kind} {count}"]) for count in (1, 2))
            print(f"  {kind}: efficiency of two {one / (2 * two):.2f}")


def engine_of(cluster: RayCluster, count: int) -> RayEngine:
    said = cluster.environment
    compute = ComputeParams(engine="ray", workers=count, least=1, from_mib=0, from_rows=1)
    return RayEngine(compute, said["TUNELINE_RAY_ADDRESS"], SecretStr(said["TUNELINE_RAY_TOKEN"]), state=cluster.folder / "state")


def intake() -> Intake:
    params = IngestParams()
    return Intake(Task.GENERATE, params.max_line_bytes, params.max_depth, row_rules(CleanParams()))


def take_in(home: Path, crew: Crew) -> Timed:
    """Rows parsed and cleaned by the crew, counted and written here."""
    began = time.perf_counter()
    crew.expect(1 << 40)
    found = next(iter(LocalFiles([home / "rows.jsonl"]).find(IngestParams(), root=home, as_of=None, earlier=())))
    line = (json.dumps({"prompt": "a", "completion": "b"}) + "\n").encode()
    warm = [crew.submit(Chunk("warm", found.reading, line)) for _ in range(8)]
    for answer in warm:
        answer.result()
    started = time.perf_counter()
    out = Path(tempfile.mkdtemp(dir=home))
    writer = BatchWriter(out)
    desk = Desk(intake(), crew, writer, Seen(), None, silent)  # type: ignore[arg-type]
    desk.take_in([open_checked(found)], IngestParams())
    shards, _ = writer.publish()
    ended = time.perf_counter()
    return started - began, ended - started, " ".join(digest_file(out / shard.path) for shard in shards)


def model() -> ModelParams:
    return ModelParams(name="bench", task=Task.GENERATE, base="./examples/base")


def asking() -> Callable[[Any], Any]:
    from pipeline.modeling.answering.asking import Asking

    return Asking(ROOT / "examples" / "base", model(), {}, threads=1)


def helpdesk(home: Path, count: int) -> list[str]:
    from pipeline.domain.data import messages_to_input

    maker = ROOT / "examples" / "helpdesk" / "make_batches.py"
    out = home / "week.jsonl"
    words = ["--week", "1", "--rows", str(2 * count), "--seed", "7", "--out", str(out)]
    subprocess.run([sys.executable, str(maker), *words], check=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return [messages_to_input([m for m in row["messages"] if m["role"] != "assistant"]) for row in rows][:count]


def ask(crew: Crew, engine: RayEngine, questions: list[str]) -> Timed:
    """Questions answered by the crew as an evaluation asks them."""
    from pipeline.modeling.answering.asking import Call
    from pipeline.modeling.answering.spread import Sharing, Spread

    began = time.perf_counter()
    subjects = Spread(ROOT / "examples" / "base", model(), Sharing(crew, asking(), engine))  # type: ignore[arg-type]
    crew.expect(1)
    how = {"max_new_tokens": 24, "batch_size": 16}
    for answer in [crew.submit(Call("answers", "base", [questions[:1]], how)) for _ in range(4)]:
        answer.result()
    started = time.perf_counter()
    said = subjects.answers("base", questions, **how)
    return started - began, time.perf_counter() - started, json.dumps(said)


if __name__ == "__main__":
    main()
