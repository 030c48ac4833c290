"""The main job as a user types it: every command in a process of its own, real stores, a real small model.

The tests share one project (conftest.town) and leave it as they found it, or work on a project of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.story_town import Town


def test_the_users_checkout_is_left_alone(town: Town) -> None:
    assert town.git("status", "--porcelain") == ""
    assert town.git("branch", "--list", "--all") == "* main"
    assert town.git("tag", "--list", "*/run/*") == "tuneline/desk/run/0001"
    assert town.git("log", "--oneline", "main").count("\n") == 0


def test_with_nothing_new_nothing_is_done_and_dvc_agrees(town: Town) -> None:
    outcome = town("run --json").json
    assert outcome["ending"] == "nothing new"
    assert "nothing was trained" in outcome["facts"][0]
    assert town.git("tag", "--list", "*/run/*") == "tuneline/desk/run/0001"
    folder = town("worktree").out.strip()
    dvc = str(Path(sys.executable).parent / "dvc")
    said = subprocess.run([dvc, "status"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "up to date" in said
    said = subprocess.run([dvc, "repro"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "Running stage" not in said
    assert "didn't change" in said


def test_the_registered_model_answers_in_a_plain_script_and_peft_loads_it(town: Town, tmp_path: Path) -> None:
    script = """
import sys, mlflow, pandas, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/.tuneline/mlflow.db")
model = mlflow.pyfunc.load_model("models:/desk@production")
answers = model.predict(pandas.DataFrame({"prompt": ["Where is my order A-10001?", "Cancel order A-10002"]}))
print("answers:", len(answers), "named", list(answers.columns))
print("code of", sys.modules["pipeline"].__file__)
base = AutoModelForCausalLM.from_pretrained(f"{sys.argv[1]}/examples/base", dtype=torch.float32)
tokens = torch.tensor([[5, 6, 7]])
before = base(tokens).logits
tuned = PeftModel.from_pretrained(base, sys.argv[2])
print("differs:", bool((tuned(tokens).logits - before).abs().max() > 1e-4))
"""
    adapter = next((town.root / ".tuneline" / "artifacts").rglob("adapter_model.safetensors")).parent
    command = [sys.executable, "-c", script, str(town.root), str(adapter)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "answers: 2 named ['answer']" in done.stdout
    assert f"code of {town.root}/.tuneline/artifacts" in done.stdout, "the code that was measured, not what is installed"
    assert "differs: True" in done.stdout


def test_ask_names_the_release_that_answers(town: Town) -> None:
    answer = town("ask 'Where is my order A-10001?' --json").json
    assert answer["release"] == "desk@1"
    assert isinstance(answer["answer"], str)


def test_what_is_in_mlflow(town: Town) -> None:
    script = """
import json, sys, mlflow
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/.tuneline/mlflow.db")
client = mlflow.MlflowClient()
version = client.get_model_version_by_alias("desk", "production")
run = client.get_run(version.run_id)
print(json.dumps({
    "loss": len(client.get_metric_history(run.info.run_id, "loss")),
    "rate": len(client.get_metric_history(run.info.run_id, "learning_rate")),
    "system": [m for m in run.data.metrics if m.startswith("system/")],
    "scores": [m for m in run.data.metrics if "exact_match" in m],
    "params": run.data.params, "tags": dict(version.tags), "inputs": [d.dataset.name for d in run.inputs.dataset_inputs],
    "files": sorted(f.path for f in client.list_artifacts(run.info.run_id, "reports")), "status": run.info.status,
}))
"""
    done = subprocess.run([sys.executable, "-c", script, str(town.root)], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert seen["status"] == "FINISHED"
    assert seen["loss"] == seen["rate"] == 4  # 8 steps, logged every 2
    assert seen["system"]
    assert seen["scores"]
    assert seen["inputs"]
    assert {"reports/report.html", "reports/validation.html"} <= set(seen["files"])
    assert {"tuneline.decision", "tuneline.training", "tuneline.adapter"} <= set(seen["tags"])


def test_releases_history_status_and_who_held_it_when(town: Town) -> None:
    rows = town("releases --json").json
    assert [(r["version"], r["stages"]) for r in rows] == [("1", ["production"])]
    assert [e["event"]["event"] for e in town("history --json").json][:3] == ["judged", "registered", "promoted"]
    assert town("status --json").json["stages"]["production"]["version"] == "1"
    assert "version 1" in town("audit at 2100-01-01").out
    assert "nobody" in town("audit at 2001-01-01").out


def test_promoting_again_changes_nothing_and_a_rollback_without_a_past_is_refused(town: Town) -> None:
    before = town("history --json").json
    assert "already held" in town("promote 1 --to production --by bob --reason again").out
    refused = town("rollback --stage production --by bob --reason x", expect=2)
    assert "fix:" in refused.err
    assert "fix:" in town("promote 9 --to production --by bob --reason x", expect=2).err
    assert "staging, production" in town("promote 1 --to prod --by bob --reason x", expect=2).err
    assert town("history --json").json == before


def test_an_audit_verifies_and_names_each_flipped_byte(town: Town) -> None:
    assert "verified" in town("audit verify production").out
    state = town.root / ".tuneline"
    cache = town.root / ".dvc" / "cache" / "files" / "md5"
    shard = next(p for p in sorted(cache.rglob("*")) if p.is_file() and p.read_bytes()[:4] == b"PAR1")
    victims = {
        "adapter": next((state / "artifacts").rglob("adapter_model.safetensors")),
        "data shard": shard,
        "report": next((state / "artifacts").rglob("report.html")),
        "ledger": state / "ledger.db",
    }
    for what, path in victims.items():
        whole = path.read_bytes()
        mode = path.stat().st_mode
        path.chmod(0o600)
        path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
        try:
            broken = town("audit verify production", expect=None)
            assert broken.code == 1, f"{what}: {broken.out}{broken.err}"
            assert path.name in broken.out + broken.err or what in broken.out + broken.err, what
        finally:
            path.write_bytes(whole)
            path.chmod(mode)
    assert "verified" in town("audit verify production").out


def test_data_that_fails_validation_stops_the_run_and_is_not_built_upon(new_town: Callable[..., Town]) -> None:
    town = new_town()
    (town.root / "inbox").mkdir()
    (town.root / "inbox" / "one.jsonl").write_text(
        '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
    )
    outcome = town("run --json", expect=1).json
    assert outcome["ending"] == "refused by validation"
    assert any("100" in reason for reason in outcome["reasons"])
    assert town.git("tag") == "tuneline/desk/invalid/0001"
    assert Path(outcome["links"]["validation"].removeprefix("file://")).exists()
    again = town("run --json", expect=1).json
    assert (again["run"], again["ending"]) == ("desk-0002", "refused by validation")


def test_a_rebuild_of_the_first_version_gives_the_same_bytes(town: Town) -> None:
    tags, worktrees = town.git("tag"), town.git("worktree", "list")
    events = town("history --json").json
    found = town("rebuild 1 --verify --json").json
    assert found["comparable"]
    assert found["files"] == []
    assert found["adapter"] == found["recorded"]
    assert (town.git("tag"), town.git("worktree", "list"), town("history --json").json) == (tags, worktrees, events)
    assert town.git("status", "--porcelain") == ""


def test_a_release_is_exported_and_drawn(town: Town, tmp_path: Path) -> None:
    done = town(f"audit export production --to {tmp_path}/desk.tar --json").json
    assert done["version"] == "1"
    assert (tmp_path / "desk.tar").stat().st_size > 10_000
    assert "something already" in town(f"audit export production --to {tmp_path}/desk.tar", expect=2).err
    drawn = town(f"audit graph 1 --to {tmp_path}/desk.svg --openlineage {tmp_path}/events.jsonl --json").json
    assert drawn["nodes"] == 13
    assert (tmp_path / "desk.svg").read_text().startswith("<svg")
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == drawn["lines"]
    names = {c["name"] for c in town("audit verify production --json").json["checks"]}
    assert {"signature", "statement", "statement commit", "anchors"} <= names
