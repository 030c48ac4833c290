"""What a checkpoint carries from one attempt to the next, beside the weights and the Trainer's own files.

Only what is here and there is a training: when a part learns to remember something, its own `state` says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.modeling.learning.learner import Learner
from pipeline.modeling.loop.best import Best
from pipeline.modeling.loop.caps import Stopwatch
from pipeline.modeling.loop.checkpoints import CURVES, LEARNER, LOOP
from pipeline.modeling.loop.curves import Curves
from pipeline.modeling.loop.micro import Room
from pipeline.modeling.loop.trained import read_tensors, write_tensors
from pipeline.modeling.loop.watch import Watch


@dataclass(slots=True)
class Carried:
    """The parts of one training that remember. stopped_early: why it ended before its last step; None when it did not."""

    learner: Learner
    curves: Curves
    watch: Watch
    room: Room
    stopwatch: Stopwatch
    best: Best
    stopped_early: str | None = None

    def write(self, checkpoint: Path) -> None:
        """Put it all into the folder of a checkpoint."""
        write_tensors(dict(self.learner.state()), checkpoint / LEARNER)
        (checkpoint / CURVES).write_text(json.dumps(self.curves.state(), allow_nan=False), encoding="utf-8")
        state = {
            "training_rows": self.room.training,
            "evaluation_rows": self.room.evaluation,
            "seconds": self.stopwatch.seconds,
            "watch": self.watch.state(),
            "stopped_early": self.stopped_early,
            "best": self.best.digest,
        }
        (checkpoint / LOOP).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
        self.best.copy_into(checkpoint)

    def restore(self, checkpoint: Path) -> None:
        """Take up where a whole checkpoint left off."""
        state = json.loads((checkpoint / LOOP).read_text(encoding="utf-8"))
        self.curves.restore(json.loads((checkpoint / CURVES).read_text(encoding="utf-8")))
        self.learner.restore(read_tensors(checkpoint / LEARNER))
        self.room.training = min(self.room.training, state["training_rows"])
        self.room.evaluation = min(self.room.evaluation, state["evaluation_rows"])
        self.stopwatch.restore(state["seconds"])
        self.watch.restore(state["watch"])
        self.stopped_early = state["stopped_early"]
        self.best.restore(checkpoint, state["best"])
