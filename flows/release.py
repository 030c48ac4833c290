"""Promote and roll back as flows: the same step functions as the command line, for people who act from the Prefect UI
(`tuneline schedule` serves both) and for policies. The command line itself does without Prefect: an emergency needs no server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.tasks import do
from pipeline.deeds import move_back, move_to
from pipeline.domain.release import ReleaseRecord
from pipeline.wiring import World, read_params


@flow(name="promote", flow_run_name="promote {version} to {to}", persist_result=False)
def promote_flow(params_file: str, version: str, to: str, by: str, reason: str) -> dict[str, Any]:
    """Give the stage `to` to a version of the params file's model; returns the ReleaseRecord as a dict."""
    world, params = World.here(), read_params(Path(params_file))
    return _plain(do(f"promote {version} to {to}", lambda: move_to(world, params, version, to, by=by, reason=reason)))


@flow(name="rollback", flow_run_name="roll {stage} back", persist_result=False)
def rollback_flow(
    params_file: str, stage: str, by: str, reason: str, to: str | None = None, leaving: str | None = None
) -> dict[str, Any]:
    """Give a stage back to the version that held it before, or to `to`; returns the ReleaseRecord as a dict."""
    world, params = World.here(), read_params(Path(params_file))
    # The version to leave is read once, so that a retry after an unknown outcome finds its work done and pops no further.
    left = leaving or world.ledger.holder(params.model.name, stage)
    record = do(f"roll {stage} back", lambda: move_back(world, params, stage, by=by, reason=reason, to=to, leaving=left))
    return _plain(record)


def _plain(record: ReleaseRecord) -> dict[str, Any]:
    return record.model_dump(mode="json")
