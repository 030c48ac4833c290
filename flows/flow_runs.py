"""Ended flow runs of one model that are old, taken out of Prefect, whose database keeps each for ever.

What Prefect noted beside them (logs, artifacts) goes with its own vacuum, which the server is told to run (infra/services.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort

_ENDED = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]
_PAGE = 200


def remove_old(model: str, *, days: float, dry: bool = False) -> int:
    """Remove those that ended more than `days` ago; returns how many. Runs of other models and of other flows stay."""
    before = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    asked = FlowRunFilter.model_validate({"state": {"type": {"any_": _ENDED}}, "end_time": {"before_": before}})
    count, offset = 0, 0
    with get_client(sync_client=True) as client:
        while page := client.read_flow_runs(flow_run_filter=asked, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=offset):
            for run in page:
                if run.parameters.get("name") != model:
                    offset += 1
                    continue
                count += 1
                if dry:
                    offset += 1
                else:
                    client.delete_flow_run(run.id)
    return count
