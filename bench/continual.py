"""What keeps a champion's skill while it learns something new: two real tasks, one after the other.

    python bench/continual.py                          # minutes; --rows and --seeds make it shorter or longer
    python bench/continual.py --folder /tmp/continual  # keeps what was trained; stopped and started again, it goes on
    python bench/continual.py --budget 0.05            # the old task's mean loss may rise by 0.05

First fifteen intents of a bank's customers (BANKING77), then fifteen of an assistant's users (CLINC150), told apart by one
classifier over all thirty: the base that ships, with LoRA, each training through modeling.training.tune as a run does it. Naive
learns the new rows alone. Replay draws a share of old rows, EWC holds the weights that mattered to old rows, both do both.

Shares and weights are chosen on the eval rows of the first seeds: the least loss on the new task among those that keep the
budget, or, where none does, the least forgetting. What is reported is measured on test rows that nothing was chosen by; a seed
draws its own rows to train on. Intervals are over seeds (Student's t, 95 %); differences are within a seed, from its champion.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.domain.data import EXAMPLE_COLUMNS, Task, example_id
from pipeline.domain.record import digest_value
from pipeline.domain.tuning import Objective, Output
from pipeline.modeling.base import describe_base, locate_base
from pipeline.modeling.chain import digest_folder
from pipeline.modeling.job import Job
from pipeline.params import ModelParams
from pipeline.params.train import StageParams
from pipeline.ports import silent

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
OLD, NEW = "banking", "assistant"
INTENTS = 15
SIDES = {"eval": 200, "test": 500}
STAGE: dict[str, Any] = {
    "name": "classify",
    "objective": Objective.CLASSIFY,
    "rank": 16,
    "alpha": 32,
    "learning_rate": 0.004,
    "batch_size": 16,
    "epochs": 4.0,
    "max_length": 64,
    "save_steps": 1000,
}
NAIVE: dict[str, Any] = {"mix": {"replay": 0.0}}
"""Rows of the old task are there in every training, as in a snapshot; this draws none of them."""


@dataclass(frozen=True)
class Way:
    """A way to train on the new task, with the settings that it may choose from."""

    name: str
    settings: tuple[dict[str, Any], ...]


def ways(shares: Sequence[float], weights: Sequence[float]) -> list[Way]:
    replay = [{"mix": {"replay": share}} for share in shares]
    ewc = [{"ewc": {"weight": weight, "rows": 200}} for weight in weights]
    return [
        Way("naive", (NAIVE,)),
        Way("replay", tuple(replay)),
        Way("EWC", tuple(NAIVE | one for one in ewc)),
        Way("both", tuple(one | other for one in replay for other in ewc)),
    ]


@dataclass(frozen=True)
class Measured:
    """Of one task's rows: mean cross entropy, and the share of them whose intent is told rightly."""

    loss: float
    right: float


@dataclass
class Bench:
    """The rows, the base, and what was trained so far in a folder."""

    root: Path
    rows: int
    pools: dict[str, list[tuple[str, str]]]
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = ModelParams(name="bench", task=Task.CLASSIFY, base="./examples/base")
        self.base = locate_base(model, root=ROOT)
        self.ref = describe_base(model, self.base)
        self.labels = tuple(sorted({label for pool in self.pools.values() for _, label in pool}))
        for task, pool in self.pools.items():
            for side, rows in SIDES.items():
                write(self.root / f"{task}-{side}.parquet", [pool.pop() for _ in range(rows)])

    def train_part(self, task: str, seed: int) -> Path:
        path = self.root / f"seed{seed}" / f"{task}.parquet"
        if not path.exists():
            path.parent.mkdir(exist_ok=True, parents=True)
            write(path, random.Random(f"{task} {seed}").sample(self.pools[task], self.rows))
        return path

    def champion(self, seed: int) -> Path:
        return self.trained(seed, f"champion {seed}", (OLD,), {}, start=None)

    def candidate(self, seed: int, setting: dict[str, Any]) -> Path:
        return self.trained(seed, f"{seed} {json.dumps(setting)}", (OLD, NEW), setting, start=self.champion(seed))

    def trained(self, seed: int, name: str, tasks: tuple[str, ...], setting: dict[str, Any], *, start: Path | None) -> Path:
        """The adapter of a training stage, made when first asked for."""
        from pipeline.modeling.training import tune

        folder = self.root / digest_value([name, self.rows, STAGE])[:16]
        took = folder / "seconds"
        if not took.exists():
            job = Job(
                stage=StageParams.model_validate(STAGE | setting | {"seed": seed}),
                task=Task.CLASSIFY,
                labels=self.labels,
                base=self.base,
                ref=self.ref,
                template=None,
                train=tuple(self.train_part(task, seed) for task in tasks),
                held=(),
                start=start,
                start_digest=digest_folder(start) if start else self.ref.digest,
                cache=self.root / "cache",
                folder=folder,
                adapter=folder / "adapter",
                curves=folder / "curves.jsonl",
                old=frozenset({self.train_part(OLD, seed).name}),
            )
            tuned = tune(job, tracker=Untracked(), progress=silent)
            took.write_text(str(tuned.hours * 3600))
        self.seconds[name] = float(took.read_text())
        return folder / "adapter"

    def measured(self, adapter: Path, task: str, side: str) -> Measured:
        """What a model makes of the rows of one task and side, asked once."""
        known = adapter.parent / f"{task}-{side}.json"
        if not known.exists():
            known.write_text(json.dumps(self._measure(adapter, task, side)))
        return Measured(**json.loads(known.read_text()))

    def _measure(self, adapter: Path, task: str, side: str) -> dict[str, float]:
        from pipeline.modeling.learning.labels import Labels
        from pipeline.modeling.loading import load_tokenizer
        from pipeline.modeling.texts.encoding import encode
        from pipeline.modeling.tuners import tunable

        stage, tokenizer = StageParams.model_validate(STAGE), load_tokenizer(self.base)
        part, kinds, cache = self.root / f"{task}-{side}.parquet", stage.learns_from(Task.CLASSIFY), self.root / "cache"
        identity = self.ref.tokenizer
        rows = encode(
            [part], Objective.CLASSIFY, kinds, tokenizer, None, self.labels, stage=stage, identity=identity, cache=cache
        )
        model = tunable(self.base, self.ref, stage, Output.LABEL, self.labels, start=adapter).eval()
        found = Labels(model, rows, rows, stage, pad_id=tokenizer.pad_token_id).evaluate(128)
        return {"loss": found["eval_loss"], "right": found["eval_accuracy"]}


class Untracked:
    """A tracker that keeps nothing."""

    run_id = "bench"

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def chosen(bench: Bench, way: Way, seeds: Sequence[int], budget: float) -> dict[str, Any]:
    """The setting that is best on the eval rows over `seeds`."""
    tried: list[tuple[bool, float, dict[str, Any]]] = []
    for setting in way.settings:
        risen, new = [], []
        for seed in seeds:
            before, after = bench.champion(seed), bench.candidate(seed, setting)
            risen.append(bench.measured(after, OLD, "eval").loss - bench.measured(before, OLD, "eval").loss)
            new.append(bench.measured(after, NEW, "eval").loss)
        rise, loss = statistics.fmean(risen), statistics.fmean(new)
        tried.append((rise > budget, loss if rise <= budget else rise, setting))
        print(f"  {way.name:8} {shown(setting):24} old task {rise:+.3f}, new task {loss:.3f}", flush=True)
    over, _, setting = min(tried, key=lambda one: one[:2])
    print(f"  {way.name:8} takes {shown(setting)}" + (", though it breaks the budget" if over else ""), flush=True)
    return setting


def shown(setting: dict[str, Any]) -> str:
    mix, ewc = setting.get("mix", {}), setting.get("ewc", {})
    return f"replay {mix['replay']:g}" + (f", EWC {ewc['weight']:g}" if ewc else "")


def interval(values: Sequence[float], sign: str = "+") -> str:
    """Mean and 95 % interval by Student's t."""
    places = 3 if sign else 1
    told = f"{statistics.fmean(values):{sign}.{places}f}"
    if len(values) < 2:
        return told
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{told} ± {half:.{places}f}"


def write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Rows as a part of a split."""
    columns: dict[str, list[Any]] = {name: [] for name in EXAMPLE_COLUMNS}
    for n, (text, label) in enumerate(rows):
        values = (example_id(text, label), example_id(text, ""), text, label, "{}", path.stem, n + 1, "label")
        for column, value in zip(EXAMPLE_COLUMNS, values, strict=True):
            columns[column].append(value)
    pq.write_table(pa.table(columns), path)


def banking(data: Path) -> Iterator[tuple[str, str]]:
    with (data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        yield from ((row["text"].strip(), row["category"]) for row in csv.DictReader(file))


def assistant(data: Path) -> Iterator[tuple[str, str]]:
    said = json.loads((data / "clinc150" / "data_full.train_val.json").read_text(encoding="utf-8"))
    yield from ((text, intent) for side in ("train", "val") for text, intent in said[side])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rows", type=int, default=300, help="rows to train on, of each task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--choosing", type=int, default=1, help="the first so many seeds choose the settings")
    parser.add_argument("--budget", type=float, default=0.1, help="by how much the old task's mean loss may rise, in nats")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--weights", type=float, nargs="+", default=[30.0, 1000.0, 10000.0])
    parser.add_argument("--folder", type=Path, help="where what was trained is kept; default: nowhere")
    arguments = parser.parse_args()
    pools = {OLD: pool(OLD, banking(arguments.data)), NEW: pool(NEW, assistant(arguments.data))}
    with tempfile.TemporaryDirectory() as passing:
        folder = arguments.folder or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder, arguments.rows, pools)
        seeds = range(1, arguments.seeds + 1)
        print(f"choosing by {SIDES['eval']} eval rows of each task, budget {arguments.budget:g}:", flush=True)
        settings = {}
        for way in ways(arguments.shares, arguments.weights):
            one = way.settings[0]
            settings[way.name] = (
                chosen(bench, way, seeds[: arguments.choosing], arguments.budget) if len(way.settings) > 1 else one
            )
        report(bench, settings, seeds, arguments.budget)


def pool(task: str, rows: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    """Distinct texts of the intents that were drawn, shuffled; the same every time."""
    random_, found = random.Random(1), sorted(dict(rows).items())
    drawn = set(random_.sample(sorted({label for _, label in found}), INTENTS))
    left = [(text, f"{task}: {label}") for text, label in found if label in drawn]
    random_.shuffle(left)
    return left


def report(bench: Bench, settings: dict[str, dict[str, Any]], seeds: Sequence[int], budget: float) -> None:
    before = {task: [bench.measured(bench.champion(seed), task, "test") for seed in seeds] for task in (OLD, NEW)}
    print(
        f"\n{len(seeds)} seeds, {bench.rows} rows of each task to train on, {SIDES['test']} test rows of each, budget {budget:g}"
    )
    told = (f"{task} loss {mean(before[task], 'loss'):.3f}, {mean(before[task], 'right'):.1%} right" for task in (OLD, NEW))
    print(f"champion: {'; '.join(told)}")
    print("\n| way | setting | old task: loss rises by | right | new task: loss falls by | right | in budget | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, setting in settings.items():
        after = {task: [bench.measured(bench.candidate(seed, setting), task, "test") for seed in seeds] for task in (OLD, NEW)}
        rises = [a.loss - b.loss for a, b in zip(after[OLD], before[OLD], strict=True)]
        falls = [b.loss - a.loss for a, b in zip(after[NEW], before[NEW], strict=True)]
        old, new = (interval([one.right * 100 for one in after[task]], sign="") for task in (OLD, NEW))
        kept = sum(rise <= budget for rise in rises)
        took = statistics.median(bench.seconds[f"{seed} {json.dumps(setting)}"] for seed in seeds)
        cells = (name, shown(setting), interval(rises), f"{old} %", interval(falls), f"{new} %", f"{kept} of {len(seeds)}")
        print(f"| {' | '.join(cells)} | {took:.1f} |", flush=True)


def mean(found: Sequence[Measured], name: str) -> float:
    return statistics.fmean(getattr(one, name) for one in found)


if __name__ == "__main__":
    main()
