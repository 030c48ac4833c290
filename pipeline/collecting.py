"""Making room: what no release, rollback window, waiting approval or kept run needs goes, at the locks of all models at once.

The order makes it safe to kill: runs in MLflow, then tags, then what only those named. A second call finds what is left of the
first. What may go is leftovers.py's to say; what the ledger says stays for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.backends.run_folder import one_run_at_a_time
from pipeline.domain.retention import Collected, Freed
from pipeline.errors import TryLater
from pipeline.leftovers import Leftovers
from pipeline.ports import Progress, silent
from pipeline.wiring import World

if TYPE_CHECKING:
    from pipeline.params import Params

_OTHER_LOCKS = ("prefect-server",)
_BESIDE = ("", "-sweep", "-curve")


def collect(
    world: World, params: Params, *, dry: bool = False, now: datetime | None = None, progress: Progress = silent
) -> Collected:
    """Remove what params.retention does not keep, and say what that was; dry: only say it.

    Raises TryLater, with nothing removed, while a run, a sweep or a curve of any model of the project is under way.
    """
    now, model = now or datetime.now(UTC), params.model.name
    with _nobody_works(world, model):
        room = Leftovers.look(world, params, now)
        freed: list[Freed] = []
        for number, garbage in enumerate(room.garbage()):
            try:
                if not dry:
                    garbage.remove()
                freed.append(garbage.freed)
            except TryLater as error:
                room.left.append(f"{garbage.freed.sort} {garbage.freed.what} stays: {error.what}")
            progress("removing" if not dry else "looking", number + 1, 0)
        kept = {tag: mark.why for tag, mark in room.kept.items()}
        return Collected(model=model, dry=dry, freed=tuple(freed), kept=kept, left=tuple(room.left))


@contextmanager
def _nobody_works(world: World, model: str) -> Iterator[None]:
    """Hold the lock of every model that the project has, and of their sweeps and curves: caches are common to all. And the
    model's lease, which holds off its runs on other machines; a tick that comes meanwhile waits its turn."""
    locks = world.project.locks
    models = {model, *world.ledger.models(), *(name.split("/", 1)[0] for name in world.git.refs(""))}
    names = {f"{name}{beside}" for name in models for beside in _BESIDE}
    names |= {path.stem for path in locks.glob("*.lock")} - set(_OTHER_LOCKS)
    with ExitStack() as stack:
        for name in sorted(names):
            stack.enter_context(one_run_at_a_time(world.project, name))
        claim = world.run_book.claim(model, "gc", datetime.now(UTC), watch=False)
        with world.run_book.kept(claim):
            try:
                yield
            finally:
                world.run_book.finish(claim, "room made")
