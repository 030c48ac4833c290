"""A sample of requests with question and answer, for those who look into what is asked. Off unless params ask for it.

Personal data is redacted before a line reaches the disk; a line that cannot be redacted is not written. Readable by the owner
alone, and bounded: a full file is followed by another, and only the one before it is kept.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from pipeline.ports import Detector
from pipeline.serving.asked import Release
from pipeline.serving.http.shapes import Shape
from pipeline.serving.http.wanted import Wanted

_LONGEST_TEXT = 20_000


class RequestLog:
    """Lines of JSON in `path`: when, which release, what was asked and answered."""

    def __init__(
        self, path: Path, detector: Detector, *, share: float, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._detector = detector
        self._share = share
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()

    def wants(self, id: str) -> bool:
        """Whether this request is in the sample; by its id, so that the choice can be made again."""
        drawn = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8]) / 2**64
        return drawn < self._share

    def note(self, wanted: Wanted, shape: Shape, release: Release) -> None:
        """Write one request down."""
        asked = [
            [{"role": m["role"], "content": self._clean(m["content"])} for m in ask.messages]
            if ask.messages is not None
            else self._clean(ask.prompt or "")
            for ask in wanted.prompts
        ]
        self._write(
            {
                "at": self._clock(),
                "id": wanted.id,
                "release": release.name,
                "digest": release.digest,
                "asked": asked,
                "answered": [self._clean("".join(choice.text)) for choice in shape.choices],
                "finish": [choice.finish for choice in shape.choices],
            }
        )

    def _clean(self, text: str) -> str:
        for finding in reversed(self._detector.find(text)):
            text = f"{text[: finding.start]}<{finding.type.upper()}>{text[finding.end :]}"
        return text[:_LONGEST_TEXT]

    def _write(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line) + b"\n"
        with self._lock:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size + len(data) > self._max_bytes:
                self._path.replace(self._path.with_suffix(".before.jsonl"))
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(data)
