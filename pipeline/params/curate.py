"""The sections `curate` and `split`: what is asked across the rows of a snapshot, and who learns and who is held out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.params.ingest import SourceParams
from pipeline.params.section import Count, Policy, Section, Share


class NearDuplicates(Section):
    policy: Literal["off", "warn", "drop"] = "off"
    """drop keeps the earliest row of those that are alike."""
    threshold: Annotated[float, Field(ge=0.3, le=1)] = 0.8
    """Jaccard similarity of character shingles from which two rows are near duplicates."""


class Planted(Section):
    policy: Policy = "warn"
    """What becomes of rows that share a run of words and an answer, or a label, and nothing else (docs/monitoring.md)."""
    least_rows: Annotated[int, Field(ge=5)] = 10
    """Fewer rows than this prove nothing. From about 15 of one label on they are found."""
    false_alarms: Annotated[float, Field(ge=0.0001, le=0.2)] = 0.01
    """Of snapshots that hold nothing planted, how many may be said to."""


class Shares(Section):
    """Shares that no part of the data may exceed."""

    policy: Literal["warn", "drop", "block"] = "block"
    """drop leaves out the newest rows of what is beyond its share."""
    origin: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of all rows, the most that one entry of ingest.sources may hold."""
    feedback: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of all rows, the most that users' feedback may hold: rows of the kind, and all that come by an entry `feedback: true`."""
    caller: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of all rows, the most that the feedback of one caller (an API key) may hold."""


class CurateParams(Section):
    """Rules run in the order of these keys; each sees what those before it left."""

    leave_out: str | None = None
    """A reviewed CSV of the project with the column id, and reason if there is one: rows that a person wants left out."""
    max_input_tokens: Count | None = None
    """Longer inputs are left out, counted in tokens of the base without what the chat template adds."""
    max_output_tokens: Count | None = None
    """Longer outputs are left out. Labels are not counted."""
    contradictions: Policy = "warn"
    """The same prompt with different answers; drop leaves all of them out."""
    given_away: Policy = "warn"
    """Prompts that hold their answer: a label by its name, an answer of 15 characters or more in the last message."""
    repeats: Policy = "drop"
    """The same prompt with the same answer but for case, white space and Unicode composition; drop keeps the earliest."""
    near_duplicates: NearDuplicates = NearDuplicates()
    planted: Planted = Planted()
    shares: Shares = Shares()
    consistency: Literal["off", "warn", "block"] = "warn"
    """Answers of one dataset in several shapes: some JSON and some not, other keys, another script."""
    odd_answers: Literal["off", "list"] = "list"
    """generate: list the answers that are far from the others in length or style, the oddest first. Nothing is dropped."""
    label_errors: Literal["off", "list"] = "off"
    """classify: list the labels that cross-validated models disagree with, the most suspicious first. Nothing is dropped."""
    max_label_ratio: Annotated[float, Field(ge=1)] | None = None
    """classify: how many times the rows of the rarest label the commonest may have; beyond it the run ends."""


class LeakParams(Section):
    """What becomes of rows to train on that repeat rows held out (eval, test, benchmarks, edge cases)."""

    exact: Policy = "block"
    """The prompt is that of a held-out row but for case, white space and punctuation."""
    near: Policy = "block"
    """The prompt differs from that of a held-out row in few words; see `near_threshold`."""
    ngram: Policy = "block"
    """A share of the runs of words in a held-out prompt stands in the row, in its prompt or its answer."""
    near_threshold: Annotated[float, Field(ge=0.7, le=1)] = 0.85
    """Share of words, of the longer prompt, that both must have; one word may always differ, unless this is 1."""
    near_words: Count = 3
    """Prompts of fewer words are near to none: one word changed makes another question of them."""
    ngram_words: Annotated[int, Field(ge=3, le=50)] = 13
    ngram_share: Annotated[float, Field(gt=0, le=1)] = 0.5


class SplitParams(Section):
    eval: Share = 0.05
    test: Share = 0.15
    salt: str = "tuneline"
    """Drawn with for groups that are new; those of earlier runs stay where they are."""
    stratify: str | None = None
    """`label`, `source`, or a metadata field: each of its values gets its share of eval and test."""
    max_test_rows: Count | None = None
    """Once the test side holds so many rows it takes no new groups."""
    benchmarks: Annotated[tuple[str | SourceParams, ...], Field(strict=False)] = ()
    """Sets that must not be trained on."""
    edge_cases: Annotated[tuple[str | SourceParams, ...], Field(strict=False)] = ()
    """A hand-kept suite. Rows with the prompt of one, or of a benchmark, are never trained on, whatever `leaks` says."""
    leaks: LeakParams = LeakParams()

    @model_validator(mode="after")
    def _check_shares(self) -> SplitParams:
        if self.eval + self.test > 0.9:
            raise ValueError("eval + test leave less than a tenth for train")
        if any(not isinstance(entry, str) and entry.feedback for entry in (*self.benchmarks, *self.edge_cases)):
            raise ValueError("feedback is taken in by ingest.sources alone: nothing is held out of it")
        return self
