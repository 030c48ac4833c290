"""How a model stands, gathered from the stores of a project for one screen. Nothing is changed, and nothing heavy is imported.

What does not answer is said and hides nothing else: only the ledger, without which nothing is known, stops it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pipeline.deeds import POLICY, still_missing
from pipeline.domain.signals import SignalKind
from pipeline.domain.standing import Standing, Wait
from pipeline.domain.ticks import Tick
from pipeline.errors import TunelineError
from pipeline.moving import utc_now
from pipeline.params import Params
from pipeline.steps.status import differing, holders, waiting
from pipeline.wiring import World

RUNS = 5
"""How many of the last runs are shown."""
LOW_BYTES, LOW_SHARE = 2 << 30, 0.05
"""Less free than either is told: a run writes checkpoints and copies of tables."""

T = TypeVar("T")


def overview(
    world: World,
    params: Params,
    *,
    prefect: str | None = None,
    pages: Mapping[tuple[str, str], str] | None = None,
    unhealthy: tuple[str, ...] = (),
    unknown: tuple[str, ...] = (),
) -> Standing:
    """prefect, pages, unhealthy, unknown: what was learned from Prefect, which is not asked here; pages by (version, stage)."""
    model, release = params.model.name, params.release
    wrong, dark = list(unhealthy), list(unknown)
    stages = holders(model, release.stages, ledger=world.ledger)
    waits = waiting(
        model,
        {stage: release.rules_of(stage) for stage in release.stages},
        ledger=world.ledger,
        missing=lambda version, stage: still_missing(world, params, version, stage, by=POLICY),
    )
    wrong += _try(lambda: _aliases(world, params), [], "MLflow", dark)
    wrong += _try(lambda: _signals(world, model), [], "what was seen in traffic", dark)
    wrong += _try(lambda: _notices(world), [], "notices", dark)
    wrong += _try(lambda: _disk(world), [], "the disk", dark)
    runs: tuple[Tick, ...] = _try(lambda: world.run_book.ticks(model, RUNS), (), "the run book", dark)
    return Standing(
        model=model,
        at=utc_now(),
        stages=stages,
        running=_try(lambda: world.run_book.running(model), None, "the run book", dark),
        waiting=tuple(Wait(waiting=one, page=(pages or {}).get((one.version, one.stage))) for one in waits),
        runs=tuple(reversed(runs)),
        unhealthy=tuple(dict.fromkeys(wrong)),
        unknown=tuple(dict.fromkeys(dark)),
        prefect=prefect,
    )


def _try(look: Callable[[], T], nothing: T, what: str, unknown: list[str]) -> T:
    try:
        return look()
    except TunelineError as error:
        unknown.append(f"{what}: {str(error).splitlines()[0]}")
    except Exception as error:  # one store that is broken in a new way must not hide the others
        unknown.append(f"{what}: {type(error).__name__}")
    return nothing


def _aliases(world: World, params: Params) -> list[str]:
    from pipeline.backends.mlflow_glance import aliases

    uri, model = world.settings.mlflow_uri, params.model.name
    found = aliases(uri.get_secret_value() if uri else world.project.mlflow_db, model)
    return list(differing(model, params.release.stages, found, ledger=world.ledger))


def _signals(world: World, model: str) -> list[str]:
    newest = (signal for kind in SignalKind for signal in world.run_book.recent(model, kind, count=1))
    return [f"{one.what.value} in {one.window}: {one.detail}" for one in newest if one.fired]


def _notices(world: World) -> list[str]:
    left = world.notifier.undelivered()
    if not left.waiting and not left.given_up:
        return []
    since = f", the oldest of {datetime.fromtimestamp(left.since, UTC):%Y-%m-%d %H:%M} UTC" if left.since else ""
    why = f" ({left.error})" if left.error else ""
    return [f"{left.waiting} notices are undelivered and {left.given_up} were given up{since}{why}: check TUNELINE_NOTIFY"]


def _disk(world: World) -> list[str]:
    place: Path = world.project.state
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    if usage.free >= LOW_BYTES and usage.free >= LOW_SHARE * usage.total:
        return []
    return [f"{usage.free / 2**30:.1f} GiB are free where {world.project.state} lies: tuneline gc makes room"]
