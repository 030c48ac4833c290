"""Every way of tuning side by side: MiniLM on BANKING77, accuracy with interval, seconds, memory, parameters trained.

    python bench/tuners.py ../shared/data/banking77/train.csv --work FOLDER
    python bench/tuners.py … --tuners full lora --splits plain --steps 50      # a quick look
    python bench/tuners.py … --search 12 --tuners lora                         # settings, judged on the eval side alone

Two splits, the same for all. `ours` is that of examples/banking77: groups, and rows near to held-out ones not trained on.
`plain` is scikit-learn's stratified random split with the same shares, as others use; one question in eighteen is nearly
another. Each cell is trained and measured in a process of its own: seconds are those of the training alone (CPU seconds too,
which a busy machine changes less), memory the most that the process ever held, of which the imports hold a part. Differences are
to `plain full` (rate 1e-4, label smoothing 0.1), paired by row; it has four epochs in batches of 32, the others six. A cell that
stands in FOLDER is not trained again, so a stopped run goes on.

Writes tuners.json and tuners.md to FOLDER, and prints the table. Settings are those of examples/banking77, and judgement; nothing
was searched on test rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.backends.params_file import read_params
from pipeline.domain.curated import SplitFile, Splits, SplitSide
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import Champion, Starts
from pipeline.domain.record import digest_file, digest_value
from pipeline.domain.sweeping import Dimension, ranked
from pipeline.evaluation.rows import read_predictions
from pipeline.evaluation.statistics import mean, paired_bootstrap
from pipeline.params import EvaluateParams, Params, TrainParams
from pipeline.steps.sweep import Budget, Sitting, sweep, told

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "plain full"
SPLITS = ("ours", "plain")
COMMON: dict[str, Any] = {
    "label_smoothing": 0.1,
    "max_length": 64,
    "logging_steps": 50,
    "save_steps": 100_000,
    "seed": 7,
    "epochs": 6.0,
    "batch_size": 32,
}
LORA: dict[str, Any] = {"rank": 32, "alpha": 32, "dropout": 0.1, "learning_rate": 2e-3}
CLIPPED: dict[str, Any] = {"warmup_share": 0.06, "max_grad_norm": 5.0}
SETTINGS: dict[str, dict[str, Any]] = {
    REFERENCE: {"tuner": "full", "learning_rate": 1e-4, "epochs": 4.0, "batch_size": 32},
    "full": {"tuner": "full", "learning_rate": 4e-4, "weight_decay": 0.01, **CLIPPED},
    "last_layers": {"tuner": "last_layers", "layers": 3, "learning_rate": 4e-4, **CLIPPED},
    "lora": {"tuner": "lora", **LORA, **CLIPPED},
    "dora": {"tuner": "lora", "dora": True, **LORA, **CLIPPED},
    "qlora": {"tuner": "qlora", **LORA, **CLIPPED},
    "soft_prompt": {
        "tuner": "soft_prompt",
        "soft_prompt": {"kind": "prefix", "tokens": 20},
        "learning_rate": 1e-2,
        **CLIPPED,
    },
}
RATES = {"full": (3e-5, 6e-4), "last_layers": (1e-4, 2e-3), "soft_prompt": (1e-3, 1e-1)}
"""Where --search looks for the learning rate; adapters of the LoRA kind: 3e-4 to 5e-3."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="BANKING77's train.csv")
    parser.add_argument("--work", type=Path, required=True, help="folder for splits, cells and the table; made if need be")
    parser.add_argument("--tuners", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--steps", type=int, help="at most so many optimizer steps a cell")
    parser.add_argument(
        "--search", type=int, metavar="TRIALS", help="look for learning rate and epochs instead, by the loss on eval"
    )
    parser.add_argument("--cell", nargs=2, metavar=("NAME", "SPLIT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    if arguments.cell:
        name, split = arguments.cell
        train_cell(work, name, split, json.loads(sys.stdin.read()))
        return
    prepare(work, arguments.csv.absolute())
    if arguments.search:
        for name in arguments.tuners:
            search(work, name, arguments.search, arguments.steps)
        return
    for split in arguments.splits:
        for name in dict.fromkeys((REFERENCE, *arguments.tuners)):
            run_cell(work, name, split, bounded(SETTINGS[name], arguments.steps))
    report(work, arguments.tuners, arguments.splits, arguments.steps)


def bounded(settings: dict[str, Any], steps: int | None) -> dict[str, Any]:
    return COMMON | settings | ({"max_steps": steps} if steps else {})


def prepare(work: Path, csv: Path) -> None:
    """Take the data in and split it both ways, by the real steps; what is there is left alone."""
    if (work / "plain" / "splits.json").is_file():
        return
    import pyarrow as pa
    import pyarrow.parquet as pq
    from label_errors import Bench
    from sklearn.model_selection import train_test_split

    work.mkdir(parents=True, exist_ok=True)
    for half_done in ("data", "ours", "plain"):
        shutil.rmtree(work / half_done, ignore_errors=True)
    params = example()
    bench = Bench(work / "data", params, csv)
    ours = work / "ours"
    (work / "data" / "split").rename(ours)
    rows = pa.concat_tables([pq.read_table(bench.folder / shard.path) for shard in bench.snapshot.shards])
    labels, places = rows["output"].to_pylist(), list(range(rows.num_rows))
    kept, test = train_test_split(places, test_size=params.split.test, stratify=labels, random_state=7)
    share = params.split.eval / (1 - params.split.test)
    train, held = train_test_split(kept, test_size=share, stratify=[labels[at] for at in kept], random_state=7)
    sides = {}
    for name, chosen in (("train", train), ("eval", held), ("test", test)):
        path = work / "plain" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(rows.take(pa.array(chosen)), path)
        part = SplitFile(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size, rows=len(chosen))
        sides[name] = SplitSide(parts=(part,))
    plain = bench.splits.model_copy(update={**sides, "sides": (), "leaks": None, "checks": (), "params": {"how": "stratified"}})
    plain.write(work / "plain" / "splits.json")


def example() -> Params:
    return read_params(ROOT / "examples" / "banking77" / "params.yaml")


def cell(work: Path, name: str, split: str, settings: dict[str, Any]) -> Path:
    """The folder of one cell; other settings have another."""
    return work / "cells" / f"{split}-{name.replace(' ', '-')}-{digest_value(settings)[:8]}"


def run_cell(work: Path, name: str, split: str, settings: dict[str, Any]) -> None:
    """Train and measure one cell in a process of its own, unless it was."""
    if (cell(work, name, split, settings) / "cell.json").is_file():
        return
    print(f"{split}: {name}", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "-", "--work", str(work), "--cell", name, split]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, input=json.dumps(settings), text=True, check=True, cwd=ROOT, env=environment)


def train_cell(work: Path, name: str, split: str, settings: dict[str, Any]) -> None:
    """The cell itself, in this process: adapter, evaluation, and cell.json with what the table needs."""
    from label_errors import Untracked

    import pipeline.modeling.training  # noqa: F401  its imports are no part of the training
    from pipeline.modeling.base import locate_base
    from pipeline.steps.evaluate import evaluate
    from pipeline.steps.train import train

    folder, data, model = cell(work, name, split, settings), work / split, example().model
    base, splits = locate_base(model, root=ROOT), Splits.read(data / "splits.json")
    folder.mkdir(parents=True, exist_ok=True)
    imports, started, computed = most_memory(), time.perf_counter(), time.process_time()
    training = train(
        splits,
        TrainParams.model_validate(settings),
        model,
        starts=Starts(),
        data=data,
        starts_folder=data,
        out=folder,
        base=base,
        checkpoints=folder / "checkpoints",
        cache=work / "cache",
        tracker=Untracked(),
        progress=said,
    )
    seconds, cpu_seconds, memory = time.perf_counter() - started, time.process_time() - computed, most_memory()
    found = evaluate(
        training,
        Champion(),
        splits,
        EvaluateParams(metrics=("accuracy", "macro_f1"), batch_size=64),
        model,
        data=data,
        adapter=folder / "adapter",
        champion_adapter=None,
        base=base,
        out=folder,
    )
    measured, bare = found.metric("candidate", "accuracy"), found.metric("base", "accuracy")
    assert measured is not None
    assert bare is not None
    row = {
        "name": name,
        "split": split,
        "settings": settings,
        "accuracy": [measured.value, measured.low, measured.high],
        "rows": measured.rows,
        "train_rows": training.train_rows,
        "steps": training.steps,
        "parameters": training.trainable_parameters,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "memory_mib": memory,
        "imports_mib": imports,
        "eval_loss": training.eval_loss,
        "eval_accuracy": training.stages[-1].measures.get("eval_accuracy"),
        "bare_base": bare.value,
        "versions": training.versions,
    }
    aside = folder / ".cell.json"
    aside.write_text(json.dumps(row, indent=2))
    aside.replace(folder / "cell.json")


def search(work: Path, name: str, trials: int, steps: int | None) -> None:
    """Look for a tuner's learning rate and epochs by the loss on the eval side of `ours`, and print what was found."""
    from pipeline.backends.optuna import OptunaStudy

    low, high = RATES.get(name, (3e-4, 5e-3))
    space = {"learning_rate": Dimension(low=low, high=high, log=True), "epochs": Dimension(choices=(4.0, 8.0, 12.0))}
    own = {"learning_rate": SETTINGS[name]["learning_rate"], "epochs": SETTINGS[name]["epochs"]}
    identity = digest_value([name, SETTINGS[name], steps])[:8]
    study = OptunaStudy(work / "search.db", f"{name}-{identity}", space, least=True, pruning="off", seed=7)

    def train(sitting: Sitting) -> float:
        settings = bounded(SETTINGS[name] | sitting.trial.point, steps)
        run_cell(work, name, "ours", settings)
        loss: float = read_cell(work, name, "ours", settings)["eval_loss"]
        return loss

    sweep(study, train, Budget(trials), own=own, say=lambda line: print(f"{name} {line}", flush=True))
    for trial in ranked(study.trials(), least=True)[:5]:
        print(f"{name}: loss on eval {trial.value:.4f}: {told(trial.point)}")


def read_cell(work: Path, name: str, split: str, settings: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cell(work, name, split, settings) / "cell.json").read_text())
    return found


def report(work: Path, tuners: list[str], splits: list[str], steps: int | None) -> None:
    """The table of all cells, to the terminal and to tuners.md, and all numbers to tuners.json."""
    lines, cells = [], []
    for split in splits:
        names = list(dict.fromkeys((REFERENCE, *tuners)))
        settings = {name: bounded(SETTINGS[name], steps) for name in names}
        found = [read_cell(work, name, split, settings[name]) for name in names]
        against = differences({name: cell(work, name, split, settings[name]) for name in names})
        first = found[0]
        lines += [
            f"**{split}**: {first['train_rows']} rows trained on, {first['rows']} test rows; the bare base as nearest centroid "
            f"{first['bare_base']:.3f}; imports hold {first['imports_mib']:.0f} MiB",
            "",
            f"| tuner | accuracy (95 %) | less {REFERENCE} (95 %) | parameters trained | steps | seconds | CPU seconds | "
            "memory MiB |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for one in found:
            value, low, high = one["accuracy"]
            one["difference"] = against.get(one["name"])
            difference = "" if one["difference"] is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*one["difference"])
            seconds = f"{one['seconds']:.0f} | {one['cpu_seconds']:.0f}"
            cost = f"{one['parameters']:,} | {one['steps']} | {seconds} | {one['memory_mib']:.0f}"
            lines.append(f"| {one['name']} | {value:.3f} ({low:.3f} to {high:.3f}) | {difference} | {cost} |")
        lines.append("")
        cells += found
    (work / "tuners.md").write_text("\n".join(lines))
    (work / "tuners.json").write_text(json.dumps(cells, indent=2))
    print("\n".join(lines))


def differences(folders: dict[str, Path]) -> dict[str, list[float]]:
    """Accuracy less the reference's, with its interval, of every other cell of one split."""
    scores, groups = {}, []
    for name, folder in folders.items():
        found = read_predictions(folder / "predictions.parquet", EvaluationReport.read(folder / "evaluation.json").predictions)
        scores[name] = mean([float(score or 0.0) for score in found.scores["candidate", "accuracy"]])
        groups = found.groups
    pairs = [(name, REFERENCE) for name in folders if name != REFERENCE]
    drawn = paired_bootstrap(scores, groups, pairs=pairs).differences
    return {name: [one.value, one.low, one.high] for (name, _), one in drawn.items()}


def most_memory() -> float:
    """The most that this process ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def said(what: str, done: int, total: int) -> None:
    if total and done % max(1, math.ceil(total / 10)) == 0:
        print(f"    {what} {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
