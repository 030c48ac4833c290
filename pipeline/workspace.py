"""The only module that spells a path. Project: the user's checkout and its state folder. Workspace: one run's own folder.

Nothing here reads or writes; callers make what they need. dvc.yaml names the same paths, and tests hold the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder that a run works in: a git worktree, or wherever `dvc repro` was called."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def snapshot(self) -> Path:
        """Folder: snapshot.json, shards/, quarantine/, README.md, statistics/ (see domain/data.py)."""
        return self.root / "data" / "snapshot"

    @property
    def frozen(self) -> Path:
        """Folder: frozen.json and sides/, the sides that earlier runs gave to groups."""
        return self.root / "data" / "frozen"

    @property
    def reserved(self) -> Path:
        """Folder: the snapshot of benchmarks and edge cases, rows that are never trained on."""
        return self.root / "data" / "reserved"

    @property
    def reviewed(self) -> Path:
        """Folder: the list of rows that a person wants left out."""
        return self.root / "data" / "reviewed"

    @property
    def remains(self) -> Path:
        """Folder of a run that purged a record: what is left of the tables that held it, by the MD5 of what they were."""
        return self.root / "data" / "remains"

    @property
    def starts(self) -> Path:
        """Folder: starts.json and, for each released adapter that params begin from, a folder of it."""
        return self.root / "data" / "starts"

    @property
    def suites(self) -> Path:
        """Folder: suites.json and the files of rows, schemas and reward models that params ask evaluation to read."""
        return self.root / "data" / "suites"

    @property
    def champion(self) -> Path:
        """Folder: champion.json and, if there is a champion, adapter/."""
        return self.root / "data" / "champion"

    @property
    def validation(self) -> Path:
        """Folder: validation.json, validation.html, data_docs/."""
        return self.root / "work" / "validate"

    @property
    def drift(self) -> Path:
        """Folder: drift.json and drift.html, the newest batch against the rows before it."""
        return self.root / "work" / "drift"

    @property
    def curation(self) -> Path:
        """Folder: curation.json, curation.html, dropped.parquet, and lists for review."""
        return self.root / "work" / "curate"

    @property
    def splits(self) -> Path:
        """Folder: splits.json, leaks.parquet, sides/, and train/, eval/, test/ with a file for each shard."""
        return self.root / "work" / "split"

    @property
    def training(self) -> Path:
        """Folder: training.json, adapter/, curves.jsonl, and stages/NAME/ with the adapter of each earlier stage of a chain."""
        return self.root / "work" / "train"

    @property
    def evaluation(self) -> Path:
        """Folder: evaluation.json, costs.json, predictions.parquet, metrics.json, plots/."""
        return self.root / "work" / "evaluate"

    @property
    def release(self) -> Path:
        """Folder: decision.json, kept in git, and report.html, which is not: it shows rows of data."""
        return self.root / "work" / "release"

    @property
    def snapshot_record(self) -> Path:
        return self.snapshot / "snapshot.json"

    @property
    def starts_record(self) -> Path:
        return self.starts / "starts.json"

    @property
    def champion_record(self) -> Path:
        return self.champion / "champion.json"

    @property
    def validation_record(self) -> Path:
        return self.validation / "validation.json"

    @property
    def frozen_record(self) -> Path:
        return self.frozen / "frozen.json"

    @property
    def reserved_record(self) -> Path:
        return self.reserved / "snapshot.json"

    @property
    def reviewed_list(self) -> Path:
        return self.reviewed / "left_out.csv"

    @property
    def drift_record(self) -> Path:
        return self.drift / "drift.json"

    @property
    def curation_record(self) -> Path:
        return self.curation / "curation.json"

    @property
    def splits_record(self) -> Path:
        return self.splits / "splits.json"

    @property
    def training_record(self) -> Path:
        return self.training / "training.json"

    @property
    def evaluation_record(self) -> Path:
        return self.evaluation / "evaluation.json"

    @property
    def suites_record(self) -> Path:
        return self.suites / "suites.json"

    @property
    def costs_record(self) -> Path:
        return self.evaluation / "costs.json"

    @property
    def decision_record(self) -> Path:
        return self.release / "decision.json"

    @property
    def report_page(self) -> Path:
        return self.release / "report.html"

    @property
    def report_data(self) -> Path:
        """What the page says, for machines."""
        return self.release / "report.json"


@dataclass(frozen=True, slots=True)
class Project:
    """The user's checkout. `state` (default .tuneline/) is ours alone and never in git."""

    root: Path
    state: Path

    @property
    def runs(self) -> Path:
        return self.state / "runs"

    @property
    def checkpoints(self) -> Path:
        return self.state / "checkpoints"

    @property
    def cache(self) -> Path:
        """What training made and can make again, named by content: tokenised rows, log-probabilities and the like."""
        return self.state / "cache"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.db"

    @property
    def mlflow_db(self) -> Path:
        return self.state / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.state / "artifacts"

    @property
    def remote(self) -> Path:
        return self.state / "remote"

    @property
    def prefect(self) -> Path:
        return self.state / "prefect"

    @property
    def sweeps(self) -> Path:
        """Of each sweep a folder: study.db, checkpoints/ of the trial under way, adapters/ of the best trials."""
        return self.state / "sweeps"

    @property
    def curves(self) -> Path:
        """Of each learning curve a folder: shares/ with what each training came to, curve.json, curve.html."""
        return self.state / "curves"

    @property
    def serving(self) -> Path:
        """What `tuneline serve` keeps: keys.json, counts of traffic, the sampled log of requests, feedback."""
        return self.state / "serving"

    @property
    def requests(self) -> Path:
        """The sampled log of requests, a file a day and part."""
        return self.serving / "requests"

    @property
    def feedback(self) -> Path:
        """Answers for a while, and what people said of them, where no server's database keeps them."""
        return self.serving / "feedback.db"

    @property
    def monitor(self) -> Path:
        """Of each model and release a folder: reports of windows, how far the log was read, what answers looked like at first."""
        return self.state / "monitor"

    @property
    def notices(self) -> Path:
        """What people were told, or are still to be told: SQLite."""
        return self.state / "notices.db"

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    @property
    def staging(self) -> Path:
        """Where archives are unpacked and remote rows are put before they are read; emptied after each ingest."""
        return self.state / "staging"

    @property
    def scratch(self) -> Path:
        """Temporary files of large computations; nothing here outlives the process that made it."""
        return self.state / "scratch"

    @property
    def index(self) -> Path:
        """Which record lies in which shard, by keyed digest; can be made again at any time."""
        return self.state / "index"

    @property
    def looks(self) -> Path:
        """Pages of explore and advise, a folder a snapshot."""
        return self.state / "looks"

    @property
    def erasing(self) -> Path:
        """What an unfinished purge still has to look for: the one place where a forgotten text may lie, until it ends."""
        return self.state / "erasing"

    @property
    def signing_key(self) -> Path:
        """The private key that signs releases and statements, readable by its owner alone."""
        return self.state / "signing-key.pem"

    @property
    def key(self) -> Path:
        """The project's secret for keyed digests, readable by its owner alone."""
        return self.state / "key"
