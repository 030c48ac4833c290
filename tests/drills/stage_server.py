"""Runs training stages in processes that can be killed, without paying for imports each time. Not imported: started as a program.

It has imported everything once; for each order, a line of JSON on its standard input, it forks, and the child trains. What the
child tells (its pid, steps) and how it ended comes back as lines of JSON. An order may name a place at which the child kills
itself: the so-many-th call of a function, Python's or C's, within a part of the work. The same order always meets the same place.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent / "modeling")]

from job_kit import elsewhere, left, new_job, tuned  # noqa: E402

import pipeline.modeling.training  # noqa: E402, F401
from pipeline.domain.tuning import Objective  # noqa: E402

SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {"keep": "best", "neftune_alpha": 5.0},
    "dpo": {},
    "ppo": {"ppo": {"rewards": [{"rule": "not_repeating"}], "rollouts": 8, "max_new_tokens": 6, "epochs": 2, "kl_target": 0.1}},
}
WRITING = "_save_checkpoint"


class Counting:
    """Counts calls by the part of the work they fall into, and kills this process at one of them.

    Parts: `all`, `step N` (from the end of step N - 1 to that of N, but for writing) and `writing` (of all checkpoints).
    """

    def __init__(self, kill: dict[str, Any] | None) -> None:
        self.calls: Counter[str] = Counter()
        self.step = 1
        self._writing = 0
        self._part, self._number = (kill["part"], kill["number"]) if kill else ("", 0)

    def __call__(self, frame: Any, event: str, arg: Any) -> None:
        if event in ("call", "return") and frame.f_code.co_name == WRITING:
            self._writing += 1 if event == "call" else -1
        if event not in ("call", "c_call"):
            return
        for part in ("all", "writing" if self._writing else f"step {self.step}"):
            self.calls[part] += 1
            if part == self._part and self.calls[part] == self._number:
                os.kill(os.getpid(), signal.SIGKILL)


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def work(order: dict[str, Any]) -> None:
    """Train as ordered. home: of rows. folder: of this training. count: whether calls are counted."""
    objective = Objective(order["objective"])
    job = new_job(
        objective, Path(order["base"]), Path(order["home"]), **{"save_steps": 1, "keep_checkpoints": 2, **SETTINGS[objective]}
    )
    # A cache of its own, so that what fills it is killed as well.
    job = dataclasses.replace(elsewhere(job, Path(order["folder"])), cache=Path(order["folder"]) / "cache")
    counting = Counting(order.get("kill"))

    def progress(what: str, done: int, total: int) -> None:
        if what == "training":
            say(step=done)
            counting.step = done + 1

    say(pid=os.getpid())
    if order.get("kill") or order.get("count"):
        sys.setprofile(counting)
    tuned(job, progress)
    sys.setprofile(None)
    say(left=left(job), calls=counting.calls)


def main() -> None:
    say(ready=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                work(json.loads(line))
            except BaseException:
                say(failed=traceback.format_exc())
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        say(ended=os.waitstatus_to_exitcode(status))


main()
