"""A project of the engine's tests, served as `tuneline serve` does it: hosting.py's own composition, and the real deeds."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from folder_registry import FolderRegistry
from http_kit import wait_until
from serving_world import MODEL

from pipeline import wiring
from pipeline.hosting import Hosted, open_server
from pipeline.params import Params
from pipeline.settings import Settings
from tests.checkouts import git

UNGATED = {"gate": False}
"""What a stage asks of versions that no gate has seen."""
MANY = {"requests_per_minute": 10**7, "tokens_per_minute": 10**9}


class FolderWorld(wiring.World):
    """The stores of a project; releases are registered in a folder."""

    @cached_property
    def registry(self) -> FolderRegistry:  # type: ignore[override]
        return FolderRegistry(self.start / "registry")


def project(root: Path) -> FolderWorld:
    """Of a serving_world.World's folder: the same ledger, the same versions. Made a repository, where it is none yet."""
    if not (root / ".git").exists():
        git(root, "init", "--quiet")
        for key, value in (("user.name", "Someone"), ("user.email", "someone@localhost")):
            git(root, "config", key, value)
        git(root, "commit", "--quiet", "--allow-empty", "--message", "start")
    return FolderWorld(root, Settings(home=root / "state"))


def params_of(base: Path, *, rules: dict[str, Any] | None = None, **serve: Any) -> Params:
    given = {"port": 0, "poll_seconds": 0.02, "rates": MANY, **serve}
    stages = {"rules": {"staging": UNGATED, "production": UNGATED} | (rules or {})}
    return Params(model={"name": MODEL, "task": "generate", "base": str(base)}, serve=given, release=stages)


@dataclass(frozen=True)
class Served:
    """A server that runs in a thread."""

    hosted: Hosted

    @property
    def port(self) -> int:
        return int(self.hosted.url.rpartition(":")[2])

    def ask(self, path: str, body: Any = None, token: str = "") -> tuple[int, dict[str, str], Any]:
        """POST where there is a body, GET where there is none."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        headers |= {"content-type": "application/json"} if body is not None else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                "GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers=headers
            )
            got = connection.getresponse()
            return got.status, {name.lower(): value for name, value in got.getheaders()}, json.loads(got.read())
        finally:
            connection.close()


@contextmanager
def served(world: FolderWorld, params: Params, plant: Callable[[Any], None] | None = None) -> Iterator[Served]:
    """The server, until the block ends. plant: is given the engine before anybody is answered."""
    hosted = open_server(world, params)
    hosted.start()
    if plant is not None:
        plant(hosted.engine)
    thread = threading.Thread(target=hosted.run)
    thread.start()
    try:
        wait_until(lambda: hosted.server.started)
        yield Served(hosted)
    finally:
        hosted.server.stop()
        thread.join(60)
        assert not thread.is_alive()
