"""The tags of kept runs, read with their dates, and taken away: by one transaction of git, only while they say what was read."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from pipeline.backends.git import REFS, Git
from pipeline.backends.run_folder import KINDS
from pipeline.domain.retention import RunMark
from pipeline.errors import Conflict


def run_marks(git: Git, model: str) -> list[RunMark]:
    """Every kept run of a model, oldest first. Anchors and the like are none."""
    found = []
    for kind in KINDS:
        for name, commit in git.commits(f"{model}/{kind}").items():
            number = name.rpartition("/")[2]
            if number.isdecimal():
                found.append(RunMark(tag=f"{REFS}/{name}", kind=kind, number=int(number), commit=commit.id, at=commit.at))
    return sorted(found, key=lambda mark: mark.number)


def remove_marks(git: Git, marks: Iterable[RunMark]) -> None:
    """All of them or none. Raises Conflict when one says another commit by now."""
    lines = "".join(f"delete {mark.tag} {mark.commit}\n" for mark in marks)
    done = subprocess.run(["git", "-C", str(git.root), "update-ref", "--stdin"], input=lines, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()[0] if done.stderr.strip() else "git refused"
        raise Conflict(f"the tags of old runs could not be taken away: {said}", fix="run it again")
