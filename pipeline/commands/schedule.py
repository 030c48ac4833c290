"""What runs by itself: the schedule of a model, served here or handed to a pool, and a worker that draws from one."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pipeline.commands.options import DEFAULT_PARAMS, ParamsFile, open_world
from pipeline.commands.run import use_prefect
from pipeline.errors import Misuse

Pool = Annotated[str | None, typer.Option(help="Hand it to this work pool and return; tuneline worker draws from it.")]


def schedule(
    params: ParamsFile = DEFAULT_PARAMS,
    cron: Annotated[str | None, typer.Option(help="Instead of the one in params.")] = None,
    pool: Pool = None,
) -> None:
    """Serve the model's deployments (retrain by its schedule, promote, rollback, approval, monitor) until stopped."""
    world, loaded = open_world(params)
    if cron is not None:
        from pipeline.domain.cron import Cron

        try:
            Cron.read(cron)
        except ValueError as error:
            raise Misuse(str(error), where="--cron", fix="five fields, such as '0 3 * * *'") from None
        asked = loaded.schedule.model_copy(update={"cron": cron, "interval": None})
        loaded = loaded.model_copy(update={"schedule": asked})
    use_prefect(world)
    from flows import deployments

    if pool is None:
        deployments.serve(loaded, params.absolute())
        return
    for name in deployments.deploy(loaded, params.absolute(), pool, world.project.root):
        print(name)


def worker(
    pool: Annotated[str, typer.Option(help="The work pool to draw runs from; it is made if it is not there.")],
    limit: Annotated[int | None, typer.Option(min=1, help="So many runs at once; default: as many as come.")] = None,
) -> None:
    """Start runs that a pool holds, each in a process of its own in the project's folder, until stopped."""
    from pipeline.wiring import World

    world = World.here()
    use_prefect(world)
    from flows.deployments import work

    os.chdir(world.project.root)
    work(pool, limit)
