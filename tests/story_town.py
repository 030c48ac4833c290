"""A user's project to tell stories in: tuneline in processes of its own, real stores, a real small model."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checkouts import ROOT, git
from tests.warm import WarmProcess

PARAMS = """
model: {name: desk, task: generate, base: ./examples/base}
ingest: {sources: [inbox], format: chat}
validate: {min_rows: 100}
split: {eval: 0.05, test: 0.2, leaks: {exact: drop, near: drop, ngram: drop}}
train: {rank: 4, alpha: 8, learning_rate: 0.004, max_steps: 8, batch_size: 8, max_length: 200, save_steps: 2, logging_steps: 2}
evaluate:
  metrics: [exact_match, token_f1]
  slices: [intent]
  ladder: {rungs: [majority, neighbour]}
  cost: {timed_answers: 2}
  parity_rows: 2
  batch_size: 64
  max_new_tokens: 24
  resamples: 200
gate: {min_test_rows: 20, thresholds: {token_f1: 0.0}}
"""


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Town:
    """A user's project, and `tuneline` in a process of its own within it."""

    root: Path

    def __call__(self, command: str, *, expect: int | None = 0, **environment: str) -> Finished:
        done = self.start(command, **environment)
        out, err = done.communicate(timeout=700)
        if expect is not None:
            assert done.returncode == expect, f"tuneline {command} ended with {done.returncode}\n{out}\n{err}"
        return Finished(done.returncode, out, err)

    def start(self, command: str, **environment: str) -> WarmProcess:
        return WarmProcess(["pipeline", *shlex.split(command)], cwd=self.root, env={**os.environ, **environment})

    def batch(self, week: int, rows: int = 260, name: str | None = None, seed: int = 7) -> Path:
        target = self.root / "inbox" / (name or f"week{week}.jsonl")
        target.parent.mkdir(exist_ok=True)
        maker = ROOT / "examples" / "helpdesk" / "make_batches.py"
        said = ["--week", str(week), "--rows", str(rows), "--seed", str(seed), "--out", str(target)]
        subprocess.run([sys.executable, str(maker), *said], check=True)
        return target

    def git(self, *words: str) -> str:
        return git(self.root, *words)


def adapter_of(town: Town) -> dict[str, bytes]:
    """The files of the adapter that was registered first."""
    folder = next((town.root / ".tuneline" / "artifacts").rglob("adapter_model.safetensors")).parent
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
