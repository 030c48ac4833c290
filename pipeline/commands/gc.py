"""Making room: what retention does not keep is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show
from pipeline.errors import BadParams

if TYPE_CHECKING:
    from pipeline.params import Params


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; list what would go.")] = False,
    keep_runs: Annotated[int | None, typer.Option(min=1, help="Instead of retention.keep_runs.")] = None,
    keep_days: Annotated[float | None, typer.Option(min=0, help="Instead of retention.keep_days.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Remove what no release, no rollback, no waiting approval and no recent run needs. Never while a run is under way."""
    from pipeline.collecting import collect

    world, loaded = open_world(params)
    asked = _asked(loaded, keep_runs, keep_days)
    done = collect(world, asked, dry=dry_run)
    found = {**done.model_dump(mode="json"), "totals": done.totals}
    flows = _flow_runs(world, asked, dry_run)
    found["left"] = [*done.left, *([flows] if isinstance(flows, str) else [])]
    if isinstance(flows, int) and flows:
        found["totals"] = {**done.totals, "flow run": (flows, 0)}
    show(found, json, _lines)


def _asked(params: Params, keep_runs: int | None, keep_days: float | None) -> Params:
    """The params with what the command line says instead."""
    said = {name: value for name, value in (("keep_runs", keep_runs), ("keep_days", keep_days)) if value is not None}
    try:
        retention = type(params.retention).model_validate({**params.retention.model_dump(), **said})
    except ValueError as error:
        raise BadParams(str(error).splitlines()[-1], where="the command line") from None
    return params.model_copy(update={"retention": retention})


def _flow_runs(world: Any, params: Params, dry: bool) -> int | str:
    """How many ended flow runs went, or would go; why not, when Prefect does not answer. One that is not up is not started."""
    from flows.server import running, use_server

    if world.settings.prefect_api is None and running(world.project) is None:
        return 0
    use_server(world.project, world.settings.prefect_api)
    from flows.flow_runs import remove_old

    try:
        return remove_old(params.model.name, days=params.retention.flow_days, dry=dry)
    except Exception as error:
        return f"flow runs stay: Prefect does not answer ({type(error).__name__})"


def _lines(found: dict[str, Any]) -> list[str]:
    verb = "would go" if found["dry"] else "removed"
    lines = []
    if found["dry"]:
        lines += [
            f"  {one['sort']}: {one['what']}" + (f", {size(one['bytes'])}" if one["bytes"] else "") for one in found["freed"]
        ]
    for sort, (count, amount) in sorted(found["totals"].items()):
        lines.append(f"{sort}: {count} {verb}" + (f", {size(amount)}" if amount else ""))
    total = sum(amount for _, amount in found["totals"].values())
    lines.append(
        f"{found['model']}: {size(total)} {'would be free' if found['dry'] else 'freed'}; {len(found['kept'])} runs stay"
    )
    return [*lines, *(f"left: {said}" for said in found["left"])]


def size(amount: int) -> str:
    """Bytes as people read them."""
    value, units = float(amount), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
