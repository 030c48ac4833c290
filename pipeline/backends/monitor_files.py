"""What the monitor keeps of a model between its looks, as files: how far the log was read, reports, what first answers were like.

Each file is replaced by rename; no text that was asked or answered is in any of them.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from pipeline.domain.monitoring import LoggedRequest, MonitorReport
from pipeline.steps.monitor import AnswerLooks

_KEPT_IDS = 5000
_SHOWN = 400


@dataclass
class Reading:
    """read: of each release the instant and the id of the last request of its last window. since: the log need not be read again
    from before. canaries: ids of answers to our own requests."""

    read: dict[str, tuple[str, str]] = field(default_factory=dict)
    since: str | None = None
    canaries: list[str] = field(default_factory=list)

    def seen(self, release: str, request: LoggedRequest) -> bool:
        """Whether a request belongs to a window that was judged before."""
        at, id = self.read.get(release, (None, ""))
        return at is not None and (request.at, request.id) <= (datetime.fromisoformat(at), id)

    def judged(self, release: str, last: LoggedRequest) -> None:
        self.read[release] = (last.at.isoformat(), last.id)


class MonitorFiles:
    """Of one model, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.page = folder / "monitor.html"

    def reading(self) -> Reading:
        path = self._folder / "state.json"
        if not path.is_file():
            return Reading()
        said = json.loads(path.read_text("utf-8"))
        return Reading({name: (at, id) for name, (at, id) in said["read"].items()}, said["since"], said["canaries"])

    def save(self, reading: Reading) -> None:
        said = asdict(reading) | {"canaries": reading.canaries[-_KEPT_IDS:]}
        _put(self._folder / "state.json", json.dumps(said, sort_keys=True))

    def first_answers(self, release: str) -> AnswerLooks | None:
        path = self._of(release) / "first-answers.json"
        if not path.is_file():
            return None
        return AnswerLooks(**{name: tuple(values) for name, values in json.loads(path.read_text("utf-8")).items()})

    def keep_first(self, release: str, looks: AnswerLooks) -> None:
        _put(self._of(release) / "first-answers.json", json.dumps(asdict(looks)))

    def add(self, report: MonitorReport) -> None:
        folder = self._of(report.release)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = 1 + max((int(path.stem.rpartition("-")[2]) for path in folder.glob("window-*.json")), default=0)
        report.write(folder / f"window-{number:06d}.json")

    def reports(self) -> list[MonitorReport]:
        """The newest reports of each release, in the order of their windows."""
        found = []
        for folder in sorted(path for path in self._folder.glob("*") if path.is_dir()):
            found += [MonitorReport.read(path) for path in sorted(folder.glob("window-*.json"))[-_SHOWN:]]
        return sorted(found, key=lambda report: (report.end, report.window))

    def show(self, html: str) -> None:
        _put(self.page, html)

    def _of(self, release: str) -> Path:
        version = release.rpartition("@")[2]
        return self._folder / f"{int(version):06d}"


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
