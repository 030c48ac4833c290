"""A sample of requests with question and answer, and how each went, for the monitor and for who looks into what is asked.

Off unless params ask for it. Personal data is redacted before a line reaches the disk; a line that cannot be redacted is not
written. Readable by the owner alone, and bounded in days and in bytes. What a line holds is domain/monitoring.py's LoggedRequest.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from pipeline.domain.monitoring import LoggedRequest
from pipeline.serving.asked import Labelled, Release
from pipeline.serving.http.keeping import Keeper
from pipeline.serving.http.shapes import Shape
from pipeline.serving.http.wanted import Wanted

_LONGEST_TEXT = 20_000
_PARTS = 16
"""A day's file that has grown to this share of all bytes is followed by another, so that the oldest can go bit by bit."""
_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d{6})\.jsonl")


@dataclass(frozen=True, slots=True)
class Went:
    """How a request went: the endpoint, its seconds in all and to the first piece, and the code of its error, if it had one."""

    endpoint: str
    seconds: float
    first: float | None = None
    error: str | None = None


class RequestLog:
    """Lines of JSON in the folder `path`, a file a day and part.

    redact: takes personal data out of a text. share: of requests. days, max_bytes: after and beyond which files go.
    """

    def __init__(
        self,
        path: Path,
        redact: Callable[[str], str],
        keeper: Keeper,
        *,
        share: float,
        days: int,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._redact = redact
        self._keeper = keeper
        self._share = share
        self._days = days
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()

    def wants(self, id: str) -> bool:
        """Whether this request is in the sample; by its id, so that the choice can be made again."""
        drawn = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8]) / 2**64
        return drawn < self._share

    def answered(self, wanted: Wanted, shape: Shape, release: Release, went: Went) -> None:
        """Have a request written down that was answered with texts, wholly or, where it went wrong, in part."""
        usage = shape.usage()
        texts = ["".join(choice.text) for choice in shape.choices]
        finish = [choice.finish for choice in shape.choices]
        self._note(wanted, release, went, texts, finish, usage["prompt_tokens"], usage["completion_tokens"])

    def labelled(self, wanted: Wanted, found: Sequence[Labelled], release: Release, went: Went) -> None:
        """Have a request written down that was answered with labels."""
        labels = [one.labels[0][0] for one in found]
        self._note(wanted, release, went, labels, [], sum(one.prompt_tokens for one in found), 0)

    def failed(self, wanted: Wanted, release: Release | None, went: Went) -> None:
        """Have a request written down that got no answer."""
        self._note(wanted, release, went, [], [], 0, 0)

    def _note(
        self,
        wanted: Wanted,
        release: Release | None,
        went: Went,
        texts: Sequence[str],
        finish: Sequence[str | None],
        prompt_tokens: int,
        answer_tokens: int,
    ) -> None:
        at = self._clock()

        def work() -> None:
            line = LoggedRequest(
                at=datetime.fromtimestamp(at, UTC),
                id=wanted.id,
                endpoint=went.endpoint,
                release=release.name if release else None,
                digest=release.digest if release else None,
                role=release.role if release else None,
                asked=tuple(self._asked(ask) for ask in wanted.prompts),
                answered=tuple(self._clean(text) for text in texts),
                finish=tuple(finish),
                json_wanted=bool(wanted.asks[0].json_object or wanted.asks[0].schema is not None),
                json_valid=tuple(_is_json(text) for text in texts) if went.endpoint != "classify" else (),
                seconds=round(went.seconds, 6),
                first=round(went.first, 6) if went.first is not None else None,
                prompt_tokens=prompt_tokens,
                answer_tokens=answer_tokens,
                error=went.error,
            )
            self._write(line.model_dump(mode="json"))

        self._keeper.put(work)

    def _asked(self, ask: Any) -> list[dict[str, str]] | str:
        if ask.messages is not None:
            return [{"role": m["role"], "content": self._clean(m["content"])} for m in ask.messages]
        return self._clean(ask.prompt if ask.prompt is not None else ask.text or "")

    def _clean(self, text: str) -> str:
        return self._redact(text)[:_LONGEST_TEXT]

    def _write(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line) + b"\n"
        with self._lock:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            day = datetime.fromtimestamp(self._clock(), UTC)
            files = self._files()
            mine = [file for file in files if file.name.startswith(f"{day:%Y-%m-%d}.")]
            target = mine[-1] if mine else self._path / f"{day:%Y-%m-%d}.000001.jsonl"
            if mine and target.stat().st_size + len(data) > self._max_bytes // _PARTS:
                number = int(_FILE.fullmatch(target.name)[2]) + 1  # type: ignore[index]
                target = self._path / f"{day:%Y-%m-%d}.{number:06d}.jsonl"
            if not target.exists():
                self._make_room([*files, target], day)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(data)

    def _make_room(self, files: list[Path], day: datetime) -> None:
        """Before a file is begun: what is too old goes, and the oldest until another part has room."""
        oldest = f"{day - timedelta(days=self._days):%Y-%m-%d}"
        there = [file for file in files if file.exists()]
        for file in [file for file in there if file.name < oldest]:
            file.unlink(missing_ok=True)
            there.remove(file)
        room = self._max_bytes - self._max_bytes // _PARTS
        total = sum(file.stat().st_size for file in there)
        while there and total > room:
            total -= there[0].stat().st_size
            there.pop(0).unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(file for file in self._path.iterdir() if _FILE.fullmatch(file.name))


def _is_json(text: str) -> bool:
    """Whether an answer is a JSON object or list."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
