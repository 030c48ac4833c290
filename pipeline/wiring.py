"""The composition root: the only module that picks backends. World: the stores of one project. Below it, taking data in.
The stages of a run are stages.py's; what ends a run is ending.py's, what moves a stage deeds.py's.

No decision is made here, and nothing heavy is imported before it is used.
"""

from __future__ import annotations

import getpass
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.data import Snapshot
from pipeline.domain.feedback import Remark
from pipeline.domain.measured import SuiteFiles
from pipeline.errors import Misuse
from pipeline.ports import (
    Archive,
    Detector,
    Engine,
    Expectations,
    FeedbackBook,
    Judge,
    Ledger,
    Notifier,
    PastRuns,
    Progress,
    RecordIndex,
    Registry,
    Snapshots,
    Tracker,
    silent,
)
from pipeline.settings import Settings, settings
from pipeline.workspace import Project, Workspace

if TYPE_CHECKING:
    from pipeline.backends.anchors import Anchors as LedgerAnchors
    from pipeline.backends.evidence import SignedEvidence
    from pipeline.backends.git import Git
    from pipeline.backends.identities import Identities
    from pipeline.backends.notices import Notices
    from pipeline.backends.run_book import Claim, RunBook
    from pipeline.backends.run_folder import RunFolder
    from pipeline.curation.row_rules import RowRules
    from pipeline.params import CleanParams, Params, SourceParams


@dataclass(frozen=True)
class World:
    """The stores of one project, each opened when first asked for."""

    start: Path
    settings: Settings
    claim: Claim | None = None
    """The lease of the run that all this is opened for: once it is another's, ledger and git refuse what the run writes."""

    @classmethod
    def here(cls, start: Path | None = None) -> World:
        """The project around a folder. Its state folder is there from then on, and its owner's alone: whoever makes a folder
        within it would make it too, and open to others."""
        world = cls(start or Path.cwd(), settings())
        with suppress(Misuse):  # no repository: whoever asks for its git says so
            world.project.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return world

    @cached_property
    def git(self) -> Git:
        from pipeline.backends.git import Git

        found = Git.find(self.start)
        return found.fenced(self.claim.model, self.claim.fence) if self.claim else found

    @cached_property
    def project(self) -> Project:
        # In a linked worktree (a run's folder) the state is that of the checkout it was made from.
        root = self.git.main_root()
        return Project(root, (self.settings.home or root / ".tuneline").absolute())

    @cached_property
    def mlflow(self) -> Any:
        from pipeline.backends.mlflow import connect

        if self.settings.mlflow_uri is not None:
            return connect(self.settings.mlflow_uri.get_secret_value(), artifacts=None)
        self.project.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return connect(f"sqlite:///{self.project.mlflow_db}", artifacts=self.project.mlflow_artifacts)

    @cached_property
    def registry(self) -> Registry:
        from pipeline.backends.mlflow import MlflowRegistry

        return MlflowRegistry(self.mlflow)

    @cached_property
    def ledger(self) -> Ledger:
        from pipeline.backends.ledger import SqlLedger

        url = self.settings.ledger_url
        fence = self.run_book.fence(self.claim) if self.claim else None
        return SqlLedger(url.get_secret_value() if url else self.project.ledger, identities=self.identities, fence=fence)

    @cached_property
    def run_book(self) -> RunBook:
        """Which tick runs under whose lease, how ticks ended, and signals: in the ledger's database where that is shared."""
        from pipeline.backends.run_book import RunBook

        url = self.settings.ledger_url
        return RunBook.beside(url.get_secret_value() if url else self.project.ledger)

    @cached_property
    def feedback(self) -> FeedbackBook:
        """What people think of answers: in the ledger's database where that is shared, else in a file."""
        from pipeline.backends.feedback import SqlFeedback

        url = self.settings.ledger_url
        ledger = url.get_secret_value() if url else self.project.ledger
        return SqlFeedback.beside(ledger, self.project.feedback, taken=self._remarks_taken)

    def _remarks_taken(self, model: str) -> int:
        """The number of the last remark that the snapshot of a model's head has."""
        from pipeline.backends.run_folder import head_data
        from pipeline.backends.snapshots import GitDvcSnapshots
        from pipeline.backends.sources.feedback import taken_by

        head = head_data(self.git, model)
        return taken_by(GitDvcSnapshots(self.git, self.project, model).of(head.commit) if head else None)

    @cached_property
    def identities(self) -> Identities | None:
        """Who may act on releases; None where no file says so, and anyone may."""
        from pipeline.backends.identities import Identities

        path = self.settings.identities
        return Identities.read(path, self.settings.actor_key) if path else None

    @cached_property
    def archive(self) -> Archive:
        from pipeline.backends.dvc import GitDvcArchive

        return GitDvcArchive(self.git, self.project)

    @cached_property
    def evidence(self) -> SignedEvidence:
        """What signs releases with the project's key, made when first asked for, and checks what was signed."""
        from pipeline.backends.evidence import SignedEvidence
        from pipeline.backends.signing import Signer

        own = self.settings.signing_key
        return SignedEvidence(Signer(own or self.project.signing_key, make=own is None))

    @cached_property
    def anchors(self) -> LedgerAnchors:
        """Where the ledger's head is written down outside its database."""
        from pipeline.backends.anchors import Anchors, stores_of
        from pipeline.terminal import say

        further = self.settings.ledger_anchor
        return Anchors(stores_of(self.git, [further.get_secret_value()] if further else []), tell=say)

    @cached_property
    def notifier(self) -> Notices:
        """Tells people of all that it is told; what a model's params want to be told is notifier_of's to know."""
        from pipeline.backends.notices import Notices

        return Notices(self.settings.notify, self.project.notices)

    @cached_property
    def past_runs(self) -> PastRuns:
        from pipeline.backends.past_runs import GitDvcPastRuns

        return GitDvcPastRuns(self.git, self.project)

    def snapshots(self, model: str) -> Snapshots:
        """The snapshots of a model's kept runs."""
        from pipeline.backends.snapshots import GitDvcSnapshots

        return GitDvcSnapshots(self.git, self.project, model)

    @cached_property
    def record_key(self) -> bytes:
        """The project's secret for keyed digests, made when first asked for."""
        from pipeline.backends.record_key import project_key

        return project_key(self.project.key, self.settings.record_key)

    @cached_property
    def record_index(self) -> RecordIndex:
        from pipeline.backends.record_index import FileIndex

        return FileIndex(self.project.index, self.record_key)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for temporary files of one computation, removed afterwards."""
        self.project.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.project.scratch) as folder:
            yield Path(folder)

    @property
    def actor(self) -> str:
        return self.settings.actor or getpass.getuser()

    @property
    def expectations(self) -> Expectations:
        from pipeline.backends.great_expectations import GreatExpectations

        return GreatExpectations()

    @contextmanager
    def tracked(self, experiment: str, key: str, tags: Mapping[str, str] | None = None) -> Iterator[Tracker]:
        """An open MLflow run; the same key finds the same run again."""
        from pipeline.backends.mlflow import tracked_run

        with tracked_run(self.mlflow, experiment, key, tags or {}) as tracker:
            yield tracker


def notifier_of(world: World, params: Params) -> Notifier:
    """Tells people of the kinds that params.notify names."""
    from pipeline.backends.notices import Heard

    return Heard(world.notifier, frozenset(params.notify.kinds))


def read_params(path: Path) -> Params:
    from pipeline.backends.params_file import read_params as read

    return read(path)


def find_base(world: World, workspace: Workspace, params: Params) -> Path:
    """The base model's folder: from the run's own commit if it is in git, else from the user's checkout, a package or the hub."""
    from pipeline.modeling.base import locate_base

    relative = params.model.base.startswith(("./", "../"))
    in_commit = relative and (workspace.root / params.model.base).is_dir()
    return locate_base(params.model, root=workspace.root if in_commit else world.project.root)


def find_encoder(world: World, workspace: Workspace, params: Params) -> Path:
    """The folder of what turns texts into vectors; explore.encoder may be the base itself."""
    chosen = params.explore
    if chosen.encoder == "base":
        return find_base(world, workspace, params)
    model = params.model.model_copy(update={"base": chosen.encoder, "revision": chosen.revision})
    return find_base(world, workspace, params.model_copy(update={"model": model}))


def find_engine(world: World, params: Params) -> Engine | None:
    """The machines that heavy work is handed to, where params name some; checked, so that nothing begins that could not go on."""
    if params.compute.engine == "local":
        return None
    from pipeline.backends.ray_engine import RayEngine

    engine = RayEngine(params.compute, world.settings.ray_address, world.settings.ray_token, state=world.project.state)
    engine.check()
    return engine


def find_detector(params: Params) -> Detector:
    """What finds personal data, of the types that clean.personal_types name."""
    from pipeline.backends.personal_data import PatternPersonalData

    return PatternPersonalData(params.clean.personal_types)


def redaction(params: Params) -> Callable[[str], str]:
    """Takes personal data, and secrets, out of what production is asked and answers, before any of it reaches a disk."""
    from pipeline.backends.secrets import TokenSecrets
    from pipeline.curation.redaction import redact

    detectors: tuple[Detector, ...] = (find_detector(params), TokenSecrets())

    def clean(text: str) -> str:
        for detector in detectors:
            if detector.suspects(text):
                text, _ = redact(text, detector)
        return text

    return clean


def find_judge(world: World, workspace: Workspace, params: Params, files: SuiteFiles, base: Path) -> Judge | None:
    """Who judges answers, where params name somebody. files: what evaluation reads, a reward model among it."""
    asked = params.evaluate.judge
    if asked is None:
        return None
    if asked.by == "endpoint":
        from pipeline.backends.judge import EndpointJudge

        judge = EndpointJudge(asked, world.settings.judge_url, world.settings.judge_key)
        judge.check()  # a wrong key is told before any model has answered
        return judge
    from pipeline.modeling.answering.judge import RewardJudge

    return RewardJudge(workspace.suites / files.place(asked.model), base, params.model)


def run_ingest(
    world: World,
    run: RunFolder,
    params: Params,
    sources: tuple[str, ...] = (),
    as_of: datetime | None = None,
    *,
    afresh: bool = False,
    progress: Progress = silent,
) -> Snapshot:
    """Take in what is new in the sources (those of params, or the given ones), or afresh all of it, and put it under DVC."""
    entries, folder = sources or params.ingest.sources, run.workspace.snapshot
    snapshot = take_in(world, params, folder, entries, parent=run.parent, as_of=as_of, afresh=afresh, progress=progress)
    if run.parent is None or snapshot.digest != run.parent.digest:
        run.store.add(run.workspace.snapshot)
    index_records(world, run.workspace.snapshot, snapshot, progress)
    return snapshot


def index_records(world: World, folder: Path, snapshot: Snapshot, progress: Progress = silent) -> None:
    """Make a snapshot's rows findable by who-has; shards that are indexed already cost nothing."""
    from pipeline.backends.record_index import index_shards

    index_shards(folder, snapshot, world.project.index, world.record_key, world.settings.workers, progress)


def take_in(
    world: World,
    params: Params,
    folder: Path,
    entries: tuple[str | SourceParams, ...],
    *,
    parent: Snapshot | None = None,
    as_of: datetime | None = None,
    afresh: bool = False,
    licenses: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Snapshot:
    from pipeline.backends.sources.staging import staging
    from pipeline.backends.sources.ways import AllWays
    from pipeline.curation.describing import write_description
    from pipeline.steps.forget import keep_out
    from pipeline.steps.ingest import ingest

    root, engine = world.git.root, find_engine(world, params)
    out = keep_out(params.model.name, ledger=world.ledger, key=world.record_key, index=world.record_index)
    forget, forgotten = out or (None, None)
    with staging(world.project.staging) as staged:
        return ingest(
            params.ingest.model_copy(update={"sources": entries}),
            dataset=params.model.name,
            task=params.model.task,
            sources=AllWays(staged, partial(_remarks, world, params.model.name)),
            parent=parent,
            folder=folder,
            root=root,
            as_of=as_of,
            afresh=afresh,
            rules=row_rules(params.clean),
            licenses=params.clean.licenses if licenses is None else licenses,
            workers=world.settings.workers,
            engine=engine,
            forget=forget,
            forgotten=forgotten,
            describe=write_description,
            progress=progress,
        )


def _remarks(world: World, model: str, since: int, until: datetime | None) -> Iterator[tuple[int, Remark]]:
    return world.feedback.after(model, since, until=until)


def row_rules(clean: CleanParams) -> RowRules:
    """The rules of `clean`, with what finds personal data and secrets."""
    from pipeline.backends.personal_data import PatternPersonalData
    from pipeline.backends.secrets import TokenSecrets
    from pipeline.curation.row_rules import RowRules

    return RowRules(clean, personal_data=PatternPersonalData(clean.personal_types), secrets=TokenSecrets())
