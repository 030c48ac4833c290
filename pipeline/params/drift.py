"""The section `drift`: what counts as drift of fresh rows from earlier ones, and what becomes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.section import Fraction, Section

Aspect = Literal["input_length", "output_length", "label", "origin", "language", "kind", "text"]


class DriftParams(Section):
    policy: Literal["off", "warn", "block"] = "warn"
    """off: not looked for. warn: it is in the report. block: the run ends before anything is trained."""
    reference: Literal["all", "previous"] = "all"
    """What the newest batch is compared with: all earlier rows, or the newest shards before it that hold `max_rows`."""
    aspects: Annotated[tuple[Aspect, ...], Field(min_length=1, strict=False)] = (
        "input_length",
        "output_length",
        "label",
        "origin",
        "language",
        "kind",
        "text",
    )
    """What is compared. Aspects that all rows share, such as the only kind there is, are passed over."""
    false_alarms: Annotated[float, Field(ge=0.001, le=0.2)] = 0.01
    """Of comparisons in which nothing has changed, how many may still report drift in any aspect."""
    min_effect: Fraction = 0.1
    """Smaller shifts are no drift, however sure: 0.1 means that who guesses a row's side gains a tenth."""
    text: Literal["words", "embeddings"] = "words"
    """How texts are compared: by their words, or by MiniLM embeddings."""
    max_rows: Annotated[int, Field(ge=100, le=5000)] = 1000
    """So many rows a side are drawn, by the hash of their content; the cost grows with the square."""
