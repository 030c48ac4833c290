"""Making room: what no release, rollback window, waiting approval or kept run needs goes, while nothing else runs in the project.

The order makes it safe to kill: runs in MLflow, then tags, then what only those named. A second call finds what is left of the
first. What may go is leftovers.py's to say; what the ledger says stays for ever.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.backends.run_locks import nothing_runs
from pipeline.domain.retention import Collected, Freed
from pipeline.errors import TryLater
from pipeline.leftovers import Leftovers
from pipeline.ports import Progress, silent
from pipeline.ticking import leased
from pipeline.wiring import World

if TYPE_CHECKING:
    from pipeline.params import Params


def collect(
    world: World, params: Params, *, dry: bool = False, now: datetime | None = None, progress: Progress = silent
) -> Collected:
    """Remove what params.retention does not keep, and say what that was; dry: only say it.

    Raises TryLater, with nothing removed, while a run, a sweep or a curve of any model of the project is under way, or a run of
    this model on another machine; a tick that comes meanwhile waits its turn.
    """
    now, model = now or datetime.now(UTC), params.model.name
    with nothing_runs(world.project), leased(world, model, "gc", writes=not dry) as world:
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
