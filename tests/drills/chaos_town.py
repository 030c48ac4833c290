"""A project whose flow is killed at chosen changes of the disk, and what must hold of it at any moment. No test lives here."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.tasks import NOTED_WITHIN
from pipeline.backends.ledger import SqlLedger
from pipeline.backends.run_folder import STAGES, head_data, head_run
from pipeline.domain.record import first_difference
from pipeline.domain.release import registrations, stack, version_record
from pipeline.errors import TunelineError
from pipeline.settings import Settings
from pipeline.wiring import World
from tests.story_town import Town
from tests.warm import WarmProcess

MODEL = "desk"
PARAMS = """
model: {name: desk, task: generate, base: ./examples/base}
ingest: {sources: [inbox], format: chat}
validate: {min_rows: 50}
split: {eval: 0.05, test: 0.2, leaks: {exact: drop, near: drop, ngram: drop}}
train: {rank: 4, alpha: 8, learning_rate: 0.004, max_steps: 4, batch_size: 8, max_length: 160, save_steps: 1, logging_steps: 2}
evaluate:
  metrics: [token_f1]
  ladder: {rungs: [majority]}
  cost: {timed_answers: 1}
  parity_rows: 1
  batch_size: 64
  max_new_tokens: 8
  resamples: 200
gate: {min_test_rows: 5, thresholds: {token_f1: 0.0}, not_worse_than_champion: {}}
"""
_DONE = re.compile(rf"^  ({'|'.join(STAGES)}) [\d.]+ s$", re.MULTILINE)
_BROUGHT = re.compile(rf"^  ({'|'.join(STAGES)}): done before, brought back$", re.MULTILINE)
_RESUMED = re.compile(r"changes of the disk: (\d+)")
_DEBRIS = ("*.tmp", "*.new", "*.part", "*.restoring")


@dataclass
class Attempt:
    """One start of the flow: where it was killed (0: not at all), how it ended, which stages it finished or brought back."""

    die_at: int
    code: int
    out: str
    err: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def brought(self) -> set[str]:
        return set(_BROUGHT.findall(self.err))

    @property
    def finished(self) -> set[str]:
        return set(_DONE.findall(self.err)) - self.brought


@dataclass
class Chaos:
    """A town, a shim, and everything that was found wrong, a sentence each."""

    town: Town
    shim: Path
    wrong: list[str] = field(default_factory=list)
    points: int = 0

    def start(self, die_at: int, command: str = "run --json") -> Attempt:
        run = WarmProcess(["pipeline", *shlex.split(command)], cwd=self.town.root, env=os.environ, shim=self.shim, die_at=die_at)
        out, err = run.communicate(timeout=600)
        self.points += run.returncode == -signal.SIGKILL
        return Attempt(die_at, run.returncode or 0, out, err)

    def done(self, command: str) -> None:
        """A command that nothing kills, and that must succeed."""
        attempt = self.start(0, command)
        assert attempt.code == 0, attempt.err

    def count(self) -> int:
        """How many changes of the disk a whole run makes; nothing kills it."""
        whole = self.start(0)
        assert whole.code == 0, whole.err
        found = _RESUMED.search(whole.err)
        assert found is not None, whole.err
        return int(found[1])

    def killed_run(self, points: Iterator[int], kills: int, name: str) -> Attempt:
        """Start the flow and kill it, `kills` times at most, looking after each at what is left; then let it end."""
        finished: set[str] = set()
        before = len(registrations(self._events()))
        for _ in range(kills):
            attempt = self.start(next(points))
            finished = self._note(attempt, finished, name)
            if not attempt.killed:
                break
            self.look(f"{name}, killed at {attempt.die_at}")
        else:
            attempt = self.start(0)
            self._note(attempt, finished, name)
        if attempt.code != 0:
            self.wrong.append(f"{name}: the start after the kills ended with {attempt.code}: {attempt.err[-600:]}")
            return attempt
        made = len(registrations(self._events())) - before
        if made != 1:
            self.wrong.append(f"{name}: {made} versions were registered for one batch")
        self.look(name)
        self.look_for_debris(name)
        return attempt

    def _note(self, attempt: Attempt, finished: set[str], name: str) -> set[str]:
        again = finished & attempt.finished
        if again:
            said = f"{name}, start killed at {attempt.die_at or 'no point'}: did again what was done: {', '.join(sorted(again))}"
            self.wrong.append(said)
        if not attempt.killed and attempt.code not in (0,):
            self.wrong.append(f"{name}: ended with {attempt.code} by itself: {attempt.err[-600:]}")
        return finished | attempt.finished

    def look(self, when: str) -> None:
        """What must hold at any moment: a ledger that verifies, and each version that holds or held production whole."""
        try:
            ledger = SqlLedger(self._world.project.ledger)
            self.wrong += [f"{when}: {line}" for line in ledger.verify()]
            events = ledger.events(MODEL)
        except TunelineError as error:
            self.wrong.append(f"{when}: the ledger cannot be read: {error}")
            return
        for version in stack(events, "production")[-2:]:
            record = version_record(events, version)
            try:
                folder = self._world.registry.artifacts(MODEL, version)
                different = first_difference(folder, record.files)
            except TunelineError as error:
                different = str(error)
            if different:
                self.wrong.append(f"{when}: version {version}, which holds or held production, is not whole: {different}")

    def look_for_debris(self, when: str) -> None:
        """What may not be left once a run has ended: temporary files, staged rows, checkpoints of work that is kept."""
        state = self._world.project.state
        left = [path for pattern in _DEBRIS for path in state.rglob(pattern) if "prefect" not in path.parts]
        left += [path for folder in ("staging", "scratch") for path in (state / folder).glob("*") if path.name != ".lock"]
        left += list((state / "checkpoints").rglob("complete.json"))
        self.wrong += [f"{when}: left behind: {path.relative_to(state)}" for path in left]
        git = self._world.git
        newest, kept = head_data(git, MODEL), head_run(git, MODEL)
        if newest != kept:
            self.wrong.append(f"{when}: the newest data is of {newest}, the newest run is {kept}")

    def look_at_prefect(self) -> None:
        """No flow run may be shown as running once none is, and another has looked."""
        time.sleep(NOTED_WITHIN.total_seconds())  # a run that was killed before it noted who it was is given up after that
        self.done("run")
        note = json.loads((self._world.project.prefect / "server.json").read_text())
        body = json.dumps({"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}).encode()
        asked = urllib.request.Request(f"{note['api']}/flow_runs/filter", body, {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            still = json.loads(answer.read())
        self.wrong += [f"Prefect shows {run['name']} as running" for run in still]

    @property
    def _world(self) -> World:
        return World(self.town.root, Settings())

    def _events(self) -> tuple[Any, ...]:
        return SqlLedger(self._world.project.ledger).events(MODEL) if self._world.project.ledger.exists() else ()


class Served:
    """`tuneline serve` of the town, asked now and then."""

    def __init__(self, chaos: Chaos) -> None:
        command = ["pipeline", "serve", "--port", "0", "--json"]
        self._process = WarmProcess(command, cwd=chaos.town.root, env=os.environ, shim=chaos.shim)
        self.url = str(json.loads(self._process.stdout.readline())["url"])
        self.asked = 0

    def ask(self) -> str:
        """The release that answers. Raises when nobody does."""
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Where is my kettle?"}], "max_tokens": 4})
        asked = urllib.request.Request(f"{self.url}/v1/chat/completions", body.encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(asked, timeout=120) as answer:
            said = json.loads(answer.read())
        self.asked += 1
        return str(said["model"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(120)
