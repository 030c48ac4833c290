"""One screen: what holds each stage, what runs, who is waited for, how the last runs ended, what is unhealthy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import rendering
from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show

if TYPE_CHECKING:
    from pipeline.wiring import World


def status(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """What holds each stage and why, what runs, what waits for whom, how the last runs ended, what is unhealthy."""
    world, loaded = open_world(params)
    from pipeline.overview import overview

    show(overview(world, loaded, **_of_prefect(world, loaded.model.name)), json, rendering.standing_lines)


def _of_prefect(world: World, model: str) -> dict[str, Any]:
    """What Prefect knows: where waiting versions can be answered, and runs that nobody takes up."""
    from flows.prefect_api import WAITS, PrefectApi
    from pipeline.errors import TryLater

    api = PrefectApi.of(world)
    if api is None:
        return {}
    try:
        waiting = api.flow_runs(tags=(WAITS, f"model:{model}"), states=("PAUSED",))
        late = [run for run in api.flow_runs(states=("SCHEDULED",), most=200) if run.state == "Late"]
    except TryLater as error:
        return {"unknown": (f"Prefect: {str(error).splitlines()[0]}",)}
    pages = {}
    for run in waiting:
        said = dict(tag.split(":", 1) for tag in run.tags if ":" in tag)
        pages[said.get("version", ""), said.get("stage", "")] = api.page(run.id)
    wrong = (f"{len(late)} runs in Prefect are late: does tuneline schedule, or a worker, run?",) if late else ()
    return {"prefect": api.ui, "pages": pages, "unhealthy": wrong}
