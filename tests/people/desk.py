"""A project in which people decide about releases: real git, a real SQLite ledger, versions with files in a folder registry."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.domain.record import describe_files
from pipeline.domain.release import Event, EventKind, ModelVersion
from pipeline.moving import utc_now
from pipeline.params import Params
from pipeline.ports import Registry
from pipeline.settings import Settings
from pipeline.wiring import World, read_params
from tests.release.folder_registry import FolderRegistry

MODEL = "desk"
PARAMS = """\
model: {name: desk, task: generate, base: ./base}
release:
  rules:
    production:
      gate: false
      approvals: {count: 1}
"""


@dataclass(frozen=True)
class FolderWorld(World):
    """A project whose registry is a folder, so that no model needs to be trained."""

    @cached_property
    def registry(self) -> Registry:
        return FolderRegistry(self.start / "registry")


class Desk:
    def __init__(self, root: Path, *, params: str = PARAMS, **settings: Any) -> None:
        self.root = root
        self.params_file = root / "params.yaml"
        root.mkdir(parents=True, exist_ok=True)
        self.write(params)
        if not (root / ".git").exists():
            git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
            for words in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "start"]):
                subprocess.run([*git, *words], check=True)
        self.settings = settings

    def write(self, params: str) -> None:
        self.params_file.write_text(params)

    @property
    def world(self) -> FolderWorld:
        """Opened anew each time, as by a process of its own."""
        return FolderWorld(self.root, Settings(**self.settings))

    @property
    def params(self) -> Params:
        return read_params(self.params_file)

    def register(self, *, name: str = MODEL, by: str = "tuneline") -> str:
        world, run = self.world, f"{len(self.events) + 1:032x}"
        adapter = self.root / "registry" / "runs" / run / "model"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_bytes(f"weights of {run}".encode())
        number = world.registry.register(name, run_id=run, source=f"runs:/{run}/model", tags={})
        digits = dict.fromkeys(("training", "evaluation", "decision", "adapter_digest"), run[-1] * 64)
        files = describe_files(world.registry.artifacts(name, number))
        made = ModelVersion(
            name=name, version=number, run_id=run, files=files, commit="c" * 40, tag=f"run/{run}", dirty=False, **digits
        )
        self.append(EventKind.REGISTERED, number, actor=by, subject=made.digest, record=made.to_json())
        return number

    def append(self, kind: EventKind, version: str, *, stage: str | None = None, **words: Any) -> Event:
        world = self.world
        said = {"actor": "ada", "reason": "because", "at": utc_now(), **words}
        return world.ledger.append(
            MODEL, kind, expected=world.ledger.head(MODEL)[0], version=version, stage=stage, leaves=None, **said
        )

    @property
    def events(self) -> tuple[Event, ...]:
        return self.world.ledger.events(MODEL)

    @property
    def deeds(self) -> list[tuple[str, str, str]]:
        """(what, version, who) of all but registrations."""
        return [(e.event.value, e.version, e.actor) for e in self.events if e.event is not EventKind.REGISTERED]

    def holder(self, stage: str = "production") -> str | None:
        return self.world.ledger.holder(MODEL, stage)
