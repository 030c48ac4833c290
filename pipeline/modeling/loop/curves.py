"""The curves of one training: kept point by point, sent to the tracker as they come, carried through a resume.

Points are part of each checkpoint, so a resumed training knows those from before. What a tracked run has been sent is noted
beside the checkpoints: a resume into the same run sends nothing twice, one into a new run sends everything once. No model
enters here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.domain.record import canonical_json, digest_value
from pipeline.ports import Tracker

Point = dict[str, float]


class Curves:
    """Loss, learning rate, gradient norm and measures every `every` steps, evaluation when it happens, alarms.

    points: in order; each has `step` and numbers. Losses and measures of a point are means over the steps since the last one.
    eval_loss: the last one. last: the last value of each measure, of both splits, that is not the loss itself.
    """

    def __init__(self, tracker: Tracker, folder: Path, *, every: int) -> None:
        self.points: list[Point] = []
        self.eval_loss: float | None = None
        self.last: dict[str, float] = {}
        self._tags: dict[str, str] = {}
        self._tracker = tracker
        self._every = every
        self._pending: list[Point] = []
        self._latest: Point = {}
        self._sum = 0.0
        self._steps = 0
        self._sent_file = folder / f"sent-{digest_value(tracker.run_id)[:16]}.json"
        self._sent = _read_count(self._sent_file)

    @property
    def train_loss(self) -> float:
        """Mean loss over all steps."""
        return self._sum / max(self._steps, 1)

    def loss_at(self, step: int) -> float | None:
        """The loss that training had when it came to `step`: of the last point up to there, else the first; None without any."""
        known = [point for point in self.points if "loss" in point]
        before = [point for point in known if point["step"] <= step]
        chosen = before[-1] if before else known[0] if known else None
        return None if chosen is None else chosen["loss"]

    def step(self, step: int, *, loss: float, learning_rate: float, grad_norm: float, measures: Mapping[str, float]) -> None:
        """Note one optimizer step; it ends in a point every so often."""
        self._pending.append({**measures, "loss": loss})
        self._latest = {"step": step, "learning_rate": learning_rate, "grad_norm": grad_norm}
        self._sum += loss
        self._steps += 1
        if step % self._every == 0:
            self.flush()

    def flush(self) -> None:
        """Make a point of the steps noted since the last one; called after the last step."""
        if not self._pending:
            return
        names = dict.fromkeys(name for noted in self._pending for name in noted)
        values = {name: [noted[name] for noted in self._pending if name in noted] for name in names}
        means = {name: math.fsum(some) / len(some) for name, some in values.items()}
        self._pending = []
        self.last |= {name: mean for name, mean in means.items() if name != "loss"}
        self._add({**self._latest, **means})

    def evaluated(self, step: int, measures: Mapping[str, float]) -> None:
        """Note an evaluation after `step`."""
        self.eval_loss = measures.get("eval_loss", self.eval_loss)
        self.last |= {name: value for name, value in measures.items() if name != "eval_loss"}
        self._add({"step": step, **measures})

    def alarm(self, step: int, name: str, sentence: str) -> None:
        """Note an alarm: a point for the curve, a tag for people."""
        self._add({"step": step, name: 1.0})
        self._tag({f"tuneline.alarm.{name}": sentence})

    def state(self) -> dict[str, Any]:
        """All that a resume needs, as JSON values."""
        return {
            "points": self.points,
            "pending": self._pending,
            "latest": self._latest,
            "last": self.last,
            "tags": self._tags,
            "sum": self._sum,
            "steps": self._steps,
            "eval_loss": self.eval_loss,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where `state` left off, and send a run that is new to it what it has missed."""
        self._pending, self._latest = list(state["pending"]), state["latest"]
        self._sum, self._steps = state["sum"], state["steps"]
        self.eval_loss, self.last = state["eval_loss"], dict(state["last"])
        for point in state["points"]:
            self._add(point)
        self._tag(state["tags"])

    def write(self, path: Path) -> None:
        """Write all points, one JSON object a line."""
        path.write_text("".join(canonical_json(point) + "\n" for point in self.points), encoding="utf-8")

    def _tag(self, tags: Mapping[str, str]) -> None:
        if tags:
            self._tags |= tags
            self._tracker.set_tags(tags)

    def _add(self, point: Point) -> None:
        self.points.append(point)
        if len(self.points) <= self._sent:  # a step done again after a resume; this run has its point already
            return
        self._tracker.log_metrics({k: v for k, v in point.items() if k != "step"}, step=int(point["step"]))
        self._sent = len(self.points)
        self._sent_file.parent.mkdir(parents=True, exist_ok=True)
        self._sent_file.write_text(str(self._sent), encoding="ascii")


def _read_count(path: Path) -> int:
    try:
        return int(json.loads(path.read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError):
        return 0
