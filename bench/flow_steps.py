"""The same steps without a flow: plain functions on a copy of a finished run's folder. Used by bench/flow.py and its peer.

    python bench/flow_steps.py FOLDER STEP…      # prints JSON: seconds of each step, imports counted apart

FOLDER holds what the run had before its first stage; params.yaml lies in it. Nothing is committed, tracked or registered.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

STAGES = ("validate", "drift", "curate", "split", "train", "evaluate")


class Untracked:
    """A Tracker that keeps nothing."""

    run_id = "bench"

    def __getattr__(self, name: str) -> object:
        return lambda *_, **__: None


def run(folder: Path, names: tuple[str, ...]) -> dict[str, float]:
    """Seconds that each step's own function takes, what it imports at its first call apart as `imports`."""
    import pipeline.modeling.training
    import pipeline.steps.evaluate  # noqa: F401
    from pipeline.stages import run_step
    from pipeline.wiring import World, read_params
    from pipeline.workspace import Workspace

    world, workspace = World.here(folder), Workspace(folder)
    params = read_params(workspace.params)
    taken: dict[str, float] = {}
    for name in names:
        begun = time.perf_counter()
        run_step(world, name, workspace, params, Untracked())  # type: ignore[arg-type]
        taken[name] = time.perf_counter() - begun
    return taken


def main() -> None:
    begun = time.perf_counter()
    import great_expectations  # noqa: F401
    import torch  # noqa: F401
    import transformers.trainer  # noqa: F401

    imports = time.perf_counter() - begun
    taken = run(Path(sys.argv[1]).absolute(), tuple(sys.argv[2:]))
    print(json.dumps({**taken, "imports": imports}))


if __name__ == "__main__":
    main()
