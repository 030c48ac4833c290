"""The snapshots that a model's kept runs leave behind: naming one of them, and what two of them differ in. Pure values.

Finding them is a port's work (ports.Snapshots); comparing their rows is steps/diff.py's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from pipeline.domain.data import Snapshot
from pipeline.domain.record import Value
from pipeline.errors import Misuse

EVIDENCE = "invalid"
"""The kind of a run whose data was refused: kept, but no later run builds on it."""

_BACK = re.compile(r"head(?:~(\d{1,6}))?")
_DIGEST = re.compile(r"[0-9a-f]{4,64}")


class PastSnapshot(Value):
    """The snapshot of a kept run. kind: run, data or invalid. ending: what the run says of itself, in words."""

    run: str
    number: int
    kind: str
    at: datetime
    ending: str
    tag: str
    commit: str
    digest: str
    snapshot: Snapshot


class CountChange(Value):
    """How many rows have a name (a label, a kind, a language, a reason code) in either snapshot."""

    name: str
    before: int
    after: int


class SnapshotDiff(Value):
    """What snapshot `after` has that `before` has not, and the other way round.

    added, removed: rows by their ids. rewritten: shards differ and overlap, so that their rows had to be compared; false where
    rows were only added. samples: `source:line` of a few rows. forgotten: rows forgotten between the two. lengths: of inputs and
    outputs, means and medians then and now. params: key to its values then and now.
    """

    before: str
    after: str
    rows_before: int
    rows_after: int
    added: int
    removed: int
    shards_kept: int
    shards_added: int
    shards_removed: int
    rewritten: bool
    samples_added: tuple[str, ...] = ()
    samples_removed: tuple[str, ...] = ()
    sources_added: tuple[str, ...] = ()
    sources_removed: tuple[str, ...] = ()
    forgotten: int = 0
    kinds: tuple[CountChange, ...] = ()
    labels: tuple[CountChange, ...] = ()
    languages: tuple[CountChange, ...] = ()
    quarantine: tuple[CountChange, ...] = ()
    lengths: dict[str, tuple[float, float]] = Field(default_factory=dict)
    params: dict[str, tuple[Any, Any]] = Field(default_factory=dict)


def choose(snapshots: Sequence[PastSnapshot], name: str = "head") -> PastSnapshot:
    """The snapshot that `name` means: `head` (the newest that later runs build on), `head~2` (two before it), a run's number, or
    the beginning of a digest. Raises Misuse that says what there is.

    snapshots: all of a model, oldest first.
    """
    found = _matching(snapshots, name.strip().lower())
    digests = {past.digest for past in found}
    if len(digests) == 1:
        # A snapshot that several runs had goes by the first of them, where it came about.
        return found[0]
    there = ", ".join(f"{past.number} ({past.digest[:12]})" for past in snapshots[-8:]) or "none yet"
    problem = f"{name[:80]!r} could be any of {len(digests)} snapshots" if digests else f"there is no snapshot {name[:80]!r}"
    fix = (
        "name a run's number, the beginning of a digest, head or head~1"
        if snapshots
        else "tuneline run, or tuneline ingest, makes one"
    )
    raise Misuse(problem, where=f"snapshots: {there}", fix=fix)


def _matching(snapshots: Sequence[PastSnapshot], name: str) -> list[PastSnapshot]:
    if back := _BACK.fullmatch(name):
        heads = [past for past in snapshots if past.kind != EVIDENCE]
        at = len(heads) - 1 - int(back[1] or 0)
        return heads[at : at + 1] if at >= 0 else []
    number = name.removeprefix("#")
    if number.isdecimal() and len(number) <= 6 and (numbered := [p for p in snapshots if p.number == int(number)]):
        return numbered
    return [past for past in snapshots if past.digest.startswith(name)] if _DIGEST.fullmatch(name) else []
