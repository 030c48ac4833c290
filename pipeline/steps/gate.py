"""Judge the candidate by the policy of params.yaml and record the decision. The rules themselves are in domain/gating.py."""

from __future__ import annotations

from pathlib import Path

from pipeline.domain.gating import GateDecision, GatePolicy, decide
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import TrainingRun
from pipeline.params import GateParams


def gate(evaluation: EvaluationReport, training: TrainingRun, params: GateParams, *, out: Path | None = None) -> GateDecision:
    """Decide, and write decision.json into the folder `out` if one is given. A refused candidate is a value, not an error.

    Raises Misuse when the evaluation is of another candidate, Broken when it holds impossible numbers.
    """
    decision = decide(evaluation, training, GatePolicy.model_validate(params.model_dump()))
    if out is not None:
        decision.write(out / "decision.json")
    return decision
