"""Two small worlds for the drill of the gate: rows made by seed, a base, adapters really trained, measured and judged.

What a candidate is made like stands in gate_candidates.py. A world trains each recipe once; trainings, evaluations and decisions
are the steps' own, called as functions: no Prefect, no DVC, no registry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.domain.curated import SplitFile, Splits, SplitSide
from pipeline.domain.data import Example, Task, example_id
from pipeline.domain.gating import GateDecision
from pipeline.domain.measured import CostReport, EvaluationReport, SuiteFiles
from pipeline.domain.model import Champion, Start, Starts, TrainingRun
from pipeline.domain.record import canonical_json, describe_files, digest_file
from pipeline.params import EvaluateParams, GateParams, ModelParams, TrainParams
from pipeline.ports import Progress, silent
from pipeline.steps.evaluate import evaluate
from pipeline.steps.gate import gate
from pipeline.steps.train import train

SIDES = ("train", "eval", "test")


@dataclass(frozen=True)
class Row:
    """input: a text, or canonical JSON of a conversation. meta: what slices are made by."""

    input: str
    output: str
    meta: dict[str, str] = field(default_factory=dict)


Rows = list[Row]
Change = Callable[[Rows], Rows]


@dataclass(frozen=True)
class Tuned:
    """A training: its record, where its adapter lies, and the splits that it was trained on."""

    training: TrainingRun
    adapter: Path
    splits: Splits
    data: Path


@dataclass(frozen=True)
class Measured:
    evaluation: EvaluationReport
    costs: CostReport
    out: Path


class Quiet:
    """A tracker that nobody reads."""

    run_id = "drill"

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@dataclass
class World:
    """sides: the right rows. usual: train params of a good candidate. champion_seed: that of the training that holds production.

    measured, policy: params of evaluate and gate, the same for good ones and bad ones. held: whether anybody holds production.
    """

    root: Path
    model: ModelParams
    base: Path
    sides: dict[str, Rows]
    labels: tuple[str, ...]
    usual: dict[str, Any]
    measured: EvaluateParams
    policy: GateParams
    files: SuiteFiles
    champion_params: dict[str, Any]
    detector: Any = None
    held: bool = True
    _measured: dict[tuple[str, Path, Path], Measured] = field(default_factory=dict)
    _made: dict[str, Tuned] = field(default_factory=dict)
    _numbers: int = 0

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def place(self, name: str) -> Path:
        """A new folder."""
        self._numbers += 1
        found = self.root / "places" / f"{self._numbers:03}-{name}"
        found.mkdir(parents=True)
        return found

    def split(self, name: str, **changed: Rows) -> tuple[Path, Splits]:
        """Split files and their record, with other rows on some sides."""
        folder = self.place(name)
        sides = {}
        for side in SIDES:
            path = _write(folder / f"{side}.parquet", changed.get(side, self.sides[side]), self.model.task)
            rows = len(changed.get(side, self.sides[side]))
            part = SplitFile(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size, rows=rows)
            sides[side] = SplitSide(parts=(part,))
        before = dict.fromkeys(("snapshot", "validation", "curation", "frozen", "reserved"), "0" * 64)
        return folder, Splits(**before, params={}, labels=self.labels, **sides)

    def trained(self, name: str, change: Change | None = None, *, base: Path | None = None, **params: Any) -> Tuned:
        """The adapter of the recipe `name`: `change` is made to the training rows, `params` to the usual ones. Trained once.

        start="champion": it goes on from what holds production.
        """
        if name in self._made:
            return self._made[name]
        data, splits = self.split(name) if change is None else self.split(name, train=change(list(self.sides["train"])))
        starts, starts_folder = Starts(), self.root
        if params.get("start") == "champion":
            held = self.champion_tuned
            start = Start(
                name="champion",
                model=self.model.name,
                version="1",
                training=held.training.digest,
                adapter_digest=held.training.adapter_digest,
                folder=str(held.adapter.relative_to(self.root)),
            )
            starts = Starts(entries=(start,))
        out = self.place(f"{name}-trained")
        training = train(
            splits,
            TrainParams.model_validate(self.usual | params),
            self.model,
            starts=starts,
            data=data,
            starts_folder=starts_folder,
            out=out,
            base=base or self.base,
            checkpoints=out / "checkpoints",
            cache=self.cache,
            tracker=Quiet(),
        )
        self._made[name] = Tuned(training, out / "adapter", splits, data)
        return self._made[name]

    @property
    def champion_tuned(self) -> Tuned:
        """What holds production: a good training."""
        return self.trained("champion", **self.champion_params)

    @property
    def champion(self) -> Champion:
        if not self.held:
            return Champion()
        held = self.champion_tuned.training
        return Champion(version="1", training=held.digest, adapter_digest=held.adapter_digest)

    def evaluated(
        self,
        tuned: Tuned,
        *,
        params: EvaluateParams | None = None,
        base: Path | None = None,
        judge: Any = None,
        cache: Path | None = None,
        progress: Progress = silent,
        **changed: Any,
    ) -> Measured:
        """The step evaluate over a training, beside the champion. `changed`: arguments of the step to give otherwise."""
        out = self.place("evaluated")
        named = {
            "training": tuned.training,
            "champion": self.champion,
            "splits": tuned.splits,
            "params": params or self.measured,
            "model": self.model,
            "data": tuned.data,
            "adapter": tuned.adapter,
            "champion_adapter": self.champion_tuned.adapter if self.held else None,
        } | changed
        named.setdefault("files_folder", self.root / "suites")
        positional = [named.pop(name) for name in ("training", "champion", "splits", "params", "model")]
        report = evaluate(
            *positional,
            **named,
            base=base or self.base,
            out=out,
            files=self.files,
            detector=self.detector,
            judge=judge,
            cache=cache or self.root / "answers",
            progress=progress,
        )
        return Measured(report, CostReport.read(out / "costs.json"), out)

    def as_usual(self, tuned: Tuned) -> Measured:
        """Measured with the usual params; once."""
        key = (tuned.training.digest, tuned.adapter, tuned.data)
        if key not in self._measured:
            self._measured[key] = self.evaluated(tuned)
        return self._measured[key]

    def judged(self, tuned: Tuned) -> GateDecision:
        """Measured and judged as usual, at a first look."""
        return self.decided(tuned, self.as_usual(tuned))

    def decided(
        self, tuned: Tuned, measured: Measured, *, policy: GateParams | None = None, looks: int = 1, costs: bool = True
    ) -> GateDecision:
        given = measured.costs if costs else None
        return gate(measured.evaluation, tuned.training, policy or self.policy, costs=given, looks=looks)


def place_files(root: Path, texts: dict[str, str]) -> SuiteFiles:
    """Lay files that evaluation reads below root/suites as a run does; by the paths that params give them."""
    folder, empty = root / "suites", SuiteFiles(files=dict.fromkeys(texts, ()))
    for path, text in texts.items():
        target = folder / empty.place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    laid = {file.path: file for file in describe_files(folder)}
    return SuiteFiles(files={path: (laid[empty.place(path)],) for path in texts})


def lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _write(path: Path, rows: Rows, task: Task) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    kind = "label" if task is Task.CLASSIFY else "answer"
    examples = [
        Example(
            example_id(row.input, row.output),
            example_id(row.input, ""),
            row.input,
            row.output,
            canonical_json(row.meta),
            "drill.jsonl",
            number,
            kind,
        )
        for number, row in enumerate(rows, 1)
    ]
    columns = {name: [getattr(e, name) for e in examples] for name in Example.__slots__}
    kinds = {name: pa.int64() if name == "line" else pa.string() for name in columns}
    parquet.write_table(pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()}), path)
    return path
