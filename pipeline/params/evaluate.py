"""evaluate: what is measured of a candidate, on which rows, beside whom. No verdict is made of it here; see gate.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.domain.measured import Rung, SuiteKind
from pipeline.params.section import Count, Section

MetricName = Literal[
    "exact_match",
    "token_f1",
    "rouge_l",
    "chrf",
    "bleu",
    "style_match",
    "json_valid",
    "json_schema",
    "json_fields",
    "format_adherence",
    "no_personal_data",
    "not_refused",
    "prefers_chosen",
    "text_likelihood",
    "accuracy",
    "macro_f1",
    "calibration",
    "brier",
]
"""What may stand in evaluate.metrics; docs/metrics.md has a line for each."""
LABEL_METRICS = frozenset({"accuracy", "macro_f1", "calibration", "brier"})

_FILES: dict[SuiteKind, bool] = {kind: kind is not SuiteKind.PERTURBED for kind in SuiteKind}
_SUITE_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class FormatParams(Section):
    """What every answer must look like: read by the metrics json_schema and format_adherence."""

    schema_file: str | None = None
    """A JSON Schema, as a file of the repository."""
    pattern: Annotated[str, Field(max_length=1000)] | None = None
    """A regular expression that the whole answer must match."""
    max_characters: Count | None = None
    """The longest answer allowed."""

    @property
    def asks(self) -> bool:
        return any(value is not None for value in (self.schema_file, self.pattern, self.max_characters))


class LadderParams(Section):
    """Cheaper answers that are measured on the same test."""

    rungs: Annotated[tuple[Annotated[Rung, Field(strict=False)], ...], Field(strict=False)] = tuple(Rung)
    """Which; those that the task has no use for are left out."""
    shots: Annotated[int, Field(ge=1, le=64)] = 4
    """Training rows shown before each question by few_shot and retrieval; classify: rows a label."""
    train_rows: Count = 20_000
    """At most so many training rows are looked among."""


class SuiteParams(Section):
    name: Annotated[str, Field(pattern=_SUITE_NAME)]
    """What the gate and the report call it."""
    kind: Annotated[SuiteKind, Field(strict=False)]
    """edge_cases, multiple_choice, final_answer, text, safety, perturbed or canaries; see docs/suites.md."""
    file: str | None = None
    """The rows: a file of the repository or one put under DVC; or the folder of a task of lm-evaluation-harness, its YAML and its
    rows. perturbed has none."""
    rows: Count | None = None
    """At most so many, drawn by their ids; default: all."""
    shots: Annotated[int, Field(ge=0, le=64)] = 0
    """Worked examples before each question, from the file's own first rows, which are not asked then."""
    max_new_tokens: Count | None = None
    """Default: evaluate.max_new_tokens."""

    @model_validator(mode="after")
    def _check_file(self) -> SuiteParams:
        if _FILES[self.kind] and self.file is None:
            raise ValueError(f"the suite {self.name} needs a file: {self.kind} rows are read from one")
        if not _FILES[self.kind] and self.file is not None:
            raise ValueError(f"the suite {self.name} has no use for a file: it is made of the test rows")
        return self


class JudgeParams(Section):
    """Who says which of two answers is better, and whether a rubric holds."""

    by: Literal["reward_model", "endpoint"]
    """reward_model: an adapter of the objective reward. endpoint: a model behind an OpenAI-compatible address
    (TUNELINE_JUDGE_URL, TUNELINE_JUDGE_KEY)."""
    model: str
    """The model's name at the endpoint; for a reward model ./FOLDER of its adapter."""
    rows: Count = 200
    """At most so many test rows are judged, drawn by their ids; net_wins counts those."""
    criterion: str = "Which answer is more helpful, correct and to the point?"
    """What an endpoint is asked."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """For one judgement, retries apart."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4


class CostParams(Section):
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """What an hour of the serving machine costs, in any currency; answers are priced by it."""
    timed_answers: Count = 10
    """So many test rows are asked one by one, for the latency, and then at most 32 at once, for tokens a second and the price."""


class EvaluateParams(Section):
    metrics: Annotated[tuple[MetricName, ...], Field(min_length=1, strict=False)] = ("exact_match", "token_f1")
    """The first is the primary one. Each counts the test rows of its own kinds: prefers_chosen those of preference and ranking,
    text_likelihood texts, accuracy, macro_f1, calibration and brier labels, the others answers and calls. docs/metrics.md has the
    table."""
    slices: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Fields to break the primary metric down by: label, source, length, language, or any metadata field."""
    format: FormatParams = FormatParams()
    ladder: LadderParams = LadderParams()
    suites: Annotated[tuple[SuiteParams, ...], Field(strict=False)] = ()
    judge: JudgeParams | None = None
    cost: CostParams = CostParams()
    parity_rows: Annotated[int, Field(ge=0, le=512)] = 8
    """So many test rows are asked again of the candidate as it will be loaded and served; 0: none, and nothing is compared."""
    parity_forms: Annotated[tuple[Literal["merged", "quantized"], ...], Field(strict=False)] = ()
    """Exported forms whose logits are compared as well; each costs a copy of the whole model on disk meanwhile."""
    batch_size: Count = 32
    max_new_tokens: Count = 128
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: int = 7

    @model_validator(mode="after")
    def _check(self) -> EvaluateParams:
        problems = []
        names = [suite.name for suite in self.suites]
        problems += [f"suites: two are called {name}" for name in sorted({n for n in names if names.count(n) > 1})]
        if "json_schema" in self.metrics and self.format.schema_file is None:
            problems.append("metrics: json_schema needs evaluate.format.schema_file")
        if "format_adherence" in self.metrics and not self.format.asks:
            problems.append("metrics: format_adherence needs one of the keys of evaluate.format")
        if problems:
            raise ValueError("\n".join(problems))
        return self
