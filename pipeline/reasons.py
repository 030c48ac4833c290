"""Whether a tick has a reason to run: what is new since the last run, found without a run folder, MLflow or a model.

What is seen here is weighed by domain/triggers.py. Nothing is made, and nothing heavy is imported: most ticks end here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.record import canonical_json, digest_value
from pipeline.domain.release import EventKind
from pipeline.domain.signals import SignalKind
from pipeline.domain.ticks import Tick
from pipeline.domain.triggers import Decision, Fresh, State, Wanted, decide
from pipeline.wiring import World

if TYPE_CHECKING:
    from pipeline.params import Params

_RUNS = 500
"""How many runs back a budget can count."""
_NOT_LEARNED_FROM = ("schedule", "serve", "notify", "retention", "monitor", "compute")
"""Sections of params that change nothing of what a run makes."""
_LISTED = 2000
_NONE_ENDED = "no run has ended yet"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run is made from, by digest. head: the commit of the newest run with valid data, once the run has ended. fresh: the
    files that no snapshot has. ledger: the last event of the ledger as the run began."""

    code: str
    params: str
    files: str
    fresh: str = ""
    ledger: int = 0
    head: str = ""

    @property
    def text(self) -> str:
        return canonical_json(asdict(self))

    @classmethod
    def read(cls, text: str | None) -> Inputs | None:
        """None for what is not there, or was written by another Tuneline."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None


def look(world: World, params: Params, now: datetime) -> tuple[Decision, Inputs]:
    """Whether a run that is asked for by a schedule is to begin, and from what it would be made. world: with the run's claim."""
    fresh, inputs = _fresh(world, params), inputs_now(world, params)
    inputs = replace(inputs, fresh=fresh.digest)
    own = world.claim.fence if world.claim else None
    runs = tuple(tick for tick in world.run_book.runs(params.model.name, _RUNS) if tick.fence != own)
    ended = [tick for tick in runs if tick.done]
    last = Inputs.read(ended[-1].inputs) if ended else None
    if last and last.fresh and last.fresh == fresh.digest:
        # These very files were looked into by the last run, which did not take them in: they are new to snapshots only.
        fresh = fresh.model_copy(update={"files": 0, "rows": 0})
    asked = wanted(params)
    state = State(
        fresh=fresh,
        runs=tuple(tick.began for tick in runs),
        drift=_drift(world, params, asked, ended[-1].began if ended else None),
        feedback=_feedback(world, params),
        changed=tuple(_changed(inputs, last, runs, world, params)),
        withdrawn=_count(world, params, last, (EventKind.REVOKED, EventKind.ERASED)),
    )
    return decide(now, asked, state), inputs


def wanted(params: Params) -> Wanted:
    """schedule.triggers, as domain/triggers.py weighs it."""
    asked = params.schedule.triggers
    return Wanted(
        min_rows=asked.fresh.min_rows if asked.fresh else None,
        quiet=asked.fresh.quiet if asked.fresh else 0.0,
        windows=(asked.drift.of, asked.drift.among) if asked.drift else None,
        feedback=asked.feedback.rows if asked.feedback else None,
        revocation=asked.revocation,
        cool_down=asked.cool_down,
        budget=(asked.budget.runs, asked.budget.days) if asked.budget else None,
    )


def inputs_now(world: World, params: Params) -> Inputs:
    """What a run that begins now is made from, but for its fresh files."""
    from pipeline.backends.run_folder import CODE

    dumped = params.model_dump(mode="json", by_alias=True)
    learned = {name: section for name, section in dumped.items() if name not in _NOT_LEARNED_FROM}
    return Inputs(
        code=world.git.code_digest(CODE),
        params=digest_value(learned),
        files=digest_value(sorted(_named_files(learned, world.git.root))),
        ledger=world.ledger.head(params.model.name)[0],
        head=_head(world, params.model.name),
    )


def settled(world: World, params: Params, inputs: Inputs) -> Inputs:
    """The inputs of a run that has ended: from here on its own data is nothing new."""
    return replace(inputs, head=_head(world, params.model.name))


def _head(world: World, model: str) -> str:
    from pipeline.backends.run_folder import head_data

    head = head_data(world.git, model)
    return head.commit if head else ""


def _fresh(world: World, params: Params) -> Fresh:
    from pipeline.backends.run_folder import head_data
    from pipeline.backends.snapshots import GitDvcSnapshots
    from pipeline.backends.sources.looking import look as look_at

    model = params.model.name
    head = head_data(world.git, model)
    snapshot = GitDvcSnapshots(world.git, world.project, model).of(head.commit) if head else None
    return look_at(params.ingest, world.git.root, snapshot.sources if snapshot else (), world.project.looks / f"{model}.json")


def _changed(inputs: Inputs, last: Inputs | None, runs: tuple[Tick, ...], world: World, params: Params) -> list[str]:
    if last is None:
        return [_NONE_ENDED]
    found = [] if runs[-1].done else [f"the last run did not end ({runs[-1].ending})"]
    found += ["the code is not that of the last run"] if inputs.code != last.code else []
    found += ["params are not those of the last run"] if inputs.params != last.params else []
    found += ["a file that params name has changed"] if inputs.files != last.files else []
    found += ["rows were taken in that no run has learned from"] if inputs.head != last.head else []
    forgotten = _count(world, params, last, (EventKind.ERASED,))
    return found + ([f"{forgotten} forgotten since the last run"] if forgotten else [])


def _count(world: World, params: Params, last: Inputs | None, kinds: tuple[EventKind, ...]) -> int:
    """How many events of these kinds the ledger has got since."""
    head = world.ledger.head(params.model.name)[0]
    since = head - (last.ledger if last else head)
    events = world.ledger.latest(params.model.name, count=since) if since > 0 else ()
    return sum(event.event in kinds for event in events)


def _drift(world: World, params: Params, asked: Wanted, since: datetime | None) -> tuple[Any, ...]:
    if asked.windows is None:
        return ()
    seen = world.run_book.recent(params.model.name, SignalKind.DRIFT, count=asked.windows[1])
    return tuple(one for one in seen if since is None or one.at > since)


def _feedback(world: World, params: Params) -> int:
    """Rows of feedback that no snapshot has."""
    return world.feedback.waiting(params.model.name) if params.schedule.triggers.feedback else 0


def _named_files(section: Any, root: Path) -> set[tuple[str, int, int]]:
    """(path, size, time) of the files that texts in params name: lists for review, suites, templates, a base model's folder.
    Where rows come from is not among them: that is looked into by itself."""
    found: set[tuple[str, int, int]] = set()
    for text in _texts({key: value for key, value in section.items() if key != "ingest"}):
        place = root / text
        for path in [place] if place.is_file() else sorted(place.rglob("*"))[:_LISTED] if place.is_dir() else ():
            if path.is_file():
                status = path.stat()
                found.add(
                    (
                        path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path),
                        status.st_size,
                        status.st_mtime_ns,
                    )
                )
    return found


def _texts(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*(_texts(one) for one in value.values()))
    if isinstance(value, list):
        return set().union(*(_texts(one) for one in value))
    plain = isinstance(value, str) and 0 < len(value) < 300 and "\n" not in value and "\0" not in value and "://" not in value
    return {value} if plain and ("/" in value or "." in value) else set()
