"""Documents as they are, and how likely a subject finds them: what general text it still knows."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from pipeline.errors import BadInput
from pipeline.evaluation.suites.files import MOST_CHARACTERS, MOST_ROWS, Fields, File, json_lines, text_of
from pipeline.evaluation.suites.suite import Scores, Ways
from pipeline.ports import Judge

METRIC = "text_likelihood"


@dataclass(frozen=True, slots=True)
class Document:
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Documents:
    """Scores the geometric mean of the probabilities of a document's tokens: one over its perplexity. Six decimals: what comes
    after depends on the batch."""

    documents: tuple[Document, ...]

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        texts = [document.text for document in self.documents]
        found = ways.log_probs(subject, [""] * len(texts), texts)
        return [round(math.exp(min(value, 0.0)), 6) if math.isfinite(value) else None for value in found]


def read_documents(file: File) -> list[tuple[Document, Any]]:
    """JSON lines with a `text` each, or (any other ending than .jsonl) plain text, whose documents are parted by blank lines."""
    if file.suffix == ".jsonl":
        found = []
        for number, (where, row) in enumerate(json_lines(file), 1):
            fields = Fields(row, where)
            document = Document(fields.optional_text("name") or f"row {number}", fields.text("text"))
            fields.done()
            found.append((document, document.text))
        return found
    parts = [part.strip() for part in re.split(r"\r?\n[ \t]*\r?\n", text_of(file)) if part.strip()]
    if len(parts) > MOST_ROWS:
        raise BadInput(f"the file has more than {MOST_ROWS} documents", where=str(file), fix="split the suite")
    if long := next((n for n, part in enumerate(parts, 1) if len(part) > MOST_CHARACTERS), None):
        raise BadInput(
            f"document {long} is longer than {MOST_CHARACTERS} characters", where=str(file), fix="part it by blank lines"
        )
    return [(Document(f"document {number}", part), part) for number, part in enumerate(parts, 1)]
