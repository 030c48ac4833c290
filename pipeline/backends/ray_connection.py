"""Getting onto a Ray cluster, and noticing that it is gone. Runs in the gateway's process."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import Misuse, TryLater

HEAD_LOST = 15.0
"""Seconds without an answer of the head after which the cluster counts as gone."""


def connect(address: str, log: Path) -> None:
    """Make this process a driver of the cluster. log: where it prints to."""
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace=f"tuneline-{os.getpid()}")
    except Exception as error:
        said = " ".join(str(error).split())
        # Most of the time Ray says no more than that it could not connect, and why only where it prints.
        if "authentic" in f"{type(error).__name__} {said} {log.read_text(errors='replace')}".lower():
            fix = "take the token that its nodes were started with (RAY_AUTH_TOKEN there)"
            raise Misuse("the Ray cluster does not know this token", where="TUNELINE_RAY_TOKEN", fix=fix) from None
        if "ersion mismatch" in said:
            fix = "install the same Ray and Python here and there"
            raise Misuse(f"the Ray cluster runs other versions: {said[:400]}", where=address, fix=fix) from None
        if "address" in said and "raylet" in said.lower():
            fix = f"join it: ray start --address={address} --num-cpus=0"
            what = f"this machine is no node of the cluster: {said[:300]}"
            raise Misuse(what, where="TUNELINE_RAY_ADDRESS", fix=fix) from None
        what, fix = f"the Ray cluster does not let us in: {said[:400]}", "look at it with: ray status"
        raise TryLater(what, where=address, fix=fix) from None


def watch_head(address: str, tell: Callable[[BaseException], None]) -> None:
    """End when the head does not answer for HEAD_LOST seconds. Ray itself would wait a minute, and end us without a word."""
    host, _, port = address.rpartition(":")
    heard = time.monotonic()
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=3):
                heard = time.monotonic()
        except OSError as error:
            if time.monotonic() - heard > HEAD_LOST:
                tell(gone(address, str(error)))
                os._exit(3)
        time.sleep(2)


def gone(address: str, why: str) -> TryLater:
    """The cluster was there and is not any more."""
    fix = "see that it runs, and run again: what is finished stays, and a training goes on from its last checkpoint"
    return TryLater(f"the Ray cluster is gone: {why}", where=address, fix=fix)


def plainly(error: BaseException, address: str) -> BaseException:
    """The error as a run is to see it: what Ray says of a head or an actor beside us that is lost means: later."""
    from ray import exceptions

    lost = (
        exceptions.RayActorError,
        exceptions.RaySystemError,
        exceptions.LocalRayletDiedError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.RpcError,
        exceptions.GetTimeoutError,
    )
    return gone(address, " ".join(str(error).split())[:300]) if isinstance(error, lost) else error
