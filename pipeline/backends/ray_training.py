"""One training stage by Ray Train, begun again from its last checkpoint when workers are lost, with as many as there then are.

Runs in the gateway's process. How many workers there are is decided here, before each beginning, and not by Ray Train's own
elastic policy: that reserves what a killed driver held for three more minutes, in which the next run would get nobody.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from pipeline.backends.ray_actors import Switchboard
from pipeline.backends.ray_frames import hand_on
from pipeline.backends.ray_hands import no_room
from pipeline.errors import Broken, TryLater, TunelineError
from pipeline.modeling.parallel.alike import environment
from pipeline.modeling.parallel.far import tune_far
from pipeline.modeling.parallel.relay import FAILED, RESULT, Sender

GRACE = 5.0
"""Seconds that other workers have to say what they failed of, once one has."""
SETTLING = 10.0
"""Seconds that a beginning waits for all workers before it takes fewer: what a dead worker held is free only after a while."""
STOPPING = 900.0
"""Seconds that workers have for the checkpoint after SIGTERM."""
_LOOK_EVERY = 0.3


def train(order: dict[str, Any], orders: BinaryIO, answers: BinaryIO) -> None:
    """Train, and hand on what the workers say as lines of relay.py. A line `stop` in `orders` lets them stop, its end ends us."""
    board = ray.remote(Switchboard).options(num_cpus=0, label_selector=_here()).remote()
    rounds, stop = Rounds(order, board), threading.Event()
    threading.Thread(target=rounds.run, daemon=True).start()
    threading.Thread(target=_hear, args=(orders, board, stop), daemon=True).start()
    sender, groups = Sender(answers, speaks=True), 0
    failed_at: float | None = None
    stopped_at: float | None = None
    while True:
        ended = rounds.ended
        begun, count, silent, lines = ray.get(board.take.remote(), timeout=60)
        if begun > groups:
            if groups:
                told = f"workers were lost: the training goes on from its last checkpoint with {count} (beginning {begun})"
                sender.send("log", __name__, logging.WARNING, told)
                sender.send("set_tags", {"tuneline.ray.beginnings": str(begun), "tuneline.ray.workers": str(count)})
            groups, failed_at = begun, None
        for rank, line in lines:
            said = json.loads(line)
            if said[0] == FAILED:
                failed_at = failed_at or time.monotonic()
                hand_on(answers, rank, said)
                continue
            answers.write(line)
            answers.flush()
            if said[0] == RESULT:
                return
        if failed_at is not None and time.monotonic() - failed_at > GRACE:
            return  # the parent has heard of what, and chooses
        if ended is not None:
            raise ended
        if stop.is_set():
            stopped_at = stopped_at or time.monotonic()
            if not groups or time.monotonic() - stopped_at > STOPPING:
                raise TryLater("stopped by SIGTERM before the training could make a checkpoint", fix="run again")
        if silent > order["patience"] + SETTLING:
            raise no_room(order["workers"], order["patience"])
        time.sleep(_LOOK_EVERY)


class OwnTrainer(TorchTrainer):  # type: ignore[misc]
    """Without Ray Train's cleaner of placement groups: an actor that outlives its run where no dashboard answers. Ours
    go with the driver's job.
    """

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if type(one).__name__ != "PlacementGroupCleanerCallback"]


class Rounds:
    """Begins the training, and begins it again when workers are lost. ended: why no more, None while it may."""

    def __init__(self, order: dict[str, Any], board: Any) -> None:
        self._order, self._board = order, board
        self.ended: TunelineError | None = None

    def run(self) -> None:
        """As often as `attempts` allows. Having no room costs no attempt: how long that may last is the caller's to say."""
        left = self._order["attempts"]
        while self.ended is None:
            try:
                self._trainer(self._count()).fit()
                self.ended = Broken("the workers of the training ended without a result")
            except Exception as error:
                traceback.print_exception(error)
                if "Startup" in type(getattr(error, "controller_failure", None)).__name__:
                    continue
                left -= 1
                if left < 0:
                    self.ended = gave_up(error)

    def _count(self) -> int:
        """With how many workers to begin: all, or those that there is room for; all too where even the fewest find none, since
        a cluster that grows by demand must see it."""
        order = self._order
        least, since = min(order["least"], order["workers"]), time.monotonic()
        while (room := rooms(order["cpus"], order["gpus"])) < order["workers"] and time.monotonic() - since < SETTLING:
            time.sleep(0.5)
        count: int = room if least <= room < order["workers"] else order["workers"]
        return count

    def _trainer(self, count: int) -> OwnTrainer:
        order = self._order
        # A node that has just died may still be counted: then nobody comes, and it is counted again.
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = (
            "30" if order["least"] < order["workers"] else str(order["patience"])
        )
        config = {name: order[name] for name in ("job", "run_id", "threads", "gpus", "log_level")}
        return OwnTrainer(
            tune_far,
            train_loop_config={**config, "board": self._board, "environment": dict(environment())},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if order["gpus"] else "gloo", timeout_s=int(order["timeout"])),
            scaling_config=ScalingConfig(
                num_workers=count,
                use_gpu=bool(order["gpus"]),
                resources_per_worker={"CPU": order["cpus"]} | ({"GPU": order["gpus"]} if order["gpus"] else {}),
                placement_strategy="SPREAD",
            ),
            run_config=RunConfig(
                name="training",
                storage_path=str(Path(order["storage"])),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )


def rooms(cpus: float, gpus: float) -> int:
    """How many workers the nodes have room for now."""
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    found = 0
    for node in alive:
        has = free.get(node, {})
        fit = has.get("CPU", 0.0) // cpus
        found += int(min(fit, has.get("GPU", 0.0) // gpus) if gpus else fit)
    return found


def gave_up(error: BaseException) -> TunelineError:
    """Why it is not begun once more. Workers that are lost are no error of the training's; what they raised is."""
    kinds = [type(one).__name__ for one in getattr(error, "worker_failures", {}).values()]
    lost = [kind for kind in kinds if kind.endswith(("DiedError", "UnavailableError"))]
    said = " ".join(str(error).split())[-600:]
    if lost:
        fix = "run again, and it goes on from the last checkpoint; raise compute.attempts where machines come and go"
        return TryLater(f"workers were lost more often than compute.attempts allows: {said}", where="the Ray cluster", fix=fix)
    return Broken(f"the training failed on the cluster: {said}", where="the Ray cluster", fix="see Ray's logs of the node")


def _here() -> dict[str, str]:
    """This process' node: what stands there lives as long as we do."""
    return {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}


def _hear(orders: BinaryIO, board: Any, stop: threading.Event) -> None:
    while line := orders.readline():
        if line.strip() == b"stop":
            board.stop.remote()
            stop.set()
    os._exit(4)  # the parent is gone
