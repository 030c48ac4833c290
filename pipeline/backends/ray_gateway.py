"""The process that is Ray's driver, so that Tuneline's own need not be: it asks the cluster, and tells its parent what comes.

Ray ends a driver's process when the cluster's head is lost, takes its signals and prints what it likes; here that harms nobody.
It ends when the pipe that it was started with does, and Ray then ends all that it had started on the cluster. Its parent has
ray_driver.py; who works on the cluster is ray_actors.py's and modeling/parallel/far.py's.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.backends.ray_connection import connect, plainly, watch_head
from pipeline.backends.ray_frames import FATAL, OURSELVES, hand_on, read_frame, write_frame
from pipeline.errors import Broken, TunelineError
from pipeline.modeling.parallel.relay import failure


def serve(mode: str) -> None:
    """Be the gateway of one work. The first line of standard input says which; see `lend`, and ray_training.py."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the parent, which ends us
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anyone prints must not come between the messages
    orders = sys.stdin.buffer
    said = orders.readline()
    if not said:
        return
    tell, order = _teller(mode, answers), json.loads(said)
    try:
        threading.Thread(target=watch_head, args=(order["address"], tell), daemon=True).start()
        connect(order["address"], Path(order["log"]))
        if mode == "tune":
            from pipeline.backends.ray_training import train

            train(order, orders, answers)
        else:
            lend(order, orders, answers)
    except BaseException as raised:
        error = plainly(raised, order["address"])
        tell(error)
        os._exit(error.exit_code if isinstance(error, TunelineError) else 4)
    answers.flush()
    os._exit(0)  # nothing is asked of the cluster any more, and Ray cleans up behind a driver that is gone


def lend(order: dict[str, Any], orders: BinaryIO, answers: BinaryIO) -> None:
    """Hands for one job: a frame with the pickled job, then frames of calls, each answered by a frame of the same number."""
    from pipeline.backends.ray_hands import Hands

    _, job = read_frame(orders)
    lock = threading.Lock()

    def tell(number: int, answer: bytes) -> None:
        with lock:
            write_frame(answers, number, answer)

    names = ("cpus", "gpus", "attempts", "patience")
    hands = Hands(job, order["workers"], **{name: order[name] for name in names}, tell=tell)

    def hear() -> None:
        try:
            while True:
                hands.submit(*read_frame(orders))
        except EOFError:
            os._exit(0)

    threading.Thread(target=hear, daemon=True).start()
    hands.run()


def _teller(mode: str, answers: BinaryIO) -> Callable[[BaseException], None]:
    """How the parent of this mode hears of an error that ends everything."""

    def tell_line(error: BaseException) -> None:
        hand_on(answers, OURSELVES, failure(error))

    def tell_frame(error: BaseException) -> None:
        known = error if isinstance(error, TunelineError) else Broken(f"{type(error).__name__}: {error}")
        if known is not error:
            traceback.print_exception(error)
        write_frame(answers, FATAL, pickle.dumps(known))

    return tell_line if mode == "tune" else tell_frame
