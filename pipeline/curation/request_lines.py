"""The log of requests, read back: files of one folder, a day and part each, line by line, strictly, memory flat."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from pipeline.domain.monitoring import LoggedRequest

_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d{6})\.jsonl")
_LONGEST = 8 << 20


class RequestLines:
    """Reads `folder`. refused: lines that were none, so far; the last line of a file may be half written, and is not counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.refused = 0

    def since(self, begin: datetime | None) -> Iterator[LoggedRequest]:
        """Lines in the order in which they were written, from the day of `begin` on, or all."""
        first = f"{begin:%Y-%m-%d}" if begin is not None else ""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir()):
            named = _FILE.fullmatch(path.name)
            if named and named[1] >= first:
                yield from self._lines(path)

    def _lines(self, path: Path) -> Iterator[LoggedRequest]:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # gone meanwhile, or a link
            return
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return
            while line := file.readline(_LONGEST):
                if not line.endswith(b"\n"):
                    self.refused += len(line) == _LONGEST
                    continue
                try:
                    yield LoggedRequest.model_validate_json(line)
                except ValidationError:
                    self.refused += 1
