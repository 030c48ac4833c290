"""A model with releases for the engine's tests: a real ledger, a registry in a folder, adapters that each say something else."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tuner_kit
from folder_registry import FolderRegistry
from modeling_kit import model_params

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.data import messages_to_input
from pipeline.domain.record import describe_files
from pipeline.domain.release import EventKind, ModelVersion, stack
from pipeline.domain.serving import Ask
from pipeline.params.serve import ServeParams

MODEL = "desk"
QUESTIONS = ("Where is Oslo?", "Where is Lima?", "Where is Rome? Tell me.", "Is it in Peru?")


def make_adapter(base: Path, folder: Path, seed: int, shape: str = "lora", by: float = 0.1, **more: Any) -> Path:
    """An adapter nudged by noise of its own."""
    original = tuner_kit.nudge
    tuner_kit.nudge = lambda model, by, _seed=5: original(model, by, seed)
    try:
        tuner_kit.make(base, folder, by=by, **tuner_kit.SHAPES[shape], **more)
    finally:
        tuner_kit.nudge = original
    return folder


class World:
    """One model's ledger, registry and releases."""

    def __init__(self, root: Path, base: Path, task: str = "generate") -> None:
        self.root, self.base, self.task = root, base, task
        self.ledger = SqlLedger(root / "state" / "ledger.db", patience=30)
        self.registry = FolderRegistry(root / "registry")

    def register(self, adapter: Path) -> str:
        """A version with the files of `adapter`."""
        number = len(self.registry.versions(MODEL)) + 1
        run = f"run{number}"
        shutil.copytree(adapter, self.registry.root / "runs" / run / "model" / "artifacts" / "adapter")
        version = self.registry.register(MODEL, run_id=run, source=f"runs:/{run}/model", tags={})
        record = ModelVersion(
            name=MODEL,
            version=version,
            run_id=run,
            training="1" * 64,
            evaluation="2" * 64,
            decision="3" * 64,
            adapter_digest="4" * 64,
            files=describe_files(self.registry.artifacts(MODEL, version)),
            commit="c" * 40,
            tag=run,
            dirty=False,
        )
        self._append(EventKind.REGISTERED, version, record.digest, record=record.to_json())
        return version

    def promote(self, version: str, stage: str = "production") -> None:
        self._append(EventKind.PROMOTED, version, self.subject(version), stage=stage)

    def roll_back(self, stage: str = "production") -> str:
        held = stack(self.ledger.events(MODEL), stage)
        self._append(EventKind.ROLLED_BACK, held[-2], self.subject(held[-2]), stage=stage, leaves=held[-1])
        return held[-2]

    def revoke(self, version: str) -> None:
        self._append(EventKind.REVOKED, version, self.subject(version))

    def files(self, version: str) -> Path:
        return self.registry.artifacts(MODEL, version) / "artifacts" / "adapter"

    def engine(self, *, rows: int = 8, queue: int = 64, **more: Any):
        from pipeline.serving.built_in import BuiltIn
        from pipeline.serving.engine import ReleaseEngine

        keys = {name: more.pop(name) for name in ("traffic", "verify", "roll_back") if name in more}
        params = ServeParams(**{"batch": rows, "queue": queue, "poll_seconds": 0.02, **more})
        maker = BuiltIn(lambda: self.base, model_params(self.base, self.task), rows=rows, queue=queue)
        return ReleaseEngine(MODEL, params, maker=maker, ledger=self.ledger, registry=self.registry, **keys)

    def subject(self, version: str) -> str:
        made = (e for e in self.ledger.events(MODEL) if e.event is EventKind.REGISTERED and e.version == version)
        return next(made).subject

    def _append(self, kind: EventKind, version: str, subject: str, **more: Any) -> None:
        who = {"actor": "ada", "reason": "a test", "at": datetime.now(UTC)}
        given = {"stage": None, "leaves": None, **more}
        self.ledger.append(MODEL, kind, expected=self.ledger.head(MODEL)[0], version=version, subject=subject, **who, **given)


def expected(base: Path, folders: dict[str, Path], questions=QUESTIONS, most: int = 12) -> dict[str, list[str]]:
    """What each adapter answers by the code that evaluation measures with."""
    from pipeline.modeling.answering.generate import Subjects

    subjects = Subjects(base, model_params(base))
    found = {}
    for name, folder in folders.items():
        subjects.add(name, folder)
        asked = [messages_to_input([{"role": "user", "content": question}]) for question in questions]
        found[name] = subjects.answers(name, asked, max_new_tokens=most)
    return found


def ask(ask_id: str, text: str = QUESTIONS[0], most: int = 12, **more: Any) -> Ask:
    return Ask(id=ask_id, messages=({"role": "user", "content": text},), max_tokens=most, **more)


async def heard(engine, asked: Ask):
    """The whole answer and the release that every piece named."""
    text, release, pieces = "", None, 0
    async for piece in engine.ask(asked):
        assert release in (None, piece.release)
        text, release, pieces = text + piece.text, piece.release, pieces + 1
    assert piece.finish is not None
    return text, release


def listen(engine, asked: Ask):
    return asyncio.run(heard(engine, asked))
