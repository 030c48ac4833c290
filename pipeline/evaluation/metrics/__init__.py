"""What is measured on answers, and how it adds up. Plain strings in, plain numbers out; no model enters here.

Every metric is between 0 and 1, more is better, and counts the rows of its own kinds alone. Per-row metrics average over rows;
macro-F1, BLEU and calibration are functions of all rows together and have no per-row score. A metric is one function in one of
the modules here and one line in catalogue.METRICS.
"""

from __future__ import annotations

from pipeline.evaluation.metrics.catalogue import METRICS, chosen, metric, slice_metric
from pipeline.evaluation.metrics.json_answers import json_fields, json_valid
from pipeline.evaluation.metrics.labels import accuracy, confusion_f1, macro_f1
from pipeline.evaluation.metrics.metric import Metric
from pipeline.evaluation.metrics.refusals import refuses
from pipeline.evaluation.metrics.texts import exact_match, rouge_l, token_f1

__all__ = [
    "METRICS",
    "Metric",
    "accuracy",
    "chosen",
    "confusion_f1",
    "exact_match",
    "json_fields",
    "json_valid",
    "macro_f1",
    "metric",
    "refuses",
    "rouge_l",
    "slice_metric",
    "token_f1",
]
