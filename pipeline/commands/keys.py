"""API keys of `tuneline serve`: add one, list them, revoke one. A key's text is shown once and kept nowhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import Json, show

if TYPE_CHECKING:
    from pipeline.serving.http.keys import ApiKey, KeyFile

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys of tuneline serve.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Who will use it; what it promotes or approves is done in this name.")],
    scope: Annotated[list[str], typer.Option(help="infer, read, approve or promote; may be given several times.")] = ["infer"],  # noqa: B006
    days: Annotated[int | None, typer.Option(min=1, max=36500, help="How long it holds; default: until it is revoked.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests a minute; default: serve.rates of params.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens a minute; default: serve.rates of params.")] = None,
    json: Json = False,
) -> None:
    """Make a key and show it, once. Running servers know it at once."""
    from pipeline.errors import Misuse
    from pipeline.serving.http.keys import SCOPES

    if unknown := set(scope) - set(SCOPES):
        raise Misuse(f"there is no scope {min(unknown)[:60]!r}", fix=f"scopes are {', '.join(SCOPES)}")
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    chosen = [known for known in SCOPES if known in scope]
    key, token = _file().add(name, chosen, expires=expires, requests_per_minute=requests, tokens_per_minute=tokens)
    made = {**_shown(key), "key": token}
    show(made, json, lambda made: [made["key"], f"  {_line(made)}", "  it is shown this once"])


@app.command("list")
def list_keys(json: Json = False) -> None:
    """All keys there ever were, without their text."""
    show([_shown(key) for key in _file().all()], json, lambda keys: [_line(key) for key in keys] or ["no keys"])


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id or name.")], json: Json = False) -> None:
    """End a key for good. Running servers refuse it at once."""
    ended = [_shown(one) for one in _file().revoke(key)]
    show(ended, json, lambda keys: [_line(one) for one in keys])


def _file() -> KeyFile:
    from pipeline.hosting import key_file
    from pipeline.wiring import World

    return key_file(World.here())


def _shown(key: ApiKey) -> dict[str, Any]:
    state = key.why_not(datetime.now(UTC)) or "holds"
    return {**key.model_dump(mode="json", exclude={"sha256"}, exclude_none=True), "state": state}


def _line(key: dict[str, Any]) -> str:
    until = f", until {key['expires'][:10]}" if "expires" in key else ""
    return f"{key['id']}  {key['name']}  {'+'.join(key['scopes'])}  {key['state']}{until}"
