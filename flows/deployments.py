"""Deployments of one model, served from this machine: retrain on a cron; promote and rollback to be started by a person.

When a tick's run is still going at the next tick, the next one waits its turn: the limit is one, and the model's own lock
(backends/run_folder.py) holds even against runs that were started elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from prefect import serve as serve_deployments
from prefect.schedules import Cron

from flows.release import promote_flow, rollback_flow
from flows.retrain import retrain
from pipeline.errors import Misuse
from pipeline.terminal import say


def serve(model: str, params_file: Path, cron: str, timezone: str) -> None:
    """Serve until stopped. Raises Misuse for a cron or timezone that Prefect cannot read."""
    try:
        tick = Cron(cron, timezone)
    except ValueError as error:
        raise Misuse(
            f"the schedule cannot be read: {error}", where=f"{cron!r} {timezone}", fix="schedule.cron, such as '0 3 * * *'"
        ) from error
    fixed = {"params_file": str(params_file)}
    say(f"{model}: retrain on {cron!r} ({timezone}); stop with Ctrl-C")
    serve_deployments(
        retrain.to_deployment(f"{model}-scheduled", schedules=[tick], parameters={"name": model, **fixed}, concurrency_limit=1),
        promote_flow.to_deployment(f"{model}-promote", parameters=fixed),
        rollback_flow.to_deployment(f"{model}-rollback", parameters=fixed),
    )
