"""tuneline serve: answers over HTTP, from who holds a stage, until it is told to end."""

from __future__ import annotations

import os
from json import dumps
from typing import Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen at; default: serve.host of params.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one; default: serve.port of params.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Answer over HTTP as OpenAI's API does, by the release that holds production; follows promotions and rollbacks."""
    world, loaded = open_world(params)
    from pipeline.hosting import open_server, speak

    speak()
    hosted = open_server(world, loaded, host=host, port=port)
    hosted.start()
    health = hosted.engine.health()
    release = next((one.name for one in health.releases if one.role == "production"), None)
    said = {"url": hosted.url, "pid": os.getpid(), "model": loaded.model.name, "release": release, "alarms": list(health.alarms)}
    # One line in either form: who started this reads until its end, while the server runs on.
    print(dumps(said) if json else _line(said), flush=True)
    hosted.run()


def _line(said: dict[str, Any]) -> str:
    alarms = f" (alarms: {'; '.join(said['alarms'])})" if said["alarms"] else ""
    return f"{said['release'] or 'nobody yet'} answers at {said['url']}/v1{alarms}"
