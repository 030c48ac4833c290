"""Ray as the engine, seen from Tuneline's own process: what is checked before any work, and how work is handed to the gateway.

Ray is not imported here: a process of its own (ray_gateway.py) is its driver, one for each work, killed with it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pipeline.backends.ray_crew import FarCrew
from pipeline.backends.ray_driver import Gateway, handing_on_sigterm, listen
from pipeline.domain.tuning import Objective
from pipeline.errors import Misuse, TryLater
from pipeline.modeling.job import Job, Tuned
from pipeline.modeling.parallel.alike import library_versions
from pipeline.modeling.parallel.relay import JOB, TUNED
from pipeline.params.compute import ComputeParams
from pipeline.ports import Progress, Tracker

_PATIENCE_OF_SUMS = 2 * 24 * 3600
"""Seconds that a worker waits for the others in a sum: they may write or measure meanwhile. Ray looks after those that died."""


class RayEngine:
    """An existing Ray cluster. Implements ports.Engine. state: the project's state folder, which all nodes see for trainings."""

    def __init__(self, compute: ComputeParams, address: str | None, token: SecretStr | None, *, state: Path) -> None:
        self._compute, self._address, self._token, self._folder = compute, address, token, state / "ray"

    @property
    def workers(self) -> int:
        return self._compute.workers

    @property
    def from_rows(self) -> int:
        return self._compute.from_rows

    @property
    def made_by(self) -> Mapping[str, str]:
        device = "cuda" if self._compute.gpus else "cpu"
        return {"device": device, "threads": str(self._threads), "workers": f"ray {self.workers}", **library_versions()}

    def check(self) -> None:
        """Raise Misuse where something is missing, TryLater where the cluster's head does not answer."""
        where = "compute.engine: ray"
        if importlib.util.find_spec("ray") is None:
            raise Misuse(
                "Ray is not installed here", where=where, fix="pip install 'tuneline[ray]', or let compute.engine be local"
            )
        if not self._address:
            fix = "set TUNELINE_RAY_ADDRESS to HOST:PORT of its head, or let compute.engine be local"
            raise Misuse("nobody says where the Ray cluster is", where=where, fix=fix)
        host, colon, port = self._address.rpartition(":")
        if not colon or not host or not port.isdigit() or "/" in host or not 0 < int(port) < 1 << 16:
            fix = "write HOST:PORT of the head (ray:// addresses, which lose work when a connection does, are not taken)"
            raise Misuse(f"{self._address!r} is no address of a Ray cluster", where="TUNELINE_RAY_ADDRESS", fix=fix)
        if self._token is None or not self._token.get_secret_value().strip():
            fix = "start its nodes with RAY_AUTH_MODE=token and a RAY_AUTH_TOKEN, and set TUNELINE_RAY_TOKEN to the same"
            raise Misuse("there is no token for the Ray cluster; one without runs anybody's code", where=where, fix=fix)
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            fix = "see that the cluster runs (ray status) and that this machine may reach it"
            raise TryLater(f"the head of the Ray cluster does not answer: {error}", where=self._address, fix=fix) from None

    def crew(self, job: Callable[[Any], Any], *, at_least: int | None = None) -> FarCrew:
        worth = int(self._compute.from_mib * (1 << 20)) if at_least is None else at_least
        return FarCrew(job, self._compute.workers, worth, lambda: self._start("lend", self._order()))

    def tune(self, job: Job, *, tracker: Tracker, progress: Progress) -> Tuned:
        """See ports.Engine. SIGTERM lets the workers stop after a checkpoint: TryLater."""
        self.check()
        workers = 1 if job.objective is Objective.PPO else self._compute.workers
        progress(f"starting {workers} workers on Ray", 0, 0)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        storage = tempfile.mkdtemp(prefix="training-", dir=self._folder)
        order = self._order() | {
            "job": JOB.dump_python(_absolute(job), mode="json"),
            "run_id": tracker.run_id,
            "workers": workers,
            "threads": self._threads,
            "storage": storage,
            "timeout": _PATIENCE_OF_SUMS,
            "log_level": logging.getLogger().getEffectiveLevel(),
        }
        gateway = self._start("tune", order)
        try:
            with handing_on_sigterm(gateway) as stop:
                said = listen(gateway, stop, tracker, progress)
        finally:
            gateway.end()
            shutil.rmtree(storage, ignore_errors=True)
        return TUNED.validate_json(json.dumps(said))

    @property
    def _threads(self) -> int:
        return max(1, int(self._compute.cpus))

    def _order(self) -> dict[str, Any]:
        return {"address": self._address, **self._compute.model_dump(mode="json")}

    def _start(self, mode: str, order: dict[str, Any]) -> Gateway:
        self.check()
        token = self._token.get_secret_value() if self._token else ""
        return Gateway(mode, order, token, self._folder)


def _absolute(job: Job) -> Job:
    """Workers stand elsewhere than we do."""
    return dataclasses.replace(
        job,
        base=job.base.absolute(),
        train=tuple(path.absolute() for path in job.train),
        held=tuple(path.absolute() for path in job.held),
        start=job.start.absolute() if job.start else None,
        rewards={name: path.absolute() for name, path in job.rewards.items()},
        cache=job.cache.absolute(),
        folder=job.folder.absolute(),
        adapter=job.adapter.absolute(),
        curves=job.curves.absolute(),
    )
