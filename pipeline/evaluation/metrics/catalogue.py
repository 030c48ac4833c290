"""All metrics, a line each, and how those that params have settings for are bound to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from pipeline.domain.data import ExampleKind
from pipeline.errors import Misuse
from pipeline.evaluation.likelihoods import PAIRED, prefers_chosen, text_likelihood
from pipeline.evaluation.metrics.json_answers import json_fields, json_valid
from pipeline.evaluation.metrics.json_schemas import json_schema
from pipeline.evaluation.metrics.labels import accuracy, brier, calibration, confusion_f1
from pipeline.evaluation.metrics.manners import format_adherence, no_personal_data
from pipeline.evaluation.metrics.metric import Metric, Scores, Whole, each
from pipeline.evaluation.metrics.patterns import matcher
from pipeline.evaluation.metrics.refusals import not_refused
from pipeline.evaluation.metrics.texts import bleu, chrf, exact_match, rouge_l, style_match, token_f1
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Statistic
from pipeline.params.evaluate import EvaluateParams
from pipeline.ports import Detector


def metric(name: str) -> Metric:
    """The metric called so. Raises Misuse with the names there are."""
    if name not in METRICS:
        raise Misuse(f"there is no metric {name!r}", fix=f"use one of {', '.join(METRICS)}")
    return METRICS[name]


def slice_metric(primary: Metric) -> Metric:
    """What slices are measured by: the primary metric; where that has no score a row, the one that stands in for it.

    Within the rows of one label nothing else can be called that label wrongly, so an F1 there would only be recall in disguise.
    """
    return primary if primary.by_slice is None else METRICS[primary.by_slice]


def chosen(params: EvaluateParams, *, root: Path, detector: Detector | None = None) -> tuple[Metric, ...]:
    """The metrics that `params` name, in their order, bound to their settings. root: where the path of a schema file starts.
    detector: of personal data, for no_personal_data.

    Raises Misuse for a schema or pattern that cannot be used, saying which.
    """
    asked = params.format

    def schema() -> Callable[[str, str], float] | None:
        if asked.schema_file is None:
            return None
        where = f"evaluate.format.schema_file, {asked.schema_file}"
        path = (root / asked.schema_file).resolve()
        if not path.is_relative_to(root.resolve()):
            raise Misuse("the JSON Schema must lie in the repository", where=where)
        return json_schema(path, where)

    def bound(name: str) -> Metric:
        found = metric(name)
        if name == "json_schema" and (score := schema()) is not None:
            return replace(found, row=each(score))
        if name == "format_adherence":
            where = "evaluate.format.pattern"
            matches = None if asked.pattern is None else matcher(asked.pattern, where, whole=True)
            return replace(found, row=each(format_adherence(matches, schema(), asked.max_characters)))
        if name == "no_personal_data" and detector is not None:
            return replace(found, row=no_personal_data(detector))
        return found

    return tuple(bound(name) for name in dict.fromkeys(params.metrics))


def _unbound(name: str, needs: str) -> Scores:
    def scores(rows: SplitRows, said: Said) -> None:
        raise Misuse(f"the metric {name} scores nothing before it is given {needs}", fix="ask metrics.chosen() for it")

    return scores


def _f1_of_labels(rows: SplitRows, said: Said) -> Statistic:
    return confusion_f1(rows.expected, said.texts)


_ANSWERS = frozenset({ExampleKind.ANSWER, ExampleKind.CALL})
_LABELS, _TEXTS = frozenset({ExampleKind.LABEL}), frozenset({ExampleKind.TEXT})


def _all(name: str, title: str, definition: str, kinds: frozenset[ExampleKind], whole: Whole, by_slice: str) -> Metric:
    """A metric that takes all rows together."""
    return Metric(name, title, definition, kinds, None, whole, by_slice)


_SCHEMA, _FORM, _DETECTOR = (
    _unbound("json_schema", "a schema"),
    _unbound("format_adherence", "a form"),
    _unbound("no_personal_data", "a detector"),
)
METRICS = MappingProxyType(
    {
        m.name: m
        for m in (
            Metric("exact_match", "Exact match", "same text up to whitespace", _ANSWERS, each(exact_match)),
            Metric("token_f1", "Token F1", "overlap of the bags of words", _ANSWERS, each(token_f1)),
            Metric("rouge_l", "ROUGE-L", "F1 of the longest common subsequence of words", _ANSWERS, each(rouge_l)),
            Metric("chrf", "chrF", "F2 of character n-grams, mean over answers", _ANSWERS, each(chrf)),
            _all("bleu", "BLEU", "n-gram precision of all answers together", _ANSWERS, bleu, "chrf"),
            Metric("style_match", "Style match", "same shapes: capitals, signs, lines", _ANSWERS, each(style_match)),
            Metric("json_valid", "Valid JSON", "the answer is one JSON value", _ANSWERS, each(json_valid)),
            Metric("json_schema", "Obeys schema", "JSON that obeys evaluate.format.schema_file", _ANSWERS, _SCHEMA),
            Metric("json_fields", "JSON fields", "F1 of the fields with their values", _ANSWERS, each(json_fields)),
            Metric("format_adherence", "Right form", "all that evaluate.format asks for", _ANSWERS, _FORM),
            Metric("no_personal_data", "No personal data", "none but from prompt or expected answer", _ANSWERS, _DETECTOR),
            Metric("not_refused", "Not refused", "no refusal, unless one is expected", _ANSWERS, each(not_refused)),
            Metric("prefers_chosen", "Prefers chosen", "finds the better answer likelier, a token", PAIRED, each(prefers_chosen)),
            Metric("text_likelihood", "Text likelihood", "mean over texts of 1 / perplexity", _TEXTS, each(text_likelihood)),
            Metric("accuracy", "Accuracy", "right label", _LABELS, each(accuracy)),
            _all("macro_f1", "Macro F1", "mean F1 of the labels in the test split", _LABELS, _f1_of_labels, "accuracy"),
            _all("calibration", "Calibration", "1 - expected calibration error, 15 bins", _LABELS, calibration, "brier"),
            Metric("brier", "Brier", "1 - mean squared error of the confidence", _LABELS, brier),
        )
    }
)
"""All metrics by the names that params.yaml uses."""
