"""Ingest public data sets in the form in which their authors publish them, one params file each, and show where every row ended.

    python examples/data/ingest_all.py [--data FOLDER] [NAME …]

FOLDER has a folder for each set, named like its params file here (banking77.yaml: FOLDER/banking77). Each set is copied to a
folder of its own and taken in by the ingest step, row rules and licence policy included. The exit status is 1 when the rows of a
set do not add up, or when one is refused that should not be, or the other way round.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.backends.params_file import read_params
from pipeline.backends.sources.ways import AllWays
from pipeline.domain.data import Snapshot
from pipeline.errors import BadInput
from pipeline.steps.ingest import ingest
from pipeline.wiring import row_rules

HERE = Path(__file__).resolve().parent
NAMES = tuple(sorted(path.stem for path in HERE.glob("*.yaml")))
REFUSED = ("lfs_pointer_case",)
"""Sets that are no data; the point is that they are called what they are."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the rows of one set ended, or why the set was refused."""

    name: str
    snapshot: Snapshot | None = None
    refusal: str = ""

    def count(self, field: str) -> int:
        return sum(getattr(source, field) for source in self.snapshot.sources) if self.snapshot else 0

    @property
    def adds_up(self) -> bool:
        """Whether each row ended in one place, by source and in the files; a set that is no data must be refused."""
        if self.snapshot is None:
            return self.name in REFUSED
        by_source = all(s.read == s.accepted + s.duplicate + s.quarantined for s in self.snapshot.sources)
        in_files = (self.snapshot.rows, self.snapshot.quarantined) == (self.count("accepted"), self.count("quarantined"))
        return by_source and in_files and self.count("accepted") > 0 and self.name not in REFUSED


def take_in(name: str, data: Path, work: Path) -> Outcome:
    """Ingest the set in `data`/`name` into `work`/snapshot. `work`: an empty folder, which the params' paths are below."""
    params = read_params(HERE / f"{name}.yaml")
    shutil.copytree(data / name, work / "data" / name, copy_function=shutil.copyfile)
    (work / "staging").mkdir()
    try:
        snapshot = ingest(
            params.ingest,
            dataset=params.model.name,
            task=params.model.task,
            sources=AllWays(work / "staging"),
            parent=None,
            folder=work / "snapshot",
            root=work,
            rules=row_rules(params.clean),
            licenses=params.clean.licenses,
        )
    except BadInput as error:
        return Outcome(name, refusal=str(error).replace(f"{work}/", ""))
    return Outcome(name, snapshot)


def table(outcomes: list[Outcome]) -> list[str]:
    """The lines to print: a set each, then why any was refused."""
    columns = ("read", "accepted", "duplicate", "quarantined")
    lines = [f"{'set':<18}{'files':>6}" + "".join(f"{column:>12}" for column in columns) + "  adds up"]
    for one in outcomes:
        files = len(one.snapshot.sources) if one.snapshot else 0
        counts = "".join(f"{one.count(column):>12,}" for column in columns) if one.snapshot else f"{'refused':>48}"
        lines.append(f"{one.name:<18}{files:>6}{counts}  {'yes' if one.adds_up else 'NO'}")
    return lines + [f"\n{one.name}: {one.refusal}" for one in outcomes if one.refusal]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = os.environ.get("TUNELINE_REAL_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help=f"where the sets lie (default: {default})")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these sets")
    arguments = parser.parse_args()
    outcomes = []
    for name in arguments.names or NAMES:
        with tempfile.TemporaryDirectory(prefix="tuneline-") as work:
            outcomes.append(take_in(name, arguments.data, Path(work)))
    print("\n".join(table(outcomes)))
    return 0 if all(one.adds_up for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
