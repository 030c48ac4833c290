"""Times what a user waits for: the demo's story split by command and step, the no-change run, --help, and imports.

`python bench/story.py` works in a fresh clone below a temporary folder, so it neither sees nor leaves state. Ratios are to
the story's whole time; the machine's core count and load are printed, since the figures mean little without them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
IMPORTS = (
    "typer",
    "pydantic",
    "dvc.repo",
    "prefect",
    "mlflow",
    "torch",
    "transformers",
    "great_expectations",
    "peft",
    "transformers.Trainer",
)


def main() -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n")
    help_seconds = min(timed([str(BIN / "tuneline"), "--help"]) for _ in range(5))
    print(f"tuneline --help            {help_seconds:6.2f} s (best of 5)")
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        try:
            story(clone)
        finally:
            subprocess.run([sys.executable, "-m", "pipeline", "down"], cwd=clone, check=False, stdout=subprocess.DEVNULL)
    print("\nimports, each in a fresh process (s):")
    for name in IMPORTS:
        print(f"  {name:24} {import_seconds(name):6.2f}")


def story(clone: Path) -> None:
    """Run the demo and one more command, and print where the time went."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    whole = time.monotonic() - start
    if done.returncode != 0:
        sys.exit(done.stdout)
    print(f"the demo's story           {whole:6.1f} s")
    unchanged = timed([sys.executable, "-m", "pipeline", "run"], clone)
    print(f"a run with nothing new     {unchanged:6.1f} s (server up), {unchanged / whole:.2f} of the story")
    print("\nsteps of the story, all runs together:")
    for name, seconds in sorted(steps(done.stdout).items(), key=lambda item: -item[1]):
        print(f"  {name:24} {seconds:6.1f} s  {seconds / whole:5.0%}")


def steps(output: str) -> dict[str, float]:
    """Seconds by step name, from the lines that tuneline prints after each."""
    found: dict[str, float] = {}
    for name, seconds in re.findall(r"^  ([a-z][a-z -]*) (\d+\.\d) s$", output, flags=re.M):
        found[name] = found.get(name, 0.0) + float(seconds)
    return found


def timed(command: list[str], folder: Path = ROOT) -> float:
    start = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    return time.monotonic() - start


def import_seconds(name: str) -> float:
    module, _, attribute = name.rpartition(".") if name.endswith("Trainer") else (name, "", "")
    code = f"import time; t=time.monotonic(); import {module}" + (f"; {module}.{attribute}" if attribute else "")
    out = subprocess.run([sys.executable, "-c", code + "; print(time.monotonic()-t)"], capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    main()
