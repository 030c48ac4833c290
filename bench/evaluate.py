"""How fast suites are answered, beside lm-evaluation-harness: the same task files, the same model, the same scores to the item.

    python bench/evaluate.py --data ../shared/data --models ../shared/models [--only llama-33m] [--questions 64] [--json FILE]

Both sides read the same YAML (MMLU-style questions by letter and by text, GSM8K-style problems, five-shot where the model has
room), in one process, in turns; both with each of the batch settings, of which each side's best counts. Times are of asking
(prompts to likelihoods or answers, tokenisation included) and of the whole (task file to scores); imports and loading the model
are neither's. On a machine that others use, the processor's time (all threads) says more than the clock's; both are given.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

from train_rows import build_llama  # noqa: E402

CHOICES = r"""
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{shots}}}}{{{{question.strip()}}}}\n{{% for c in choices %}}{{{{'ABCD'[loop.index0]}}}}. {{{{c}}}}\n\
  {{% endfor %}}Answer:"
doc_to_choice: {choices}
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
PROBLEMS = r"""
task: problems
dataset_path: json
dataset_kwargs: {{data_files: {{test: problems.jsonl, train: shots.jsonl}}}}
test_split: test
fewshot_split: train
fewshot_config: {{sampler: first_n}}
num_fewshot: {shots}
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Question:", "</s>", "<|im_end|>"], do_sample: false, temperature: 0.0, max_gen_toks: {tokens}}}
metric_list: [{{metric: exact_match, ignore_case: true, regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"]}}]
filter_list:
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{{2,}})|(-?[0-9]+)"}}
      - {{function: take_first}}
"""


@dataclass
class Spent:
    """Seconds of a lap: by the clock and of the processor for asking, by the clock for the whole."""

    asking: float
    cpu: float
    whole: float


@dataclass
class Cell:
    """One task with one model: both sides' laps by their setting, and how their items compare. times: how many times as fast our
    best setting is as the harness's best."""

    model: str
    task: str
    items: int
    harness: dict[str, list[Spent]]
    ours: dict[str, list[Spent]]
    times: dict[str, float]
    worst: float
    same: bool


def main() -> None:
    options = _options()
    logging.disable(logging.WARNING)
    cells = []
    for name, folder, shots, tokens in _models(options):
        work = options.work / "tasks" / name
        work.mkdir(parents=True, exist_ok=True)
        tasks = _write_tasks(options, work, shots, tokens)
        for task in tasks:
            cells.append(_cell(name, folder, task, options))
            print(_line(cells[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=2) + "\n")
    sys.exit(0 if all(cell.same for cell in cells) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--work", type=Path, default=Path(".tuneline/bench-evaluate"))
    parser.add_argument("--only", choices=("stories260K", "llama-33m"), default=None)
    parser.add_argument(
        "--questions", type=int, default=64, help="rows of each task (a large model; four times as many of a small)"
    )
    parser.add_argument("--laps", type=int, default=3)
    parser.add_argument("--batches", default="8,32,128", help="settings of both sides; auto is the harness's alone")
    parser.add_argument("--tasks", default="letters,texts,problems")
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def _models(options: argparse.Namespace) -> list[tuple[str, Path, int, int]]:
    """Name, folder, worked examples and new tokens of each: what the model's room allows."""
    found = []
    if options.only != "llama-33m":
        found.append(("stories260K", options.models / "stories260K", 1, 96))
    if options.only != "stories260K":
        found.append(("llama-33m", _llama(options), 5, 64))
    return found


def _llama(options: argparse.Namespace) -> Path:
    """A Llama of 33M parameters, random weights, with a tokenizer learned from the problems. Kept from run to run."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder = options.work / "llama-33m"
    if (folder / "model.safetensors").is_file():
        return folder
    size = 8192
    build_llama(folder, hidden=512, layers=9, vocabulary=size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    rows = (options.data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer.train_from_iterator((json.loads(row)[key] for row in rows for key in ("question", "answer")), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    return folder


def _write_tasks(options: argparse.Namespace, work: Path, shots: int, tokens: int) -> list[Path]:
    """Task files and their rows. Eight subjects in turn share the examples of the first of them."""
    many = options.questions if shots == 5 else 4 * options.questions
    files = sorted((options.data / "mmlu_dev").glob("*.csv"))
    rows, before = [], ""
    for number, file in enumerate(files):
        read = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
        if number % 8 == 0:
            before = "".join(f"{_asked(row)} {row[5]}\n\n" for row in read[:shots])
            continue
        rows += [{"shots": before, "question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5])} for row in read]
    for name, choices, count in (("letters", '["A", "B", "C", "D"]', many), ("texts", "choices", many // 2)):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:count]), encoding="utf-8")
        (work / f"{name}.yaml").write_text(CHOICES.format(name=name, choices=choices), encoding="utf-8")
    problems = (options.data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (work / "shots.jsonl").write_text("".join(problems[:shots]), encoding="utf-8")
    (work / "problems.jsonl").write_text("".join(problems[100 : 100 + many]), encoding="utf-8")
    (work / "problems.yaml").write_text(PROBLEMS.format(shots=shots, tokens=tokens), encoding="utf-8")
    return [work / f"{name}.yaml" for name in options.tasks.split(",")]


def _asked(row: Sequence[str]) -> str:
    return "\n".join([row[0].strip(), *(f"{letter}. {text}" for letter, text in zip("ABCD", row[1:5], strict=True)), "Answer:"])


def _cell(name: str, folder: Path, task: Path, options: argparse.Namespace) -> Cell:
    """Both sides in turns; the first lap of each is to warm up and does not count."""
    settings: list[Any] = [int(one) if one.isdigit() else one for one in options.batches.split(",")]
    theirs = {setting: _harness(folder, task, setting) for setting in settings}
    ours = {setting: _tuneline(folder, task, setting) for setting in settings if setting != "auto"}
    spent: tuple[dict[str, list[Spent]], ...] = ({}, {})
    results: list[Any] = [None, None]
    for _ in range(options.laps):
        for side, laps in enumerate((theirs, ours)):
            for setting, lap in laps.items():
                results[side], took = lap()
                spent[side].setdefault(str(setting), []).append(took)
    best = [{what: min(_middle(laps, what) for laps in side.values()) for what in ("asking", "cpu", "whole")} for side in spent]
    times = {what: round(best[0][what] / best[1][what], 2) for what in best[0]}
    worst, same = _compared(*results)
    return Cell(name, task.stem, len(results[1]), *spent, times, worst, same)


def _middle(laps: Sequence[Spent], what: str) -> float:
    return statistics.median(getattr(lap, what) for lap in laps)


class Clock:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def _harness(folder: Path, path: Path, batch: Any) -> Callable[[], tuple[list[Any], Spent]]:
    import yaml
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    config = yaml.safe_load(path.read_text())
    files = config["dataset_kwargs"]["data_files"]
    named = {split: str(path.parent.resolve() / file) for split, file in files.items()}
    config["dataset_kwargs"] = {"data_files": named, "cache_dir": str(path.parent / "cache")}
    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch)

    def lap() -> tuple[list[Any], Spent]:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            whole = Clock()
            task = ConfigurableTask(config=config)
            task.build_all_requests(limit=None, rank=0, world_size=1)
            asking = Clock()
            chosen = task.OUTPUT_TYPE == "multiple_choice"
            made = model.loglikelihood(task.instances) if chosen else model.generate_until(task.instances)
            wall, cpu = asking.read()
            for instance, one in zip(task.instances, made, strict=True):
                instance.resps = [one]
            task.apply_filters()
            spent = Spent(wall, cpu, whole.read()[0])
        if not chosen:
            return list(made), spent
        sums = iter(value for value, _ in made)
        return [[next(sums) for _ in range(4)] for _ in range(len(made) // 4)], spent

    return lap


def _tuneline(folder: Path, path: Path, batch: int) -> Callable[[], tuple[list[Any], Spent]]:
    from pipeline.evaluation.rows import SplitRows
    from pipeline.evaluation.suites import read_suite
    from pipeline.modeling.answering.generate import Subjects
    from pipeline.params import ModelParams
    from pipeline.params.evaluate import SuiteParams

    subjects = Subjects(folder, ModelParams(name="bench", task="generate", base=str(folder.resolve())))
    kind = "final_answer" if path.stem == "problems" else "multiple_choice"
    kept: dict[str, Any] = {}

    class Asked:
        """The ways of a suite, with a clock."""

        def choices(self, name: str, prompts: Sequence[str], choices: Sequence[Sequence[str]], *, raw: bool = False) -> Any:
            clock = Clock()
            kept["made"] = [[v for v, _ in row] for row in subjects.choices(name, prompts, choices, raw=raw, batch_size=batch)]
            kept["spent"] = clock.read()
            return kept["made"]

        def answers(self, name: str, inputs: Sequence[str], **how: Any) -> Any:
            clock = Clock()
            kept["made"] = subjects.answers(name, inputs, **how, batch_size=batch)
            kept["spent"] = clock.read()
            return kept["made"]

    def lap() -> tuple[list[Any], Spent]:
        whole = Clock()
        none = SplitRows([], [], [], [], [], [])
        suite = read_suite(SuiteParams(name="bench", kind=kind, file=str(path)), path, none, seed=7)
        suite.rows.scores("base", Asked(), None)  # type: ignore[arg-type]
        return kept["made"], Spent(*kept["spent"], whole.read()[0])

    return lap


def _compared(theirs: list[Any], ours: list[Any]) -> tuple[float, bool]:
    """Of likelihoods the greatest difference, and whether none is above 1e-4 and all choose alike; of answers the share that
    differs, and whether none does."""
    if isinstance(ours[0], str):
        other = sum(mine != their for mine, their in zip(ours, theirs, strict=True)) / len(ours)
        return other, other == 0
    worst = max(abs(a - b) for mine, their in zip(ours, theirs, strict=True) for a, b in zip(mine, their, strict=True))
    alike = all(mine.index(max(mine)) == their.index(max(their)) for mine, their in zip(ours, theirs, strict=True))
    return worst, worst <= 1e-4 and alike


def _line(cell: Cell) -> str:
    sides = []
    for laps in (cell.harness, cell.ours):
        best = min(laps, key=lambda setting: _middle(laps[setting], "asking"))
        sides.append(f"{_middle(laps[best], 'asking'):7.2f} s (batch {best})")
    return (
        f"{cell.model:12} {cell.task:9} {cell.items:4} items: harness {sides[0]}, ours {sides[1]}: "
        f"{cell.times['asking']:.2f} times its speed, by the processor {cell.times['cpu']:.2f}, whole {cell.times['whole']:.2f}; "
        f"{'equal to the item' if cell.same else 'NOT equal'} (worst {cell.worst:.2g})"
    )


if __name__ == "__main__":
    main()
