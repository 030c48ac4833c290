"""A small project whose releases carry evidence: the world of tests/release, with a real signing key, a real repository for
anchors, and the files of the run's commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from folder_registry import FolderRegistry
from release_world import MODEL, STAGES, Candidate, Clock, StoreArchive, World

from pipeline.backends.anchors import Anchors, stores_of
from pipeline.backends.evidence import SignedEvidence
from pipeline.backends.git import Git
from pipeline.backends.ledger import SqlLedger
from pipeline.backends.signing import Signer
from pipeline.backends.surroundings import installed, surroundings
from pipeline.domain.evidence import Surroundings
from pipeline.domain.proof import AuditReport
from pipeline.domain.release import ModelVersion
from pipeline.steps import audit
from pipeline.steps.register import register
from tests.checkouts import git


def few(committed: Mapping[str, str]) -> Surroundings:
    """As if little were installed here: a bill of hundreds of libraries takes a second."""
    return surroundings(committed).model_copy(update={"installed": tuple(i for i in installed() if i.name[0] in "cC")})


class EvidenceWorld(World):
    """told: what anchoring complained of. A folder that holds such a world already is opened as it is."""

    def __init__(self, root: Path, further: tuple[str, ...] = ()) -> None:
        if (root / "checkout").exists():
            self._open(root, further)
            return
        super().__init__(root)
        repository = root / "checkout"
        repository.mkdir()
        for words in (
            ("init", "--quiet", "--initial-branch", "main"),
            ("config", "user.name", "Someone"),
            ("config", "user.email", "someone@localhost"),
            ("commit", "--quiet", "--allow-empty", "--message", "start"),
        ):
            git(repository, *words)
        self._open(root, further)

    def _open(self, root: Path, further: tuple[str, ...]) -> None:
        self.root, self.clock = root, Clock()
        self.ledger = SqlLedger(root / "state" / "ledger.db", patience=30)
        self.registry = FolderRegistry(root / "registry")
        self.archive = StoreArchive(root / "archive")
        self.git = Git.find(root / "checkout")
        self.told: list[str] = []
        self.evidence = SignedEvidence(Signer(root / "state" / "signing-key.pem"), around=few)
        self.anchors = Anchors(stores_of(self.git, further), tell=self.told.append)

    def register(self, name: str, *, dirty: bool = False, candidate: Candidate | None = None) -> ModelVersion:
        made = candidate or self.candidate(name)
        commit = self.archive.root / f"{made.tag}.commit"
        commit.mkdir(exist_ok=True)
        (commit / "params.yaml").write_text("model: {name: desk}\n")
        (commit / "dvc.lock").write_text("schema: '2.0'\n")
        return register(
            made.decision,
            made.training,
            made.evaluation,
            name=MODEL,
            run_id=made.run_id,
            commit="c" * 40,
            tag=made.tag,
            dirty=dirty,
            source=f"runs:/{made.run_id}/model",
            actor="tuneline",
            reason="the gate passed it",
            registry=self.registry,
            ledger=self.ledger,
            archive=self.archive,
            evidence=self.evidence,
            anchors=self.anchors,
            now=self.clock,
        )

    def verify(self, version: str = "1") -> AuditReport:
        return audit.verify(
            version,
            model=MODEL,
            stages=STAGES,
            ledger=self.ledger,
            registry=self.registry,
            archive=self.archive,
            evidence=self.evidence,
            anchors=self.anchors,
            root=self.root,
        )

    def anchor_head(self) -> None:
        last = self.ledger.events(MODEL)[-1]
        self.anchors.after(last)

    @property
    def folder(self) -> Path:
        """Where the files of version 1 lie."""
        return self.registry.artifacts(MODEL, "1")
