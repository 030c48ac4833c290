"""The chains of examples/rlhf, trained with one seed each, and what their models answer to test prompts; for rlhf.py."""

from __future__ import annotations

import contextlib
import json
import os
import sys
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
TEMPLATE = RECIPES / "transcript.jinja"
_KEY = 77
"""Of the chances by which test prompts are answered."""


@dataclass(frozen=True)
class Settings:
    """What all chains of a part share: a folder, the rows, where curves go, and another base than the recipe's."""

    folder: Path
    rows: Sequence[Parts]
    mlflow: str | None
    base: Path | None


@dataclass
class Measured:
    """Of one subject's answers to the test prompts, a number each: by name."""

    values: dict[str, np.ndarray]


@dataclass
class Trained:
    """One chain of a recipe with one seed, in a folder of its own; stages that two chains share are trained once."""

    settings: Settings
    recipe: str
    seed: int
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        params = read_params(RECIPES / self.recipe)
        self.model, self.folder = params.model, self.settings.folder
        if self.settings.base is not None:
            base = os.path.relpath(self.settings.base, ROOT)
            self.model = self.model.model_copy(update={"base": f"./{base}", "chat_template": str(TEMPLATE.relative_to(ROOT))})
        self.base = locate_base(self.model, root=ROOT)
        self.ref = describe_base(self.model, self.base, root=ROOT)
        self.template = template_text(self.model, self.base, root=ROOT)
        self.stages = [stage.model_copy(update={"seed": self.seed}) for stage in params.train.chain(self.model.task)]
        shares = {"eval": params.split.eval, "test": params.split.test}
        self.sides = write_sides(self.folder, self.settings.rows, shares)

    def adapter(self, stage: str) -> Path:
        return self.folder / f"{stage}-{self.seed}" / "adapter"

    def run(self) -> None:
        from pipeline.modeling.training import tune

        for stage in self.stages:
            job, result = self._job(stage), self.folder / f"{stage.name}-{self.seed}" / "result.json"
            if not result.exists():
                started = time.perf_counter()
                with tracker(self.settings.mlflow, f"rlhf-{self.recipe}-{self.seed}-{stage.name}") as seen:
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
        from pipeline.modeling.adapters.admission import admit, fill_peft
        from pipeline.modeling.learning.ppo.cast import Cast
        from pipeline.modeling.learning.ppo.rewards import add_reward_model, scores
        from pipeline.modeling.learning.ppo.rollouts import Asked, Asking, answer
        from pipeline.modeling.learning.ppo.rules import repetition
        from pipeline.modeling.learning.ppo.sampling import Sampling, chances
        from pipeline.modeling.loading import end_tokens, load_tokenizer
        from pipeline.modeling.texts.encoding import encode
        from pipeline.modeling.texts.template import ChatTemplate
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
