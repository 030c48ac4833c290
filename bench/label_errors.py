"""What suspected label errors are worth: lists BANKING77's, and tells whether models tuned without them do better.

    python bench/label_errors.py PATH/TO/banking77/train.csv                  # list them, and a cheap stand-in: two minutes
    python bench/label_errors.py PATH/TO/banking77/train.csv --tune           # and tune the recipe of examples/banking77
    python bench/label_errors.py PATH/TO/banking77/train.csv --planted 500    # instead: plant wrong labels and look for them

The list comes from the real curate step. For the comparison the step sees the train side alone, so that the rows which are
measured on have no say in what is left out. The test side is the same for all, noisy labels and all: Ying & Thomas 2022 ("Label
Errors in BANKING77") found up to 14 % of this data mislabelled. Differences are paired by row, with a bootstrap interval.
What is left out: the suspected rows; all rows whose label is doubted; as many random ones of the same labels, which shows what
the smaller number of rows costs.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backends.great_expectations import GreatExpectations
from pipeline.curation.shards import SCHEMA, BatchWriter
from pipeline.domain.curated import Frozen, SplitFile, Splits, SplitSide
from pipeline.domain.data import Snapshot
from pipeline.domain.model import Starts
from pipeline.domain.record import digest_file
from pipeline.evaluation.statistics import mean, paired_bootstrap
from pipeline.params import CurateParams, Params
from pipeline.steps.curate import curate
from pipeline.steps.ingest import ingest
from pipeline.steps.split import split
from pipeline.steps.train import train
from pipeline.steps.validate import validate
from pipeline.wiring import read_params

ROOT = Path(__file__).resolve().parent.parent
ALL, UNSUSPECTED, UNDOUBTED, RANDOM = "all rows", "without the suspected", "without the doubted", "without as many at random"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tune", action="store_true", help="tune the recipe with and without the suspects (many minutes)")
    parser.add_argument("--steps", type=int, help="stop each tuning after so many steps; default: the recipe's")
    parser.add_argument("--planted", type=int, help="give so many rows another label, and tell how many of them are listed first")
    parser.add_argument("--shown", type=int, default=20, help="how many suspects to print")
    arguments = parser.parse_args()
    params = read_params(ROOT / "examples" / "banking77" / "params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), params, arguments.data)
        if arguments.planted:
            bench.find_planted(arguments.planted)
            return
        doubted = bench.doubted("all rows", bench.snapshot, bench.folder)
        print(f"the first {arguments.shown}:")
        for row in doubted[: arguments.shown]:
            print(f"  {float(row['margin']):+.3f}  {row['output']} → {row['suggested']}: {row['input'][:90]}")
        print()
        again = bench.doubted("train side", *bench.train_side())
        ids = {row["id"] for row in again}
        suspected = frozenset(row["id"] for row in again if row["suspected"] == "yes")
        variants = {ALL: frozenset(), UNSUSPECTED: suspected, UNDOUBTED: frozenset(ids), RANDOM: bench.as_many(ids)}
        print("\nLogistic regression on MiniLM embeddings:")
        bench.compare(bench.stand_ins(variants))
        if arguments.tune:
            print("\nThe recipe of examples/banking77:")
            bench.compare(bench.tuned({name: variants[name] for name in (ALL, UNSUSPECTED, UNDOUBTED)}, arguments.steps))


class Bench:
    """The data, taken in, validated and split by the real steps."""

    def __init__(self, root: Path, params: Params, data: Path) -> None:
        self.root, self.params, self.folder = root, params, root / "snapshot"
        name, task = params.model.name, params.model.task
        self.snapshot = ingest(params.ingest, dataset=name, task=task, sources=[data], parent=None, folder=self.folder)
        self.report = validate(
            self.snapshot, params.validate_, folder=self.folder, out=root / "validate", expectations=GreatExpectations()
        )
        out, report, folder = root / "curate", self.report, self.folder
        self.curation = curate(self.snapshot, report, params.curate, folder=folder, out=out, scratch=root / "scratch")
        self.splits = split(
            self.snapshot,
            self.curation,
            params.split,
            folder=self.folder,
            curated=out,
            out=root / "split",
            frozen=Frozen(),
            frozen_folder=root,
            reserved=Snapshot(dataset=name, task=task, parent=None, sources=(), shards=(), quarantine=()),
            reserved_folder=root,
        )
        self.train, self.test = (self.side(side) for side in (self.splits.train, self.splits.test))

    def side(self, side: SplitSide) -> Any:
        return pa.concat_tables([pq.read_table(self.root / "split" / part.path) for part in side.parts])

    def train_side(self) -> tuple[Snapshot, Path]:
        """The train side as a snapshot of its own."""
        return self.written(self.train, "train side")

    def written(self, rows: Any, name: str) -> tuple[Snapshot, Path]:
        """Rows as a snapshot in a folder of its own."""
        folder = self.root / name
        writer = BatchWriter(folder)
        writer.accept(rows.select(SCHEMA.names).cast(SCHEMA))
        shards, _ = writer.publish()
        return self.snapshot.model_copy(update={"shards": shards, "sources": ()}), folder

    def doubted(self, name: str, snapshot: Snapshot, folder: Path) -> list[dict[str, str]]:
        """The rows whose label the curate step doubts, most suspicious first."""
        started, out = time.perf_counter(), self.root / f"curate {name}"
        report = self.report.model_copy(update={"snapshot": snapshot.digest})
        params = CurateParams(label_errors="list")
        made = curate(snapshot, report, params, folder=folder, out=out, scratch=self.root / "scratch")
        observed = next(check.observed for check in made.checks if check.name == "label_errors")
        print(f"{name}: {observed} ({time.perf_counter() - started:.0f} s)")
        with (out / "review_label_errors.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def find_planted(self, many: int) -> None:
        """Print how many of the planted errors stand at the head of the list."""
        rows = pa.concat_tables([pq.read_table(self.folder / shard.path) for shard in self.snapshot.shards])
        rng, labels = np.random.default_rng(1), np.array(rows["output"].to_pylist())
        chosen, names = rng.choice(len(labels), many, replace=False), np.unique(labels)
        labels[chosen] = names[(np.searchsorted(names, labels[chosen]) + rng.integers(1, len(names), many)) % len(names)]
        snapshot, folder = self.written(
            rows.set_column(rows.schema.get_field_index("output"), "output", pa.array(labels)), "planted"
        )
        listed, planted = self.doubted(f"{many} planted", snapshot, folder), set(rows["id"].take(pa.array(chosen)).to_pylist())
        hits = np.cumsum([row["id"] in planted for row in listed])
        for first in (many // 2, many, 2 * many):
            found = int(hits[min(first, len(hits)) - 1])
            print(
                f"  the first {first:5} listed hold {found} planted: {found / many:.1%} of them, {found / first:.1%} of the list"
            )
        sure = [row["id"] in planted for row in listed if row["suspected"] == "yes"]
        print(f"  among the {len(sure):5} suspected: {sum(sure)} planted ({sum(sure) / many:.1%} of them)")

    def as_many(self, ids: set[str]) -> frozenset[str]:
        """As many train rows of the same labels, drawn at random."""
        labels = dict(zip(self.train["id"].to_pylist(), self.train["output"].to_pylist(), strict=True))
        wanted: dict[str, int] = {}
        for id in ids:
            wanted[labels[id]] = wanted.get(labels[id], 0) + 1
        rng = np.random.default_rng(7)
        chosen: list[str] = []
        for label, many in sorted(wanted.items()):
            chosen += rng.choice([id for id in sorted(labels) if labels[id] == label], many, replace=False).tolist()
        return frozenset(chosen)

    def stand_ins(self, variants: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
        """Labels of the test rows by a logistic regression on embeddings, fitted on the train side less each variant's rows."""
        from sklearn.linear_model import LogisticRegression

        from pipeline.modeling.answering.embedding import TextEncoder
        from pipeline.modeling.base import locate_base

        encoder = TextEncoder(locate_base(self.params.model, root=ROOT))
        train, test = (encoder.embed(side["input"].to_pylist()) for side in (self.train, self.test))
        ids, labels = np.array(self.train["id"].to_pylist()), np.array(self.train["output"].to_pylist())
        found = {}
        for name, left_out in variants.items():
            kept = ~np.isin(ids, sorted(left_out))
            found[name] = LogisticRegression(C=30, max_iter=200).fit(train[kept], labels[kept]).predict(test).tolist()
        return found

    def tuned(self, variants: Mapping[str, frozenset[str]], steps: int | None) -> dict[str, list[str]]:
        """Labels of the test rows by the recipe's model, tuned on the train side less each variant's rows."""
        from pipeline.modeling.answering.generate import Subjects
        from pipeline.modeling.base import locate_base

        model = self.params.model
        base = locate_base(model, root=ROOT)
        settings = self.params.train if steps is None else self.params.train.model_copy(update={"max_steps": steps})
        subjects, found = Subjects(base, model), {}
        for number, (name, left_out) in enumerate(variants.items()):
            started, out = time.perf_counter(), self.root / f"tuned-{number}"
            splits, data = self.without(left_out, self.root / f"data-{number}")
            made = train(
                splits,
                settings,
                model,
                starts=Starts(),
                data=data,
                starts_folder=data,
                out=out,
                base=base,
                checkpoints=self.root / "checkpoints",
                cache=self.root / "cache",
                tracker=Untracked(),
            )
            subjects.add(name, out / "adapter")
            found[name] = [one.label for one in subjects.predict(name, self.test["input"].to_pylist())]
            print(f"  {name}: {made.steps} steps on {made.train_rows} rows in {time.perf_counter() - started:.0f} s")
        return found

    def without(self, left_out: frozenset[str], folder: Path) -> tuple[Splits, Path]:
        """The splits with fewer train rows, in a folder of their own."""
        (folder / "train").mkdir(parents=True)
        (folder / "eval").mkdir()
        for part in self.splits.eval.parts:
            (folder / part.path).hardlink_to(self.root / "split" / part.path)
        path = folder / "train" / "kept.parquet"
        pq.write_table(self.train.filter(pa.array([id not in left_out for id in self.train["id"].to_pylist()])), path)
        rows = self.train.num_rows - len(left_out)
        part = SplitFile(path="train/kept.parquet", sha256=digest_file(path), bytes=path.stat().st_size, rows=rows)
        return self.splits.model_copy(update={"train": SplitSide(parts=(part,))}), folder

    def compare(self, answers: Mapping[str, Sequence[str]]) -> None:
        """Accuracy of each, and the difference to all rows, with intervals."""
        truth = self.test["output"].to_pylist()
        scores = {name: mean([float(a == b) for a, b in zip(said, truth, strict=True)]) for name, said in answers.items()}
        pairs = [(name, ALL) for name in answers if name != ALL]
        found = paired_bootstrap(scores, self.test["group"].to_pylist(), pairs=pairs)
        for name in answers:
            own = found.values[name]
            line = f"  {name:30} {own.value:.4f} ({own.low:.4f} to {own.high:.4f})"
            if name != ALL:
                less = found.differences[name, ALL]
                line += f"   difference {less.value:+.4f} ({less.low:+.4f} to {less.high:+.4f})"
            print(line + f"   on {own.rows} test rows")


class Untracked:
    """A tracker that keeps nothing: figures are printed, and the folder is gone afterwards."""

    run_id = "none"

    def log_params(self, params: Mapping[str, Any]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None: ...

    def log_dataset(self, name: str, digest: str, *, source: str, rows: int, context: str) -> None: ...

    def log_file(self, path: Path, folder: str = "") -> None: ...

    def log_folder(self, path: Path, folder: str) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...


if __name__ == "__main__":
    main()
