"""The flow that looks at what a model was asked and answered since its last look; how is pipeline/monitoring.py's to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.tasks import do, page_link, show_links, show_table
from pipeline.monitoring import watch
from pipeline.wiring import World, read_params


@flow(name="monitor", flow_run_name="monitor {name}", persist_result=False, validate_parameters=False)
def monitor_flow(name: str, params_file: str) -> Any:
    """Look once for the model `name` of a params file; returns a Watched. An alarm is told, and is no failure of the flow."""
    world, params = World.here(), read_params(Path(params_file))
    watched = do("look at traffic", lambda: watch(world, params))
    if watched.reports:
        rows = [
            {"release": report.release, "window": report.window, "fired": ", ".join(m.what for m in report.fired) or "-"}
            for report in watched.reports
        ]
        show_table(f"{name}-windows", "windows", rows)
        show_links(f"{name}-monitor", f"{name}: what was seen", {"page": page_link(watched.page)})
    said = f"{len(watched.reports)} windows, {len(watched.alarms)} alarms stand"
    return Completed(name="Alarm" if watched.alarms else "Quiet", message=said, data=watched)
