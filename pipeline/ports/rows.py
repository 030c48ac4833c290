"""What steps ask about rows: where they come from, what stands in them, who judges them. Signatures only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.domain.data import CheckResult, SourceFile
from pipeline.params.ingest import IngestParams, Reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total); total 0 when unknown. For progress bars and plain lines."""


def silent(what: str, done: int, total: int) -> None:
    """The Progress that says nothing."""


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file to ingest. name: what records call it, never an absolute path. kind: a value of curation.files.KINDS.

    compressed: gzip or zstd around the whole file, as its name says. modified: seconds since 1970, of the file or of what it was
    made from. reading: how its rows are read. origin: the entry of ingest.sources that it came by. license: of its rows.
    watermark: see SourceFile. staged: `path` is a copy of ours in the staging folder, which no message should name.
    """

    path: Path
    name: str
    kind: str
    compressed: bool
    modified: float
    reading: Reading = field(default_factory=Reading)
    origin: str = ""
    license: str | None = None
    watermark: str | None = None
    staged: bool = False

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.name if self.staged else str(self.path)


class Sources(Protocol):
    """Everything that ingest.sources name, as local files: folders walked, archives unpacked, queries and objects fetched."""

    def find(
        self, params: IngestParams, *, root: Path | None, as_of: datetime | None, earlier: Sequence[SourceFile]
    ) -> Iterator[Found]:
        """The files to read, one after the other, in the order of the entries and, within one, of their names.

        root: what paths are relative to, default the current folder. as_of: what is newer is left for later. earlier: what the
        parent snapshot has read; what is certain to be the same (a query beyond its watermark, an object with the same ETag) need
        not be fetched again. Staged files stay until whoever made the folder removes it. Raises BadInput for what cannot be read,
        TryLater for what may be readable later; both may come after some files have been given.
        """
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Personal data or a secret within a text: text[start:end], and what it is (`email`, `phone`, `aws_key`, …)."""

    start: int
    end: int
    type: str


class Detector(Protocol):
    """Finds personal data, or secrets, in texts. Has no state, and survives pickling, so that each worker can have one."""

    def suspects(self, texts: str) -> bool:
        """False when `texts`, joined by anything, certainly hold nothing: meant to cost next to nothing."""
        ...

    def find(self, text: str) -> list[Finding]:
        """What stands in `text`, in its order, no two findings overlapping. Marks such as <EMAIL> are never found."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """Two answers to one conversation (Example.input), between which a judge is to choose."""

    input: str
    first: str
    second: str


class Judge(Protocol):
    """Says which of two answers is better. A verdict is None where there is none to be had: never a guess, never an error."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    def prefer(self, asked: Sequence[Question], *, progress: Progress = ...) -> list[float | None]:
        """Of each question: 1 the first answer is better, 0 the second, 0.5 neither, None no verdict."""
        ...

    def holds(self, rubric: str, prompt: str, answer: str) -> bool | None:
        """Whether what `rubric` says of an answer is true of this one. prompt: a conversation (Example.input), or a text."""
        ...

    def why_not(self) -> str:
        """Why verdicts are missing, in words, most frequent reason first; empty when none is."""
        ...


class Expectations(Protocol):
    """Runs an expectation suite over a Parquet file. Results carry `error` when an expectation itself broke."""

    def check(self, table: Path, suite: Sequence[Mapping[str, Any]], *, docs: Path) -> tuple[CheckResult, ...]:
        """Check `table` against `suite` (dicts of type, kwargs, and an optional note); build Data Docs (HTML) below `docs`."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors that lie near each other where the texts say much the same."""

    def embed(self, texts: Sequence[str], *, progress: Progress = ...) -> Vectors:
        """float32 [texts, hidden], of unit length, in the order of `texts`."""
        ...
