"""How a step becomes a Prefect task: readable name, retries drawn from the error's kind, progress, artifacts.

What a step does is not known here. Results stay in memory and are never persisted: DVC decides what is stale, Prefect does not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Crashed

from pipeline.errors import TunelineError
from pipeline.ports import Progress
from pipeline.terminal import reporter, say
from pipeline.ticking import Call

RETRIES = 2
RETRY_SECONDS = [5, 30]
_UI_SECONDS = 5.0
NOTED_WITHIN = timedelta(minutes=1)
"""A flow run writes into the run book who it is as the first thing it does."""
T = TypeVar("T")


def do(name: str, work: Callable[[], T], *, timeout: timedelta | None = None) -> T:
    """Run `work` as a task called `name`. It is tried again only when its error says that a retry helps."""
    step = task(
        name=name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=_worth_a_retry,
        timeout_seconds=timeout.total_seconds() if timeout else None,
    )(_timed)
    result: T = step(name, work)
    return result


def progress(key: str) -> Progress:
    """Progress for people at the terminal and, more rarely, for readers of the Prefect UI: a bar under the run's artifacts."""
    terminal, last, bars = reporter(), [time.monotonic()], dict[str, UUID]()

    def report(what: str, done: int, total: int) -> None:
        terminal(what, done, total)
        finished = bool(total) and done >= total and what in bars
        if not total or (time.monotonic() - last[0] < _UI_SECONDS and not finished):
            return
        last[0] = time.monotonic()
        percent = 100.0 * done / total
        if what in bars:
            update_progress_artifact(bars[what], progress=percent)
        else:
            bars[what] = cast(UUID, create_progress_artifact(percent, key=_key(f"{key}-{what}"), description=f"{what} {total:,}"))

    return report


def close_runs(names: Collection[str], dead: Collection[str], known: Collection[str]) -> None:
    """Mark as crashed the flow runs of these names that Prefect believes to be running and that are not. A killed process cannot
    report its own end, and Prefect would show it as running for ever.

    dead: ids of runs whose process has ended or was taken over. known: of those whose process is noted; one that is not noted
    soon after its start was killed before it could be.
    """
    wanted = {"name": {"any_": sorted(names)}, "state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
    begun_before = datetime.now(UTC) - NOTED_WITHIN
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted)):
            unknown = str(run.id) not in known and run.start_time is not None and run.start_time < begun_before
            if str(run.id) != str(flow_run.id) and (str(run.id) in dead or unknown):
                client.set_flow_run_state(run.id, Crashed(message="its process died"), force=True)


def call_of_this_run() -> Call:
    """What asked for the flow run that this is called in: a schedule, or somebody by hand."""
    # Prefect's own kind of datetime reckons in other ways.
    at = datetime.fromisoformat(flow_run.scheduled_start_time.isoformat()).astimezone(UTC)
    if not flow_run.id or deployment.name is None:
        return Call(at)
    with get_client(sync_client=True) as client:
        scheduled = client.read_flow_run(UUID(str(flow_run.id))).auto_scheduled
    return Call(at, str(deployment.name), scheduled=True) if scheduled else Call(at)


def show_links(key: str, title: str, links: Mapping[str, str]) -> None:
    """An artifact that lists where the pages are; file paths as text, since browsers follow no file link from a server's page."""
    lines = [f"# {title}", ""]
    lines += [
        f"- **{name}**: [{target}]({target})" if target.startswith("http") else f"- **{name}**: `{target}`"
        for name, target in links.items()
    ]
    create_markdown_artifact("\n".join(lines), key=_key(key), description=title)


def show_table(key: str, title: str, rows: list[dict[str, Any]]) -> None:
    create_table_artifact(rows or [{"": "nothing"}], key=_key(key), description=title)


def page_link(path: Path) -> str:
    return path.absolute().as_uri()


def _timed(name: str, work: Callable[[], T]) -> T:
    logger, start = get_run_logger(), time.monotonic()
    try:
        result = work()
    except TunelineError as error:
        logger.error("%s: %s", name, error)
        raise
    seconds = time.monotonic() - start
    logger.info("%s took %.1f s", name, seconds)
    say(f"  {name} {seconds:.1f} s")
    return result


def _worth_a_retry(task: Any, run: Any, state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, TunelineError) and error.retryable


def _key(text: str) -> str:
    # Prefect allows lower-case letters, digits and dashes.
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
