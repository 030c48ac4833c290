"""What the flow costs over its steps: a whole retrain, a run and a tick with nothing to do, a task; beside Metaflow.

    python bench/flow.py [--turns 3]

Works in a checkout of its own below a temporary folder, on the helpdesk example. Each turn takes a fresh batch through
`tuneline run`, then the stages of that very run once more as plain functions in one warm process (their own compute), and once as
a Metaflow flow. Aims: a retrain within 5 % or 10 s of its steps' own compute, a tick with nothing to do within 3 s.
Metaflow (`pip install metaflow`, the extra `bench`) starts a process a step; ZenML's pins do not go with ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from bench.flow_steps import STAGES  # noqa: E402
from tests.checkouts import make_checkout  # noqa: E402

TASKS = 100
_TASKS = """
import sys, time
from pipeline.wiring import World
from flows.server import use_server
use_server(World.here().project, None)
from prefect import flow
from flows.tasks import do
@flow(name="nothing", persist_result=False)
def nothing(count):
    begun = time.perf_counter()
    for number in range(count):
        do(f"nothing {number}", lambda: None)
    return time.perf_counter() - begun
print(nothing(int(sys.argv[1])))
"""
_TICK = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pipeline.ticking import Call, in_turn, latest_of
from pipeline.wiring import World, read_params
params = read_params(Path("params.yaml"))
at = latest_of(params.schedule)(datetime.now(UTC))
call = Call(at, sys.argv[1], scheduled=True)
print(in_turn(World.here(), params, call, None, now=lambda: at + timedelta(seconds=1)).ending)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with tempfile.TemporaryDirectory() as folder:
        project = make_checkout(Path(folder) / "project", (ROOT / "params.yaml").read_text())
        shutil.copytree(ROOT / "examples" / "helpdesk", project / "examples" / "helpdesk")
        try:
            measure(project, turns)
        finally:
            tuneline(project, "down")


def measure(project: Path, turns: int) -> None:
    tuneline(project, "up")
    rows: list[dict[str, float]] = []
    for turn in range(1, turns + 1):
        batch(project, turn)
        rows.append(one_turn(project, Path(project.parent) / f"turn{turn}"))
        print(json.dumps({name: round(value, 2) for name, value in rows[-1].items()}), flush=True)
    quiet = [tuneline(project, "run")[0] for _ in range(max(3, turns))]
    idle = [python(project, "-c", _TICK, f"bench-{number}") for number in range(max(3, turns))]
    if any("nothing new" not in said for _, said in idle):
        sys.exit(f"a tick found something to do: {idle}")
    per_task = float(python(project, "-c", _TASKS, str(TASKS))[1].split()[-1]) / TASKS
    print("\n| what | median | of the steps' own compute |\n| --- | --- | --- |")
    own = statistics.median(row["own"] for row in rows)
    for name, said in (
        ("own", "the stages as plain functions, one warm process"),
        ("imports", "what they import"),
        ("tuneline", "tuneline run, server up: data in, stages, gate, register, push"),
        ("others", "  of that in other steps: ingest, gate, report, register, push"),
        ("beside", "  of that in no step: start, Prefect, git"),
        ("metaflow", "Metaflow, the same stages"),
    ):
        values = [row[name] for row in rows if name in row]
        if values:
            print(f"| {said} | {statistics.median(values):.1f} s | {statistics.median(values) / own:.2f} |")
    print(f"| a tick with nothing to do, a process of its own | {statistics.median(took for took, _ in idle):.1f} s | |")
    print(f"| a run by hand with nothing new | {statistics.median(quiet):.1f} s | |")
    print(f"| a Prefect task that does nothing | {1000 * per_task:.0f} ms | |")
    over = statistics.median(row["tuneline"] - row["own"] - row["imports"] - row["others"] for row in rows)
    whole = statistics.median(row["tuneline"] for row in rows)
    print(f"\nover the compute of all steps, and imports: {over:.1f} s, {over / whole:.1%} of the whole")


def one_turn(project: Path, scratch: Path) -> dict[str, float]:
    whole, said = tuneline(project, "run")
    steps = [(name, float(seconds)) for name, seconds in re.findall(r"^  (\S.*) (\d+\.\d) s$", said, flags=re.M)]
    inside = sum(seconds for name, seconds in steps if name in STAGES)
    others = sum(seconds for name, seconds in steps if name not in STAGES)
    found = {"tuneline": whole, "stages": inside, "others": others, "beside": whole - inside - others}
    run = Path(tuneline(project, "worktree")[1].splitlines()[-1])
    copy = prepared(run, scratch / "plain")
    plain = json.loads(python(project, str(HERE / "flow_steps.py"), str(copy), *STAGES)[1].splitlines()[-1])
    found["imports"] = plain.pop("imports")
    found["own"] = sum(plain.values())
    if importlib.util.find_spec("metaflow"):
        copy = prepared(run, scratch / "metaflow")
        home = {"METAFLOW_HOME": str(scratch), "USERNAME": "bench", "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(scratch)}
        command = [str(HERE / "flow_metaflow.py"), "--quiet", "--datastore", "local", "--metadata", "local", "run"]
        found["metaflow"] = python(project, *command, "--folder", str(copy), **home)[0]
    return found


def prepared(run: Path, copy: Path) -> Path:
    """A copy of a run's folder as it was before its first stage, in a git repository as the stages expect."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("work", ".git"))
    subprocess.run(["git", "init", "-q", str(copy)], check=True)
    author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", "-C", str(copy), *author, "commit", "-qm", "start", "--allow-empty"], check=True)
    return copy


def batch(project: Path, turn: int) -> None:
    target = project / "inbox" / f"{turn:04}.jsonl"
    target.parent.mkdir(exist_ok=True)
    maker = ["examples/helpdesk/make_batches.py", "--week", str(1 + turn % 2), "--seed", str(turn), "--out", str(target)]
    subprocess.run([sys.executable, *maker], cwd=project, check=True)


def tuneline(project: Path, command: str) -> tuple[float, str]:
    return python(project, "-m", "pipeline", *command.split())


def python(project: Path, *words: str, **environment: str) -> tuple[float, str]:
    """Seconds that it took, and what it said on both streams, errors first."""
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **quiet, "PYTHONPATH": str(project), **environment}
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, env=environment)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(words)[:200]} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.perf_counter() - begun, done.stderr + done.stdout


if __name__ == "__main__":
    main()
