"""What is asked of a Prefect server without Prefect: is it up, who waits there, let one go on. Prefect takes seconds to import.

Speaks to its HTTP API. Only for questions that a command asks in passing: what runs in a flow uses Prefect's own client.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flows.server import running
from pipeline.errors import TryLater
from pipeline.wiring import World

PATIENCE = 3.0
"""Seconds that a command waits for an answer."""
MOST_BYTES = 8 << 20
BUSY = 503
WAITS = "tuneline-approval"
"""Tag of the flow runs that wait for people."""
LOOK_AGAIN = {"decision": "look again", "by": "", "reason": ""}
"""The input by which a run goes on though nobody decided anything in Prefect."""


@dataclass(frozen=True)
class Seen:
    """A flow run as Prefect shows it."""

    id: str
    name: str
    state: str
    since: datetime | None
    tags: tuple[str, ...]
    deployment: str | None


class PrefectApi:
    def __init__(self, address: str, patience: float = PATIENCE) -> None:
        self.address = address.rstrip("/")
        self._patience = patience

    @classmethod
    def of(cls, world: World) -> PrefectApi | None:
        """The API of the settings, or of the project's own server if that is up; nothing is started."""
        if world.settings.prefect_api:
            return cls(world.settings.prefect_api)
        own = running(world.project)
        return cls(own.api) if own else None

    @property
    def ui(self) -> str:
        return self.address.removesuffix("/api")

    def page(self, run: str) -> str:
        return run_page(self.address, run)

    def check(self) -> None:
        """Raises TryLater unless the server is healthy."""
        self._ask("/health", None)

    def flow_runs(self, *, tags: tuple[str, ...] = (), states: tuple[str, ...] = (), most: int = 50) -> tuple[Seen, ...]:
        """Flow runs, the newest first."""
        asked: dict[str, Any] = {}
        if tags:
            asked["tags"] = {"all_": list(tags)}
        if states:
            asked["state"] = {"type": {"any_": list(states)}}
        found = self._ask("/flow_runs/filter", {"flow_runs": asked, "limit": most, "sort": "EXPECTED_START_TIME_DESC"})
        return tuple(_seen(one) for one in found)

    def resume(self, run: str, answer: dict[str, str]) -> bool:
        """Let a suspended run go on; False if it waits no more."""
        said = self._ask(f"/flow_runs/{run}/resume", {"run_input": answer})
        return bool(said.get("status") == "ACCEPT")

    def _ask(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **_credentials()},
        )
        try:
            return self._answer(request)
        except urllib.error.HTTPError as error:
            raise TryLater(f"Prefect answered {error.code}", where=self.address, fix="read its log; is a key needed?") from None
        except (OSError, ValueError) as error:
            raise TryLater(f"Prefect does not answer ({type(error).__name__})", where=self.address, fix="tuneline up") from None

    def _answer(self, request: urllib.request.Request) -> Any:
        """The answer; asked again while the server's database is busy, which it says with 503."""
        deadline, pause = time.monotonic() + self._patience, 0.2
        while True:
            try:
                with urllib.request.urlopen(request, timeout=self._patience, context=_trusted(self.address)) as answer:
                    return json.loads(answer.read(MOST_BYTES))
            except urllib.error.HTTPError as error:
                if error.code != BUSY or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause *= 2


def run_page(address: str, run: str) -> str:
    """The page of a flow run in Prefect's UI."""
    return f"{address.rstrip('/').removesuffix('/api')}/runs/flow-run/{run}"


def tags_of(model: str, version: str, stage: str) -> tuple[str, ...]:
    """Tags of the flow run in which a version waits for a stage."""
    return (WAITS, f"model:{model}", f"version:{version}", f"stage:{stage}")


def go_on(world: World, model: str, version: str, stage: str) -> int:
    """Let the runs in which a version waits for a stage look at the ledger again, now; how many there were.

    Raises TryLater where Prefect does not answer: the runs look again by themselves, a little later.
    """
    api = PrefectApi.of(world)
    if api is None:
        return 0
    waiting = api.flow_runs(tags=tags_of(model, version, stage), states=("PAUSED",))
    return sum(api.resume(run.id, LOOK_AGAIN) for run in waiting)


def _credentials() -> dict[str, str]:
    """As Prefect's own client takes them from the environment."""
    if said := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(said.encode()).decode()}"}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


def _trusted(address: str) -> ssl.SSLContext | None:
    """What a server's certificate is checked against, as Prefect's own client is told."""
    if not address.startswith("https://"):
        return None
    return ssl.create_default_context(cafile=os.environ.get("PREFECT_API_SSL_CERT_FILE") or None)


def _seen(one: dict[str, Any]) -> Seen:
    state = one.get("state") or {}
    since = state.get("timestamp")
    return Seen(
        id=str(one["id"]),
        name=str(one.get("name")),
        state=str(state.get("name") or one.get("state_type")),
        since=datetime.fromisoformat(since.replace("Z", "+00:00")) if since else None,
        tags=tuple(one.get("tags") or ()),
        deployment=one.get("deployment_id"),
    )
