"""A real Prefect server for a project, and approval runs executed in this process as whoever serves the deployment would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from desk import MODEL, Desk

from flows.prefect_api import PrefectApi
from flows.server import stop, use_server
from pipeline.workspace import Project


@contextmanager
def server(root: Path) -> Iterator[str]:
    """The address of a server's API, to which Prefect's client in this process speaks."""
    before, project = dict(os.environ), Project(root, root / "state")
    try:
        api = use_server(project, None).api
        from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

        with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: str(project.prefect)}):
            yield api
    finally:
        stop(project)
        os.environ.clear()
        os.environ.update(before)


class Served:
    """The approval deployment of a desk."""

    def __init__(self, desk: Desk, api: str) -> None:
        from flows.approval import approval_deployment

        self.desk = desk
        self.api = PrefectApi(api, patience=60.0)
        self._forget_other_tests()
        self.deployment = str(approval_deployment(MODEL, desk.params_file, desk.params).apply())
        # As whoever serves it asks for work; until then nobody is known to serve it.
        self.api._ask("/deployments/get_scheduled_flow_runs", {"deployment_ids": [self.deployment]})

    def _forget_other_tests(self) -> None:
        """Their versions go by the same numbers, and one server serves them all."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            for run in self.api.flow_runs(most=200):
                client.delete_flow_run(UUID(run.id))

    def seek(self, version: str, stage: str = "production") -> str | None:
        from flows.approval import seek

        return seek(self.desk.world, self.desk.params, str(self.desk.params_file), version, stage)

    def runs(self, version: str) -> list[Any]:
        return list(self.api.flow_runs(tags=("tuneline-approval", f"version:{version}")))

    def states(self, version: str) -> list[str]:
        return [run.state for run in self.runs(version)]

    def work(self, version: str) -> str:
        """Execute what is scheduled of the version's newest run; the name of the state in which that left it."""
        return self.execute(self.runs(version)[0].id)

    def execute(self, run_id: str) -> str:
        from prefect.client.orchestration import get_client
        from prefect.exceptions import Pause
        from prefect.flow_engine import run_flow

        from flows.approval import approval_flow

        with get_client(sync_client=True) as client:
            run = client.read_flow_run(UUID(run_id))
            with suppress(Pause):
                run_flow(approval_flow, flow_run=run, parameters=run.parameters, return_type="state")
            return str(client.read_flow_run(UUID(run_id)).state.name)

    def by_hand(self, version: str, stage: str) -> str:
        """A run that somebody begins in Prefect's UI."""
        asked = {"name": MODEL, "params_file": str(self.desk.params_file), "version": version, "stage": stage}
        run = self.api._ask(f"/deployments/{self.deployment}/create_flow_run", {"parameters": asked})
        return self.execute(run["id"])

    def force(self, version: str, state: str) -> None:
        body = {"state": {"type": state}, "force": True}
        self.api._ask(f"/flow_runs/{self.runs(version)[0].id}/set_state", body)

    def look(self) -> None:
        """A scheduled look at all that wait."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            fixed = {"name": MODEL, "params_file": str(self.desk.params_file)}
            run = client.create_flow_run_from_deployment(UUID(self.deployment), parameters=fixed)
        assert self.execute(str(run.id)) == "Completed"

    def miss_a_look(self) -> str:
        """One that was due while nobody served; its run."""
        made = self.api._ask(f"/deployments/{self.deployment}/create_flow_run", {"parameters": {"name": MODEL}})
        return str(made["id"])

    def is_there(self, run: str) -> bool:
        return run in {one.id for one in self.api.flow_runs(most=200)}

    def answer(self, version: str, decision: str, by: str = "", reason: str = "") -> bool:
        """As somebody fills in the form in Prefect's UI, which sends the same."""
        return self.api.resume(self.runs(version)[0].id, {"decision": decision, "by": by, "reason": reason})
