"""A project whose release answers, as far as the monitor can see it: a real ledger with one version, a real snapshot of what its
training read, lines as the server writes them, signals in a real run book."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.domain.data import Snapshot, Task
from pipeline.domain.monitoring import LoggedRequest
from pipeline.domain.notices import Notice
from pipeline.domain.release import EventKind, ModelVersion
from pipeline.domain.snapshots import PastSnapshot
from pipeline.monitoring import Watched, watch
from pipeline.params import IngestParams, Params
from pipeline.settings import Settings
from pipeline.steps.ingest import ingest
from pipeline.wiring import World
from tests.checkouts import git

MODEL = "desk"
RELEASE = f"{MODEL}@1"
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
Labelled = tuple[str, str]


class OneSnapshot:
    """Implements ports.Snapshots for the snapshot of one run."""

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        self._folder, self._snapshot = folder, snapshot

    def all(self) -> tuple[PastSnapshot, ...]:
        run = {"run": "desk-0001", "number": 1, "kind": "run", "at": START, "ending": "", "commit": "c" * 40}
        return (PastSnapshot(**run, tag="run1", digest=self._snapshot.digest, snapshot=self._snapshot),)

    @contextmanager
    def opened(self, past: PastSnapshot) -> Iterator[Path]:
        yield self._folder


class OneSnapshotWorld(World):
    @cached_property
    def _one(self) -> OneSnapshot:
        folder = self.start / "snapshot"
        return OneSnapshot(folder, Snapshot.read(folder / "snapshot.json"))

    def snapshots(self, model: str) -> Any:
        return self._one


@dataclass
class Told:
    """Implements ports.Notifier: remembers."""

    notices: list[Notice] = field(default_factory=list)

    def tell(self, notice: Notice) -> None:
        self.notices.append(notice)


class Watching:
    """rows: what the training read."""

    def __init__(self, root: Path, rows: Sequence[Labelled], task: Task = Task.CLASSIFY, **monitor: Any) -> None:
        self.root, self.told = root, Told()
        (root / "snapshot").mkdir(parents=True)
        source = root / "rows.jsonl"
        key = {Task.CLASSIFY: ("text", "label"), Task.GENERATE: ("prompt", "completion")}[task]
        source.write_text("".join(json.dumps(dict(zip(key, row, strict=True))) + "\n" for row in rows))
        self.snapshot = ingest(IngestParams(), dataset=MODEL, task=task, sources=[source], parent=None, folder=root / "snapshot")
        git(root, "init", "--quiet")
        for name, value in (("user.name", "Someone"), ("user.email", "someone@localhost")):
            git(root, "config", name, value)
        git(root, "commit", "--quiet", "--allow-empty", "--message", "start")
        self.world = OneSnapshotWorld(root, Settings(home=root / "state"))
        metrics = {"metrics": ["accuracy"]} if task is Task.CLASSIFY else {}
        self.params = Params(model={"name": MODEL, "task": task, "base": "./base"}, evaluate=metrics, monitor=monitor)
        record = ModelVersion(
            name=MODEL,
            version="1",
            run_id="run1",
            training="1" * 64,
            evaluation="2" * 64,
            decision="3" * 64,
            adapter_digest="4" * 64,
            files=(),
            commit="c" * 40,
            tag="run1",
            dirty=False,
        )
        more = {"version": "1", "subject": record.digest, "stage": None, "leaves": None, "record": record.to_json()}
        self.world.ledger.append(MODEL, EventKind.REGISTERED, expected=0, actor="ada", reason="a test", at=START, **more)
        self._number = 0

    def asked(self, rows: Sequence[Labelled], **changes: Any) -> None:
        """Write rows down as requests, a second apart, as the server's log does."""
        folder = self.world.project.requests
        folder.mkdir(parents=True, exist_ok=True)
        for text, answer in rows:
            self._number += 1
            at = START + timedelta(seconds=self._number)
            given: dict[str, Any] = {
                "at": at,
                "id": f"classify-{self._number:09d}",
                "endpoint": "classify",
                "release": RELEASE,
                "digest": "1" * 64,
                "role": "production",
                "asked": (text,),
                "answered": (answer,),
                "seconds": 0.01,
                "prompt_tokens": len(text) // 4,
            }
            line = LoggedRequest(**(given | changes))
            with (folder / f"{at:%Y-%m-%d}.000001.jsonl").open("a") as file:
                file.write(line.model_dump_json() + "\n")

    def look(self, **more: Any) -> Watched:
        return watch(self.world, self.params, notifier=self.told, now=START + timedelta(days=2), **more)


def banking77(folder: Path, seed: int) -> list[Labelled]:
    with (folder / "banking77" / "train.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    random.Random(seed).shuffle(rows)
    return rows


def clinc150(folder: Path, seed: int) -> list[Labelled]:
    rows = [tuple(row) for row in json.loads((folder / "clinc150" / "data_full.train_val.json").read_text())["train"]]
    random.Random(seed).shuffle(rows)
    return rows
