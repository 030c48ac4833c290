"""Deployments of one model, in code: retrain by its schedule, promote and rollback to be started by a person, the approval that
waits for people, the monitor where params have one. Served from this machine, or handed to a pool that workers draw from.

Prefect may start a tick twice, late, or not at all, when a deployment is made anew or a server restarts: which tick a run stands
for, and that each is done once, is the run book's to say (pipeline/ticking.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import serve as serve_deployments
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Cron, Interval

from flows.approval import approval_deployment
from flows.release import promote_flow, rollback_flow
from flows.retrain import retrain
from pipeline.errors import Misuse
from pipeline.params import Params
from pipeline.terminal import say
from pipeline.ticking import zone_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def serve(params: Params, params_file: Path) -> None:
    """Serve until stopped. Raises Misuse for a schedule that Prefect cannot read."""
    made = list(_deployments(params, params_file))
    say(f"{params.model.name}: retrain {_when(params)}; stop with Ctrl-C")
    serve_deployments(*made)


def deploy(params: Params, params_file: Path, pool: str, root: Path) -> list[str]:
    """Hand the deployments to a work pool of processes, which is made if it is not there; returns their names. Doing it again
    changes what there is. root: the folder that workers run them in."""
    _make_pool(pool)
    names = []
    for made in _deployments(params, params_file):
        file, _, function = str(made.entrypoint).rpartition(":")
        # By module: a worker imports it from the folder it works in, or from where Tuneline is installed.
        made.entrypoint = f"flows.{Path(file).stem}.{function}"
        made.job_variables = {"working_dir": str(root), "command": f"{sys.executable} -m prefect.engine"}
        made.apply(work_pool_name=pool)
        names.append(str(made.name))
    return names


def work(pool: str, limit: int | None) -> None:
    """Become a worker of a pool: draw runs and start each in a process of its own, until stopped. Does not return."""
    _make_pool(pool)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    os.execv(sys.executable, [*command, *(["--limit", str(limit)] if limit else [])])


def _deployments(params: Params, params_file: Path) -> Iterator[Any]:
    model, fixed = params.model.name, {"params_file": str(params_file)}
    named = {"name": model, **fixed}
    # With the run goes the schedule that it was woken by, which may be another than the file's by then.
    woken_by = params.schedule.model_dump(mode="json", include={"cron", "timezone", "interval"})
    parameters = {**named, "schedule": woken_by}
    yield retrain.to_deployment(f"{model}-scheduled", schedules=[_schedule(params)], parameters=parameters)
    yield promote_flow.to_deployment(f"{model}-promote", parameters=fixed)
    yield rollback_flow.to_deployment(f"{model}-rollback", parameters=fixed)
    yield approval_deployment(model, params_file, params)
    monitor = getattr(params, "monitor", None)
    if monitor is not None and monitor.cron:
        from flows.monitor import monitor_flow

        zone = params.schedule.timezone
        yield monitor_flow.to_deployment(f"{model}-monitor", schedules=[Cron(monitor.cron, zone)], parameters=named)


def _schedule(params: Params) -> Any:
    zone_of(params.schedule)
    if params.schedule.interval is not None:
        return Interval(timedelta(seconds=params.schedule.interval), anchor_date=_EPOCH)
    cron, timezone = params.schedule.cron, params.schedule.timezone
    try:
        return Cron(cron, timezone)
    except ValueError as error:
        fix = "schedule.cron, such as '0 3 * * *'"
        raise Misuse(f"the schedule cannot be read: {error}", where=f"{cron!r} {timezone}", fix=fix) from error


def _when(params: Params) -> str:
    asked = params.schedule
    return f"every {asked.interval:g} s" if asked.interval is not None else f"on {asked.cron!r} ({asked.timezone})"


def _make_pool(pool: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            there = client.read_work_pool(pool)
        except ObjectNotFound:
            with suppress(ObjectAlreadyExists):
                client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            return
    if there.type != "process":
        raise Misuse(f"the work pool {pool} is one of {there.type}, not of processes", fix="give another name")
