"""A sweep as a user types it, in a project in which the main job was run once. Its files lie outside, and nothing stays there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.backends.params_file import read_params
from tests.story_town import PARAMS, Town

SPACE = """
sweep:
  trials: {trials}
  pruning: "off"
  space:
    learning_rate: {{low: 5.0e-4, high: 5.0e-2, log: true}}  # by orders of magnitude
    rank: {{choices: [2, 4]}}
"""


def _params(folder: Path, trials: int) -> Path:
    path = folder / "params.yaml"
    path.write_text(PARAMS.replace("learning_rate: 0.004", "learning_rate: 0.0006") + SPACE.format(trials=trials))
    return path


@pytest.mark.slow
def test_a_sweep_is_killed_goes_on_and_writes_the_winner(town: Town, tmp_path: Path) -> None:
    params = _params(tmp_path, 3)
    before = params.read_text()
    words = f"sweep --params {params} --json"

    killed = town.start(words)
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("trial 1:"):
            break
    time.sleep(1)
    killed.kill()
    killed.communicate()

    found = town(words)
    assert "trial 0:" not in found.err, "a finished trial is not repeated"
    said = found.json
    assert said["ended"] == "all 3 trials were run"
    assert [trial["state"] for trial in said["trials"]] == ["finished"] * 3
    assert said["trials"][0]["point"] == {"learning_rate": 0.0006, "rank": 4}
    assert said["own"] == 0
    best = said["trials"][said["best"]]
    assert best["value"] == min(trial["value"] for trial in said["trials"])
    assert best["value"] < said["trials"][0]["value"]
    assert said["comparison"]["metric"] == "likelihood of the answers"
    assert {other["trial"] for other in said["comparison"]["others"]} == {0, 1, 2} - {said["best"]}
    assert all(other["low"] <= other["difference"] <= other["high"] for other in said["comparison"]["others"])

    # The winner stands in the params, the one line that it changes is all that was changed, and it is what was tried.
    assert said["written"] == str(params)
    changed = [line for line in said["change"].splitlines() if line[0] in "+-" and not line.startswith(("---", "+++"))]
    assert len(changed) == 2
    assert params.read_text() == before.replace(changed[0][1:], changed[1][1:])
    assert read_params(params).train.learning_rate == best["point"]["learning_rate"]
    assert read_params(params).train.rank == best["point"]["rank"]

    # What was written is of the same sweep: nothing is tried again.
    again = town(f"sweep --params {params} --out {tmp_path / 'out.yaml'}")
    assert not [line for line in again.err.splitlines() if line.startswith("trial")]
    assert "best own" in again.out
    assert (tmp_path / "out.yaml").read_text() == params.read_text()
    _check_mlflow(town, said)
    assert town.git("status", "--porcelain") == ""


def _check_mlflow(town: Town, said: dict[str, object]) -> None:
    script = """
import json, sys, mlflow
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/.tuneline/mlflow.db")
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("desk").experiment_id
parent = client.search_runs([experiment], f"tags.`tuneline.run` = '{sys.argv[2]}'")[0]
children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
print(json.dumps({
    "children": sorted((c.data.tags["tuneline.trial"], c.data.tags["tuneline.trial.ended"], c.info.status) for c in children),
    "losses": sorted(c.data.metrics["final_eval_loss"] for c in children), "best": parent.data.metrics["best_eval_loss"],
    "rates": len({c.data.params["train.learning_rate"] for c in children}), "status": parent.info.status,
}))
"""
    command = [sys.executable, "-c", script, str(town.root), str(said["name"])]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert seen["children"] == [[str(number), "finished", "FINISHED"] for number in range(3)]
    assert seen["best"] == min(seen["losses"])
    assert seen["rates"] == 3
    assert seen["status"] == "FINISHED"


def test_there_is_nothing_to_try_and_nothing_to_try_it_on(town: Town, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    assert "sweep.space" in town(f"sweep --params {tmp_path / 'params.yaml'}", expect=2).err
    other = PARAMS.replace("name: desk", "name: nobody") + SPACE.format(trials=1)
    (tmp_path / "params.yaml").write_text(other)
    assert "tuneline run makes one" in town(f"sweep --params {tmp_path / 'params.yaml'}", expect=2).err


def test_a_wrong_space_is_said_with_its_line(tmp_path: Path, town: Town) -> None:
    path = _params(tmp_path, 1)
    path.write_text(path.read_text().replace("rank:  {choices", "rnk: {choices").replace("rank: {choices", "rnk: {choices"))
    refused = town(f"sweep --params {path}", expect=2).err
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "rnk" in text)
    assert f"params.yaml:{line}: sweep.space.rnk: unknown key 'rnk'; did you mean rank?" in refused
