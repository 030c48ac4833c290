"""Does the reward rise, and how far does a model go from its start for it? SFT → reward → PPO, SFT → DPO, and PPO by rules.

    python bench/rlhf.py --data FOLDER [--seeds 3] [--out FOLDER] [--mlflow URI] [--only preferences|rules]

The chains are those of examples/rlhf, run by modeling.training.tune as a run does it. Preferences: FOLDER/hh_rlhf, the base that
ships; a reward model learns from the pairs, PPO from its scores, DPO from the pairs. Rules: tickets of the helpdesk, and whether
an answer is JSON and the right one.

What is reported is measured on test prompts that no training saw; answers are drawn at temperature 1, by the same chances.
`own` is the score by the reward model that PPO was trained on, `other` by that of another seed, which it was not: what rises in
the first alone is a flaw of the judge. Scores are differences from SFT's, prompt by prompt, in units of the judge's spread over
SFT's answers; intervals are over prompts, of means over seeds (95 %).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.curation.formats import Parts, read_parts
from pipeline.curation.reasons import Rejected
from pipeline.domain.data import EXAMPLE_COLUMNS, Task
from pipeline.domain.tuning import Output
from pipeline.modeling.base import describe_base, locate_base, template_text
from pipeline.modeling.chain import digest_folder
from pipeline.modeling.job import Job, Tuned
from pipeline.params.ingest import Reading
from pipeline.params.train import StageParams
from pipeline.ports import silent
from pipeline.steps.train import StageTracker
from pipeline.wiring import read_params

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "examples" / "rlhf"
SHOWN = ("reward", "kl", "entropy", "length", "repetition", "clipped", "value_loss")
_KEY = 77
"""Of the chances by which test prompts are answered."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that hh_rlhf lies in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep splits, adapters and curves there; finished stages are not repeated")
    parser.add_argument("--mlflow", help="also send curves to this MLflow")
    parser.add_argument("--only", choices=("preferences", "rules"))
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        out = arguments.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, bench in (("preferences", preferences), ("rules", rules)):
            if arguments.only in (None, name):
                rows = hh_rows(arguments.data) if name == "preferences" else helpdesk_rows()
                bench(out / name, rows, arguments.seeds, arguments.mlflow)


def preferences(folder: Path, rows: Sequence[Parts], seeds: int, mlflow: str | None) -> None:
    ppo = [Trained(folder, "params-ppo.yaml", rows, seed, mlflow) for seed in range(1, seeds + 1)]
    dpo = [Trained(folder, "params-dpo.yaml", rows, seed, mlflow) for seed in range(1, seeds + 1)]
    for one in (*ppo, *dpo):
        one.run()
    print("\nThe reward model, on held pairs: is it better than 'the longer answer wins'?")
    for one in ppo:
        said = one.results["judge"]["measures"]
        print(
            f"  seed {one.seed}: {said['pair_accuracy']:.1%} right, the longer answer {said['longer_wins_accuracy']:.1%}, "
            f"p = {said['longer_wins_p']:.3f}"
        )
    print_curves(ppo)
    found: dict[str, list[Measured]] = {name: [] for name in ("sft", "dpo", "ppo")}
    for place, (one, other) in enumerate(zip(ppo, dpo, strict=True)):
        judges = {"own": one.adapter("judge"), "other": ppo[(place + 1) % seeds].adapter("judge")}
        subjects = {"sft": one.adapter("sft"), "dpo": other.adapter("dpo"), "ppo": one.adapter("ppo")}
        for name, answers in one.answers(subjects, judges).items():
            found[name].append(answers)
    print_preferences(found)


def rules(folder: Path, rows: Sequence[Parts], seeds: int, mlflow: str | None) -> None:
    trained = [Trained(folder, "params-rules.yaml", rows, seed, mlflow) for seed in range(1, seeds + 1)]
    for one in trained:
        one.run()
    print_curves(trained)
    found: dict[str, list[Measured]] = {"sft": [], "ppo": []}
    for one in trained:
        for name, answers in one.answers({name: one.adapter(name) for name in found}, {}).items():
            found[name].append(answers)
    print("\nTickets answered on test, by rules, beside SFT:")
    print(f"  {'':4} {'right':>8} {'more than SFT':>24} {'JSON':>8} {'more than SFT':>24} {'KL from SFT':>12} {'tokens':>7}")
    for name, seen in found.items():
        cells = []
        for rule in ("exact_match", "json_valid"):
            own, start = (mean_over(some, rule) for some in (seen, found["sft"]))
            cells.append(f"{own.mean():>8.1%} {interval(own - start, '+.1%'):>24}")
        print(f"  {name:4} {' '.join(cells)} {mean_over(seen, 'kl').mean():>12.2f} {mean_over(seen, 'length').mean():>7.1f}")


@dataclass
class Measured:
    """Of one subject's answers to the test prompts, a number each: by name."""

    values: dict[str, np.ndarray]


@dataclass
class Trained:
    """One chain of a recipe with one seed, in a folder of its own; stages that two chains share are trained once."""

    folder: Path
    recipe: str
    rows: Sequence[Parts]
    seed: int
    mlflow: str | None
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        params = read_params(RECIPES / self.recipe)
        self.model = params.model
        self.base = locate_base(self.model, root=ROOT)
        self.ref = describe_base(self.model, self.base, root=ROOT)
        self.template = template_text(self.model, self.base, root=ROOT)
        changed = {"seed": self.seed}
        self.stages = [StageParams.model_validate(stage.model_dump() | changed) for stage in params.train.chain(self.model.task)]
        shares = {"eval": params.split.eval, "test": params.split.test}
        self.sides = write_sides(self.folder, self.rows, shares)

    def adapter(self, stage: str) -> Path:
        return self.folder / f"{stage}-{self.seed}" / "adapter"

    def run(self) -> None:
        from pipeline.modeling.training import tune

        for stage in self.stages:
            job, result = self._job(stage), self.folder / f"{stage.name}-{self.seed}" / "result.json"
            if not result.exists():
                started = time.perf_counter()
                with tracker(self.mlflow, f"rlhf-{self.recipe}-{self.seed}-{stage.name}") as seen:
                    done: Tuned = tune(job, tracker=StageTracker(seen, str(stage.name)), progress=silent)
                said = {"measures": done.measures, "alarms": done.alarms, "seconds": time.perf_counter() - started}
                result.write_text(json.dumps(said), encoding="utf-8")
            self.results[str(stage.name)] = said = json.loads(result.read_text(encoding="utf-8"))
            print(f"{self.folder.name} seed {self.seed}, {stage.name}: {said['seconds']:.0f} s", flush=True)
            for alarm in said["alarms"]:
                print(f"  alarm: {alarm}")

    def curve(self) -> list[dict[str, float]]:
        lines = (self.folder / f"ppo-{self.seed}" / "curves.jsonl").read_text(encoding="utf-8").splitlines()
        return [point for point in map(json.loads, lines) if "reward" in point]

    def answers(self, subjects: dict[str, Path], judges: dict[str, Path]) -> dict[str, Measured]:
        """What each subject answers to the test prompts, held against SFT as the reference and judged by `judges`."""
        from pipeline.modeling.admission import admit, fill_peft
        from pipeline.modeling.encoding import encode
        from pipeline.modeling.learning.ppo.cast import Cast
        from pipeline.modeling.learning.ppo.rewards import add_reward_model, scores
        from pipeline.modeling.learning.ppo.rollouts import Asked, Asking, answer
        from pipeline.modeling.learning.ppo.rules import repetition
        from pipeline.modeling.learning.ppo.sampling import Sampling, chances
        from pipeline.modeling.loading import end_tokens, load_tokenizer
        from pipeline.modeling.template import ChatTemplate
        from pipeline.modeling.tuners import tunable

        stage = next((s for s in self.stages if s.name == "ppo"), self.stages[-1])
        tokenizer = load_tokenizer(self.base)
        template = ChatTemplate(tokenizer, self.template)
        kinds = stage.learns_from(self.model.task)
        prompts = encode((self.sides["test"],), stage.learns(self.model.task), kinds, tokenizer, template, (), stage=stage)
        tuned = tunable(self.base, self.ref, stage, Output.TEXT, (), start=self.adapter("sft"))
        ends = tuple(sorted({template.end_id, *end_tokens(tuned, tokenizer)}))
        cast = Cast(tuned)
        for name, path in judges.items():
            add_reward_model(cast, name, path, self.ref)
        how = Sampling(stage.ppo.max_new_tokens, 1.0, ends, tokenizer.pad_token_id)
        rules = tuple(source for source in stage.ppo.rewards if source.rule is not None)
        ppo = stage.ppo.model_copy(update={"rewards": rules})
        asked = Asked([prompts[n][0].input_ids for n in range(len(prompts))], list(prompts.extra["answer"]))
        asking = Asking(how, ppo, lambda ids: template.answer_text(list(ids), ends))
        drawn = chances(len(prompts), ppo.max_new_tokens, _KEY)
        found = {}
        for name, path in subjects.items():
            fill_peft(cast.policy, admit(path, self.ref).tensors, where=str(path))
            seen = answer(cast, asked, drawn, asking, rows=32)
            texts = [prompt + ids for prompt, ids in zip(asked.prompts, seen.ids, strict=True)]
            values = {judge: scores(cast.eval(), judge, texts, pad_id=how.pad_id, rows=32).numpy() for judge in judges}
            values |= {rule: part.numpy() for rule, part in seen.worth.parts.items()}
            values["kl"] = seen.divergence.sum(1).numpy()
            values["length"] = np.array([len(ids) for ids in seen.ids])
            values["repetition"] = np.array([repetition(ids) for ids in seen.ids])
            found[name] = Measured(values)
            for prompt, ids in list(zip(asked.prompts, seen.ids, strict=True))[:2]:
                print(f"  {name}: …{tokenizer.decode(prompt[-25:])!r} → {asking.read(ids)!r}")
        return found

    def _job(self, stage: StageParams) -> Job:
        start = self.adapter(stage.start.removeprefix("stage:")) if stage.start.startswith("stage:") else None
        folder = self.folder / f"{stage.name}-{self.seed}"
        return Job(
            stage=stage,
            task=Task.GENERATE,
            labels=(),
            base=self.base,
            ref=self.ref,
            template=self.template,
            train=(self.sides["train"],),
            held=(self.sides["eval"],),
            start=start,
            start_digest=digest_folder(start) if start else self.ref.digest,
            cache=self.folder / "cache",
            folder=folder,
            adapter=folder / "adapter",
            curves=folder / "curves.jsonl",
            rewards={source.stage: self.adapter(source.stage) for source in stage.ppo.rewards if source.stage},
        )


def print_curves(trained: Sequence[Trained]) -> None:
    """PPO's curves, means over seeds, at the rollouts that were noted."""
    curves = [one.curve() for one in trained]
    print(f"\nPPO, means over {len(curves)} seeds (reward: range over seeds):")
    print(f"  {'step':>5} " + " ".join(f"{name:>22}" if name == "reward" else f"{name:>11}" for name in SHOWN))
    every = max(1, len(curves[0]) // 12)
    for place in [*range(0, len(curves[0]) - 1, every), len(curves[0]) - 1]:
        points = [curve[place] for curve in curves]
        rewards = [point["reward"] for point in points]
        cells = [f"{np.mean(rewards):>7.3f} [{min(rewards):.3f}, {max(rewards):.3f}]".rjust(22)]
        cells += [f"{np.mean([point[name] for point in points]):>11.3f}" for name in SHOWN[1:]]
        print(f"  {points[0]['step']:>5.0f} " + " ".join(cells))


def print_preferences(found: dict[str, list[Measured]]) -> None:
    print("\nAnswers to test prompts; scores beside SFT's, in spreads of the judge over SFT's answers:")
    print(f"  {'':4} {'own judge':>24} {'other judge':>24} {'KL from SFT':>12} {'tokens':>7} {'repetition':>10}")
    for name, seen in found.items():
        cells = []
        for judge in ("own", "other"):
            gains = [
                (one.values[judge] - start.values[judge]) / start.values[judge].std()
                for one, start in zip(seen, found["sft"], strict=True)
            ]
            cells.append(f"{interval(np.mean(gains, axis=0), '+.2f'):>24}")
        other = [f"{mean_over(seen, 'kl').mean():>12.2f}", f"{mean_over(seen, 'length').mean():>7.1f}"]
        print(f"  {name:4} {' '.join(cells)} {' '.join(other)} {mean_over(seen, 'repetition').mean():>10.1%}")


def mean_over(seen: Sequence[Measured], name: str) -> np.ndarray:
    """Of each prompt, the mean over seeds."""
    return np.asarray(np.mean([one.values[name] for one in seen], axis=0), dtype=float)


def interval(values: np.ndarray, form: str) -> str:
    """Mean with the interval of the mean over prompts, by the normal distribution."""
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]"


def write_sides(folder: Path, rows: Sequence[Parts], shares: dict[str, float]) -> dict[str, Path]:
    """The rows as split files: a group goes where its digest says, so the same rows lie on the same side each time."""
    sides: dict[str, list[tuple[Parts, int]]] = {"train": [], **{name: [] for name in shares}}
    for line, row in enumerate(rows):
        place = int(row.group[:8], 16) / 2**32
        side = "eval" if place < shares["eval"] else "test" if place < shares["eval"] + shares["test"] else "train"
        sides[side].append((row, line + 1))
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for side, some in sides.items():
        values = [(row.id, row.group, row.input, row.output, row.meta, "bench", line, row.kind) for row, line in some]
        columns = dict(zip(EXAMPLE_COLUMNS, zip(*values, strict=True), strict=True))
        paths[side] = folder / f"{side}.parquet"
        pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), paths[side])
    return paths


def hh_rows(data: Path) -> list[Parts]:
    lines = (data / "hh_rlhf" / "harmless_1800.jsonl").read_bytes().splitlines()
    return list(_read(map(json.loads, lines), "preference"))


def helpdesk_rows() -> list[Parts]:
    sys.path.insert(0, str(ROOT / "examples" / "helpdesk"))
    import make_batches

    return list(_read(map(json.loads, make_batches.make_batch(1).splitlines()), "chat"))


def _read(rows: Iterator[Any], format: str) -> Iterator[Parts]:
    for row in rows:
        with contextlib.suppress(Rejected):
            yield read_parts(row, format, Reading())


class Untracked:
    """A tracker that remembers nothing."""

    run_id = "bench"

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@contextlib.contextmanager
def tracker(uri: str | None, name: str) -> Iterator[Any]:
    if uri is None:
        yield Untracked()
        return
    from pipeline.backends.mlflow import connect, tracked_run

    with tracked_run(connect(uri, None), "rlhf", name, {}) as run:
        yield run


if __name__ == "__main__":
    main()
