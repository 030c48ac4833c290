"""People and services that act on releases: make one with its key, list them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import Json, show

if TYPE_CHECKING:
    from pipeline.backends.identities import Identities

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="People and services that act on releases.")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What events call them.")],
    key: Annotated[Path, typer.Option(help="Where the private key is put; it stays with its owner (TUNELINE_ACTOR_KEY).")],
    role: Annotated[list[str] | None, typer.Option(help="A role that the stages' rules name; may be given again.")] = None,
    service: Annotated[bool, typer.Option("--service", help="A service, not a person.")] = False,
    json: Json = False,
) -> None:
    """Make a key pair, and add its public half to the identities (TUNELINE_IDENTITIES). The first turns signing on."""
    from pipeline.backends.identities import new_identity

    kind, now = "service" if service else "person", datetime.now(UTC)
    made = new_identity(_file(), name, kind=kind, roles=role or [], key_file=key, now=now)
    said = {"name": name, "key id": made, "private key": str(key)}
    show(said, json, lambda said: [f"{what}: {value}" for what, value in said.items()])


@app.command("list")
def listing(json: Json = False) -> None:
    """Who there is, with roles and keys."""
    from pipeline.backends.identities import Identities
    from pipeline.terminal import table

    show(_rows(Identities.read(_file())), json, lambda rows: table(rows) if rows else ["nobody"])


def _rows(found: Identities) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "kind": one.kind, "roles": ", ".join(one.roles) or "-", "keys": ", ".join(key.id for key in one.keys)}
        for one in found.everyone
    ]


def _file() -> Path:
    from pipeline.errors import Misuse
    from pipeline.settings import settings

    path = settings().identities
    if path is None:
        raise Misuse("no file of identities is named", fix="set TUNELINE_IDENTITIES, say to identities.toml in the project")
    return path
