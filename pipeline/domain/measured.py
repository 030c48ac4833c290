"""The nouns of measuring: candidate, champion and cheaper answers on one test, their suites, slices and costs. Pure values.

Numbers only: how they are made is evaluation/'s, what follows from them gating's. Scores lie in 0 to 1 and more is better; times,
money and bits, which do not, have records of their own here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field

from pipeline.domain.record import FileDigest, Record, Value

CANDIDATE, CHAMPION, BASE = "candidate", "champion", "base"


class Rung(StrEnum):
    """A cheaper answer than tuning, on the same test. Which of them there are depends on the task; see docs/ladder.md."""

    MAJORITY = "majority"
    """Always the commonest answer of the training rows."""
    LINEAR = "linear"
    """TF-IDF and a linear classifier (labels alone)."""
    NEIGHBOUR = "neighbour"
    """The answer of the training row whose words are nearest."""
    ZERO_SHOT = "zero_shot"
    """classify: the label whose name is nearest. Of generate it is the bare base itself, subject `base`."""
    FEW_SHOT = "few_shot"
    """The bare base after a few training rows."""
    RETRIEVAL = "retrieval"
    """The bare base after the training rows nearest to what is asked."""


class MetricValue(Value):
    """A metric over the test split with its confidence interval (bootstrap over groups; see evaluation/statistics.py)."""

    metric: str
    value: float
    low: float
    high: float
    rows: int


class Subject(Value):
    """One of those measured: CANDIDATE, CHAMPION, BASE or a Rung. `identity` is its adapter digest, the base's digest, or that of
    what the rung was made of."""

    name: str
    identity: str
    metrics: tuple[MetricValue, ...]


class Comparison(Value):
    """Paired difference candidate minus other, on the same rows, with its interval.

    p: two-sided, of no difference (paired permutation over groups; evaluation/testing.py); None where the metric has no per-row
    score. discordant: share of rows on which the two score differently. metric NET_WINS: share won less share lost, by a judge.
    """

    metric: str
    other: str
    difference: float
    low: float
    high: float
    rows: int
    p: float | None = None
    discordant: float | None = None


NET_WINS = "net_wins"


class SliceValue(Value):
    """A metric of one subject on the rows where `field` equals `value`, with its interval.

    comparison: candidate minus this subject on the same rows. worse: one-sided p that the candidate is not worse here than this
    subject. adjusted: the same after Holm over all values of the field. All three are None for the candidate itself.
    """

    field: str
    value: str
    subject: str
    metric: str
    score: float
    low: float
    high: float
    rows: int
    comparison: Comparison | None = None
    worse: float | None = None
    adjusted: float | None = None


class SuiteKind(StrEnum):
    """What a suite of rows asks; see docs/suites.md."""

    EDGE_CASES = "edge_cases"
    """Hand-kept YAML: what an answer must hold, must not, its pattern, schema or rubric."""
    MULTIPLE_CHOICE = "multiple_choice"
    """The likeliest of the choices; JSON lines, CSV, or a task of lm-evaluation-harness."""
    FINAL_ANSWER = "final_answer"
    """The number or text at the end of what is worked out; JSON lines, or a task of lm-evaluation-harness."""
    TEXT = "text"
    """Mean likelihood of documents, one over perplexity."""
    SAFETY = "safety"
    """Prompts that must be refused, and prompts that must not."""
    PERTURBED = "perturbed"
    """The test rows asked with misspellings, other case and other spacing: what the primary metric keeps."""
    CANARIES = "canaries"
    """Secrets planted in training rows: how far their likelihood gives them away, in bits (see Exposure)."""


class SuiteReport(Value):
    """One suite: its rows, and what subjects score there. Intervals and comparisons are made as those of the test split.

    file: digest of the file that the rows were read from; None where they are made of the test rows. judged: rows that could be
    scored; fewer than `rows` where a judge did not answer, or an answer was no number: then nothing about it is shown.
    failures: names of rows that the candidate failed, at most 50.
    """

    name: str
    kind: SuiteKind
    file: str | None
    metric: str
    rows: int
    judged: int
    subjects: tuple[Subject, ...]
    comparisons: tuple[Comparison, ...]
    failures: tuple[str, ...] = ()

    def value(self, subject: str) -> MetricValue | None:
        return next((s.metrics[0] for s in self.subjects if s.name == subject and s.metrics), None)

    def comparison(self, other: str) -> Comparison | None:
        return next((c for c in self.comparisons if c.other == other), None)


class Exposure(Value):
    """How far a planted secret is given away: log2 of the number of its like less log2 of its rank among them (Carlini et al.
    2019, "The Secret Sharer"). most: what it could be at most with so many drawn. `name` is the canary's, never its text."""

    name: str
    subject: str
    bits: float
    most: float


class Parity(Value):
    """Whether another way to run the candidate is the one that was measured.

    form: loaded, merged, quantized or served. same_tokens: whether prompts come to the same ids. logits: root mean square of the
    differences over that of the measured one's own; None where the form gives answers alone. agreement: share of rows answered
    the same. bound: of `logits`.
    """

    form: str
    same_tokens: bool
    logits: float | None
    agreement: float
    bound: float
    rows: int


class EvaluationReport(Record):
    """Candidate, champion, bare base and cheaper answers on one test split. `test`: digest of the test side that all of them saw.

    rows: those that were asked. counted: metric: how many of them are of the kinds that it counts; one not named counts all.
    trained_on: test rows that the training learned from, by their ids. detectable: metric: the least difference from the champion
    (else the base) that this test can show at 80 % power. judge: what judged NET_WINS and rubrics, None where nobody did;
    unjudged: why verdicts are missing. files: digest of the SuiteFiles that were read.
    """

    kind: ClassVar[str] = "evaluation_report"

    training: str
    champion: str
    splits: str
    test: str
    rows: int
    subjects: tuple[Subject, ...]
    comparisons: tuple[Comparison, ...]
    slices: tuple[SliceValue, ...]
    predictions: FileDigest
    params: dict[str, Any]
    counted: dict[str, int] = Field(default_factory=dict)
    trained_on: int = 0
    detectable: dict[str, float] = Field(default_factory=dict)
    suites: tuple[SuiteReport, ...] = ()
    exposures: tuple[Exposure, ...] = ()
    parity: tuple[Parity, ...] = ()
    judge: str | None = None
    unjudged: str = ""
    files: str = ""

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.training, self.champion, self.splits)

    @property
    def primary(self) -> str:
        """The first metric."""
        return next(iter(self.params.get("metrics", ())), "")

    @property
    def primary_rows(self) -> int:
        """The rows that the first metric counts."""
        return self.rows_of(self.primary)

    def rows_of(self, metric: str) -> int:
        """The rows that `metric` counts."""
        return self.counted.get(metric, self.rows)

    def subject(self, name: str) -> Subject | None:
        return next((s for s in self.subjects if s.name == name), None)

    def metric(self, subject: str, metric: str) -> MetricValue | None:
        found = self.subject(subject)
        return next((m for m in found.metrics if m.metric == metric), None) if found else None

    def slice(self, field: str, value: str, subject: str) -> SliceValue | None:
        wanted = (field, value, subject)
        return next((s for s in self.slices if (s.field, s.value, s.subject) == wanted), None)

    def comparison(self, other: str, metric: str) -> Comparison | None:
        return next((c for c in self.comparisons if c.other == other and c.metric == metric), None)

    def suite(self, name: str) -> SuiteReport | None:
        return next((s for s in self.suites if s.name == name), None)


class Cost(Value):
    """What one subject took. latency: seconds of one answer asked by itself, median and 95th percentile over `timed` answers.
    tokens_per_second: of answers, asked in batches. tokens of prompts and answers are means; None where no model was asked.
    per_thousand: price of 1,000 answers at params' price an hour, None without one."""

    subject: str
    answers: int
    seconds: float
    timed: int
    latency_p50: float
    latency_p95: float
    prompt_tokens: float | None = None
    answer_tokens: float | None = None
    tokens_per_second: float | None = None
    per_thousand: float | None = None


class CostReport(Record):
    """Times and prices of an evaluation. Apart from it, because they are never the same twice: scores are."""

    kind: ClassVar[str] = "cost_report"

    evaluation: str
    machine: dict[str, str]
    costs: tuple[Cost, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.evaluation,)

    def of(self, subject: str) -> Cost | None:
        return next((c for c in self.costs if c.subject == subject), None)


class SuiteFiles(Record):
    """What params ask evaluation to read, put beside the data so that it is a function of files.

    files: for each path as params say it, the files that lie in the folder of this record: one, or those of a folder.
    """

    kind: ClassVar[str] = "suite_files"

    files: dict[str, tuple[FileDigest, ...]] = Field(default_factory=dict)

    @property
    def parents(self) -> tuple[str, ...]:
        return ()

    def place(self, path: str) -> str:
        """Where what params call `path` lies, relative to the folder of this record."""
        return f"files/{list(self.files).index(path)}"


class HoldoutUse(Record):
    """One look at a test split by the gate, kept in the ledger. Looks at the same rows add up: each may pass a candidate by luck.

    parts: SHA-256 of the test side's files and their rows; a later test that shares most rows with it is the same holdout.
    """

    kind: ClassVar[str] = "holdout_use"

    model: str
    evaluation: str
    parts: tuple[tuple[str, int], ...]

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.evaluation,)
