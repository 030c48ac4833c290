"""A chain of training stages on its way: what each begins from, which are done, where their results lie until all are.

Files and records only; no torch. What a stage learns is training.py's, what is kept of a chain steps/train.py's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.domain.curated import Splits
from pipeline.domain.model import BaseModelRef, StageRun, Starts
from pipeline.domain.record import canonical_json, describe_files, digest_file, digest_value
from pipeline.errors import Broken, Misuse
from pipeline.modeling.job import Job, Tuned
from pipeline.params import ModelParams, StageParams, TrainParams

RESULT = "result.json"
"""In a stage's folder of checkpoints: what it came to. It is there when its adapter and curves are whole, and only then."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a stage begins from: an adapter's folder (None: the bare base), its digest (the base's), and its name in params."""

    folder: Path | None
    digest: str
    name: str


@dataclass(slots=True)
class Chain:
    """The stages of one training, first to last, as far as they are done.

    data: folder of the splits. checkpoints: each stage has a folder there, named by all that could change its result (of params,
    caps of time and cost cannot). made_by: versions of the libraries. root: where relative paths of params start.
    """

    params: TrainParams
    model: ModelParams
    splits: Splits
    starts: Starts
    ref: BaseModelRef
    template: str | None
    data: Path
    base: Path
    starts_folder: Path
    checkpoints: Path
    cache: Path
    root: Path
    made_by: Mapping[str, str]
    runs: list[StageRun] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    hours: float = 0.0

    def job(self, stage: StageParams) -> Job:
        """The next stage, ready to run. Raises Misuse when what it begins from is not there."""
        begun = self._begin(stage)
        rewards = {source.stage: self.jobs[source.stage].adapter for source in stage.ppo.rewards if source.stage is not None}
        old = self._old_parts() if stage.mix.replay is not None or stage.ewc.weight else frozenset()
        folder = self.checkpoints / self._identity(stage, begun, rewards, old)[:24]
        return Job(
            stage=stage,
            task=self.model.task,
            labels=self.splits.labels,
            base=self.base,
            ref=self.ref,
            template=self.template,
            train=tuple(self.data / part.path for part in self.splits.train.parts),
            held=tuple(self.data / part.path for part in self.splits.eval.parts),
            start=begun.folder,
            start_digest=begun.digest,
            cache=self.cache,
            folder=folder,
            adapter=folder / "adapter",
            curves=folder / "curves.jsonl",
            old=old,
            rewards=rewards,
            machine=self.params.machine,
            max_hours=self._hours_left(),
        )

    def was_done(self, job: Job) -> bool:
        """True when an earlier attempt at this chain finished the stage and all that it left is whole; it then counts as done."""
        try:
            said = json.loads((job.folder / RESULT).read_bytes())
            run = StageRun.model_validate_json(json.dumps(said["run"]))
            whole = digest_folder(job.adapter) == run.adapter_digest and digest_file(job.curves) == said["curves"]
        except (OSError, ValueError, KeyError, TypeError, Broken):
            return False
        if whole:
            self._add(job, run, float(said["hours"]))
        return whole

    def finish(self, job: Job, result: Tuned) -> None:
        """Note beside the stage's adapter that it is done, and what it came to."""
        begun = self._begin(job.stage)
        run = StageRun(
            name=str(job.stage.name),
            objective=job.objective,
            tuner=job.stage.tuner,
            start=begun.digest,
            start_from=begun.name,
            adapter_digest=digest_folder(job.adapter),
            steps=result.steps,
            kept_step=result.kept_step,
            train_loss=result.train_loss,
            eval_loss=result.eval_loss,
            train_rows=result.train_rows,
            trainable_parameters=result.trainable_parameters,
            counts=result.counts,
            measures=result.measures,
            alarms=result.alarms,
            machine=result.machine,
        )
        said = {"run": run.model_dump(mode="json"), "hours": result.hours, "curves": digest_file(job.curves)}
        aside = job.folder / f".{RESULT}"
        aside.write_text(canonical_json(said) + "\n", encoding="utf-8")
        aside.replace(job.folder / RESULT)
        self._add(job, run, result.hours)

    def lay_out(self, out: Path) -> None:
        """Put what the stages made where the run keeps it. Copied, not moved: killed in between, it can be done again."""
        *earlier, last = self.jobs
        for name in earlier:
            shutil.copytree(self.jobs[name].adapter, out / "stages" / name / "adapter")
        shutil.copytree(self.jobs[last].adapter, out / "adapter")
        with (out / "curves.jsonl").open("w", encoding="utf-8") as file:
            for name, job in self.jobs.items():
                for line in job.curves.read_text(encoding="utf-8").splitlines():
                    file.write(canonical_json({"stage": name, **json.loads(line)}) + "\n")

    def clear(self) -> None:
        """Forget the checkpoints of a chain that has been laid out."""
        for job in self.jobs.values():
            shutil.rmtree(job.folder, ignore_errors=True)

    def _add(self, job: Job, run: StageRun, hours: float) -> None:
        self.runs.append(run)
        self.jobs[run.name] = job
        self.hours += hours

    def _begin(self, stage: StageParams) -> Begun:
        """What `stage` begins from. That a stage it names comes before it was checked with the params."""
        bare = Begun(None, self.ref.digest, "base")
        if stage.start == "previous":
            return self._made_by(self.runs[-1].name) if self.runs else bare
        if stage.start == "base":
            return bare
        if stage.start.startswith("stage:"):
            return self._made_by(stage.start.removeprefix("stage:"))
        if stage.start.startswith("./"):
            folder = self.root / stage.start
            if not folder.is_dir():
                fix = "write ./FOLDER relative to the project"
                raise Misuse(f"there is no folder {stage.start}", where="train.start", fix=fix)
            return Begun(folder, digest_folder(folder), stage.start)
        found = self.starts.named(stage.start)
        if found is None and stage.start == "champion":
            return bare  # nobody holds the last stage yet
        if found is None:
            fix = "run again, which does that"
            raise Broken(f"{stage.start} was not put beside the data", where=str(self.starts_folder), fix=fix)
        return Begun(self.starts_folder / found.folder, found.adapter_digest, f"{found.name} (version {found.version})")

    def _made_by(self, name: str) -> Begun:
        run = next(run for run in self.runs if run.name == name)
        return Begun(self.jobs[name].adapter, run.adapter_digest, f"stage:{name}")

    def _old_parts(self) -> frozenset[str]:
        """Names of the parts to train on whose shards the champion was trained on."""
        champion = self.starts.named("champion")
        shards = {Path(name).stem for name in champion.shards} if champion else set()
        return frozenset(Path(part.path).name for part in self.splits.train.parts if Path(part.path).stem in shards)

    def _identity(self, stage: StageParams, begun: Begun, rewards: Mapping[str, Path], old: frozenset[str]) -> str:
        return digest_value(
            [
                self.splits.digest,
                self.ref.digest,
                stage.model_dump(mode="json"),
                self.model.task,
                self.model.chat_template,
                dict(self.made_by),
                begun.digest,
                {name: digest_folder(folder) for name, folder in rewards.items()},
                sorted(old),
                self.params.machine.model_dump(mode="json"),
            ]
        )

    def _hours_left(self) -> float | None:
        caps = [self.params.max_hours] if self.params.max_hours is not None else []
        if self.params.max_cost is not None and self.params.price_per_hour is not None:
            caps.append(self.params.max_cost / self.params.price_per_hour)
        return max(min(caps) - self.hours, 0.0) if caps else None


def digest_folder(folder: Path) -> str:
    """The digest that an adapter's folder is known by: of its files' names, sizes and digests."""
    return digest_value([f.model_dump(mode="json") for f in describe_files(folder)])
