"""A Ray cluster of two nodes, of which one is lost in mid-training: the run finishes by itself, its data is a local run's.

Slow: `make drill-ray`. Then the ends that nobody wishes for: the driver stopped, the driver killed, the head killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.checkouts import ROOT
from tests.story_town import PARAMS, Town

sys.path.insert(0, str(ROOT / "infra"))
from ray_cluster import RayCluster

STEPS = 24
LONGER = PARAMS.replace("max_steps: 8", f"max_steps: {STEPS}")
ON_RAY = LONGER + "compute: {engine: ray, workers: 2, from_mib: 0, from_rows: 8, patience: 300}\n"
PURE = ("validate", "drift", "curate", "split")
"""Stages that make data; what they made must not depend on where."""
LOSS_BOUND = 1e-3
"""Of the loss of a run that went on with one worker of two: sums of gradients are rounded in another order."""
SCORE_BOUND = 0.05
"""Of scores: two adapters that differ by roundings may say other words to a row or two."""
ENDED_WITHIN = 90
"""Seconds until a run whose cluster's head was lost has ended: fifteen without an answer, and the rest for a busy machine."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    made = RayCluster(tmp_path / "ray")
    try:
        made.up()
        yield made
    finally:
        made.down()


def workers_of(cluster: RayCluster) -> list[psutil.Process]:
    """Processes of the cluster that hold a worker of a training."""
    found = []
    for name in cluster.running():
        for process in cluster.family(name):
            try:
                if "TrainWorker" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
    return found


def until(what: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.3)
    return what()


def checkpoint(town: Town) -> int:
    """The newest whole checkpoint of what is being trained."""
    found = (town.root / ".tuneline" / "checkpoints").glob("*/checkpoint-*/complete.json")
    return max((int(path.parent.name.rpartition("-")[2]) for path in found), default=0)


def tags(town: Town) -> dict[str, str]:
    """What the tracked run says of beginnings after the first."""
    with contextlib.closing(sqlite3.connect(town.root / ".tuneline" / "mlflow.db")) as store:
        return dict(store.execute("SELECT key, value FROM tags WHERE key LIKE 'tuneline.ray.%'").fetchall())


def folder_of(town: Town) -> Path:
    return Path(town("worktree").out.strip().splitlines()[-1])


def differences(ours: Path, theirs: Path) -> list[str]:
    """What of two runs' data is not the same: the snapshot, all that stages made of it, and what DVC noted of both."""
    records = {"snapshot": "data/snapshot/snapshot.json"} | {
        name: f"work/{folder}/{file}.json"
        for name, folder, file in (
            ("validation", "validate", "validation"),
            ("drift", "drift", "drift"),
            ("curation", "curate", "curation"),
            ("splits", "split", "splits"),
        )
    }
    found = [name for name, path in records.items() if (ours / path).read_bytes() != (theirs / path).read_bytes()]
    import yaml

    locks = [yaml.safe_load((root / "dvc.lock").read_text())["stages"] for root in (ours, theirs)]
    found += [f"lock: {name}" for name in PURE if locks[0][name] != locks[1][name]]
    shards = [{path.name: path.read_bytes() for path in (root / "data/snapshot/shards").iterdir()} for root in (ours, theirs)]
    return found + (["shards"] if shards[0] != shards[1] else [])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_retrain_survives_the_loss_of_a_node(cluster: RayCluster, new_town: Callable[..., Town], tmp_path: Path) -> None:
    far, local = new_town(ON_RAY), new_town(LONGER)
    for town in (far, local):
        town.batch(1)
    run = far.start("run --json", **cluster.environment)
    killed = until(lambda: run.poll() is not None or checkpoint(far) >= 4, 1500)
    assert run.poll() is None, run.communicate()
    assert killed
    cluster.kill("second")
    at = checkpoint(far)
    out, err = run.communicate(timeout=1500)
    assert run.returncode == 0, err
    assert at < STEPS, "the node was lost before the training had ended"
    assert (json.loads(out)["ending"], json.loads(out)["version"]) == ("registered", "1")
    assert tags(far) == {"tuneline.ray.beginnings": "2", "tuneline.ray.workers": "1"}
    assert workers_of(cluster) == []

    outcome = local("run --json").json
    assert outcome["ending"] == "registered"
    ours, theirs = folder_of(far), folder_of(local)
    assert differences(ours, theirs) == []
    (planted := tmp_path / "planted").mkdir()
    for name in ("data", "work"):
        subprocess.run(["cp", "-rL", str(ours / name), str(planted / name)], check=True)
    (planted / "dvc.lock").write_bytes((ours / "dvc.lock").read_bytes())
    record = planted / "work" / "split" / "splits.json"
    record.chmod(0o644)
    record.write_text(record.read_text().replace("train", "trian", 1))
    assert differences(planted, theirs) == ["splits"], "a difference that is there must be found"

    curves = [_curve(root) for root in (ours, theirs)]
    assert list(curves[0]) == list(curves[1]) == list(range(2, STEPS + 1, 2))
    for step, loss in curves[0].items():
        assert loss == pytest.approx(curves[1][step], rel=LOSS_BOUND), step
    scores = [json.loads((root / "work/evaluate/metrics.json").read_text()) for root in (ours, theirs)]
    assert scores[0].keys() == scores[1].keys()
    assert scores[0]["rows"] == scores[1]["rows"]
    for name in ("base.exact_match", "base.token_f1"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=1e-9), "the bare base is the same one, so are its answers"
    for name in ("candidate.exact_match", "candidate.token_f1"):
        assert scores[0][name] == pytest.approx(scores[1][name], abs=SCORE_BOUND)
    far("promote 1 --to production --by drill --reason kept")
    assert "verified" in far("audit verify production").out


def _curve(root: Path) -> dict[int, float]:
    points = [json.loads(line) for line in (root / "work" / "train" / "curves.jsonl").read_text().splitlines()]
    return {point["step"]: point["loss"] for point in points if "loss" in point}


class Driving:
    """tests/drills/ray_driving.py, and the lines that it has said."""

    def __init__(self, home: Path, steps: int, environment: dict[str, str]) -> None:
        script = Path(__file__).with_name("ray_driving.py")
        self.log = home / "driving.log"
        self._file = self.log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(home), str(steps)],
            env={**os.environ, **environment},
            stdout=self._file,
            stderr=self._file,
        )

    @property
    def step(self) -> int:
        return max((int(found) for found in re.findall(r"training (\d+)/", self.said)), default=0)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def trains(self, step: int, seconds: float = 900) -> None:
        until(lambda: self.process.poll() is not None or self.step >= step, seconds)
        assert self.process.poll() is None, self.said
        assert self.step >= step, self.said

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._file.close()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ends_that_nobody_wishes_for(cluster: RayCluster, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    stopped = Driving(home, 5000, cluster.environment)
    try:
        stopped.trains(12)
        assert len(workers_of(cluster)) == 2
        stopped.process.terminate()
        assert stopped.process.wait(timeout=300) == 3, stopped.said
    finally:
        stopped.end()
    assert "ended TryLater: stopped by SIGTERM at step" in stopped.said
    step = int(re.findall(r"stopped by SIGTERM at step (\d+)", stopped.said)[-1])
    assert (home / "folder" / f"checkpoint-{step}" / "complete.json").is_file()
    assert until(lambda: not workers_of(cluster), 60)

    killed = Driving(home, 5000, cluster.environment)
    try:
        killed.trains(step + 5)
        resumed = re.findall(r"training (\d+)/", killed.said.rpartition("ended TryLater")[2])
        assert int(resumed[0]) == step + 1, "it goes on from the checkpoint of the stop"
        killed.process.kill()
        assert until(lambda: not workers_of(cluster), 60), "nobody trains on for a driver that is gone"
    finally:
        killed.end()
    assert not [path for path in (home / "folder").glob(".staging-*") if path.is_file()]

    headless = Driving(home, 5000, cluster.environment)
    try:
        headless.trains(killed.step + 5)
        before = workers_of(cluster)
        assert len(before) == 2
        cluster.kill("head")
        began = time.monotonic()
        assert headless.process.wait(timeout=ENDED_WITHIN) == 3, headless.said
        assert time.monotonic() - began < ENDED_WITHIN
        assert "ended TryLater" in re.split(r"training \d+/", headless.said)[-1]
        until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in before), 90)
        left = [process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert left == [], "workers whose driver and head are gone end by themselves"
    finally:
        headless.end()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_rows_are_taken_in_alike_while_a_node_is_lost(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are handed out again when the one who had them is gone: the same bytes come out as of this machine alone."""
    from pydantic import SecretStr

    from pipeline.backends.ray_engine import RayEngine
    from pipeline.curation import lines
    from pipeline.domain.data import Task
    from pipeline.params import IngestParams
    from pipeline.params.compute import ComputeParams
    from pipeline.steps.ingest import ingest

    rows = tmp_path / "rows.jsonl"
    with rows.open("w") as file:
        for n in range(60_000):
            file.write(
                json.dumps({"messages": [{"role": "user", "content": f"q {n % 50_000}"}, {"role": "assistant", "content": "a"}]})
            )
            file.write("\n" if n % 997 else "}\n")
    address, token = (cluster.environment[f"TUNELINE_RAY_{name}"] for name in ("ADDRESS", "TOKEN"))
    compute = ComputeParams(engine="ray", workers=2, from_mib=0)
    engine = RayEngine(compute, address, SecretStr(token), state=tmp_path / "state")
    seen: list[int] = []

    def lose(what: str, done: int, _: int) -> None:
        seen.append(done)
        if len(seen) == 5:
            cluster.kill("second")

    took: dict[str, Any] = {"dataset": "d", "task": Task.GENERATE, "sources": [rows], "parent": None, "root": tmp_path}
    with monkeypatch.context() as small:
        small.setattr(lines, "CHUNK_BYTES", 60_000)
        small.setattr(lines, "PIECE", 30_000)
        far = ingest(IngestParams(), folder=tmp_path / "far", engine=engine, progress=lose, **took)
    local = ingest(IngestParams(), folder=tmp_path / "local", workers=1, **took)
    assert len(seen) > 20
    assert far.digest == local.digest
    assert far.sources[0].duplicate > 0 < far.sources[0].quarantined
    files = [{p.name: p.read_bytes() for p in (tmp_path / side).rglob("*") if p.is_file()} for side in ("far", "local")]
    assert files[0] == files[1]


SPACE = """
sweep:
  trials: 2
  pruning: "off"
  space: {learning_rate: {low: 5.0e-4, high: 5.0e-2, log: true}}
"""


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_trials_of_a_sweep_are_under_way_together(cluster: RayCluster, new_town: Callable[..., Town], tmp_path: Path) -> None:
    town = new_town()
    town.batch(1)
    town("ingest")
    params = tmp_path / "params.yaml"
    params.write_text(PARAMS + SPACE + "compute: {engine: ray, workers: 2, patience: 300}\n")
    said = town(f"sweep --params {params} --out {tmp_path / 'out.yaml'} --json", **cluster.environment).json
    assert said["ended"] == "all 2 trials were run"
    assert [trial["state"] for trial in said["trials"]] == ["finished", "finished"]
    with contextlib.closing(sqlite3.connect(town.root / ".tuneline" / "mlflow.db")) as store:
        asked = "SELECT start_time, end_time FROM runs WHERE name LIKE '%-sweep-%-000_' ORDER BY name"
        (began, ended), (began_too, ended_too) = store.execute(asked).fetchall()
    assert max(began, began_too) < min(ended, ended_too), "one had begun before the other had ended"
    assert said["comparison"]["others"], "both adapters are there to be held beside each other"
    assert not list((town.root / ".tuneline" / "ray").glob("*")), "nothing is left of what went well"
    assert until(lambda: not workers_of(cluster), 60)
