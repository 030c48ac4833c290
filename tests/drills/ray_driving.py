"""A training on a Ray cluster as a process of its own, for drills that kill it or what it stands on. It says what it sees.

    python tests/drills/ray_driving.py HOME STEPS

The cluster's address and token are in the environment. What it ends with is an exit code of Tuneline's.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "modeling")]

from job_kit import new_job  # noqa: E402
from modeling_kit import Remembering, build_tiny_base  # noqa: E402

from pipeline.backends.ray_engine import RayEngine  # noqa: E402
from pipeline.domain.tuning import Objective  # noqa: E402
from pipeline.errors import TunelineError  # noqa: E402
from pipeline.modeling.job import Job  # noqa: E402
from pipeline.params.compute import ComputeParams  # noqa: E402
from pipeline.settings import Settings  # noqa: E402


def job_in(home: Path, steps: int) -> Job:
    """A stage of a tiny model without dropout, so that how many workers there are moves no loss but by roundings."""
    base = home / "base"
    if not base.exists():
        build_tiny_base(base)
    often = {"max_steps": steps, "save_steps": 5, "eval_steps": 50, "logging_steps": 1, "keep_checkpoints": 2}
    return new_job(Objective.SFT, base, home, dropout=0.0, batch_size=5, learning_rate=0.001, **often)


def main() -> int:
    home, steps = Path(sys.argv[1]), int(sys.argv[2])
    settings = Settings()
    compute = ComputeParams(engine="ray", workers=2, patience=300)
    engine = RayEngine(compute, settings.ray_address, settings.ray_token, state=home / "state")

    def progress(what: str, done: int, total: int) -> None:
        print(f"{time.time():.1f} {what} {done}/{total}", flush=True)

    try:
        tuned = engine.tune(job_in(home, steps), tracker=Remembering(), progress=progress)
    except TunelineError as error:
        print(f"ended {type(error).__name__}: {error}", flush=True)
        return error.exit_code
    print(f"ended well after {tuned.steps} steps with {tuned.train_loss:.9g}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
