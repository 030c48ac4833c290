"""Judge the candidate by the policy of params.yaml and record the decision; count the looks at a holdout in the ledger.

The rules themselves are in domain/gating/.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pipeline.domain.curated import SplitSide
from pipeline.domain.gating import GateDecision, GatePolicy, decide, earlier_looks
from pipeline.domain.measured import CostReport, EvaluationReport, HoldoutUse
from pipeline.domain.model import TrainingRun
from pipeline.domain.release import Event, EventKind
from pipeline.errors import Conflict, Stale, TryLater
from pipeline.moving import ATTEMPTS, utc_now
from pipeline.params import GateParams
from pipeline.ports import Ledger


def gate(
    evaluation: EvaluationReport,
    training: TrainingRun,
    params: GateParams,
    *,
    costs: CostReport | None = None,
    looks: int = 1,
    out: Path | None = None,
) -> GateDecision:
    """Decide, and write decision.json into the folder `out` if one is given. A refused candidate is a value, not an error.

    costs: for ceilings. looks: which look at this holdout it is, as `spend` says.
    Raises Misuse when the evaluation is of another candidate, Broken when it holds impossible numbers.
    """
    decision = decide(evaluation, training, GatePolicy.model_validate(params.model_dump()), costs=costs, looks=looks)
    if out is not None:
        decision.write(out / "decision.json")
    return decision


def spend(
    evaluation: EvaluationReport,
    test: SplitSide,
    *,
    model: str,
    by: str,
    ledger: Ledger,
    now: Callable[[], datetime] = utc_now,
) -> int:
    """Write into the ledger that `evaluation` looked at the test side, and return which look at this holdout it is, from 1.

    Safe to repeat: an evaluation looks once, however often it is decided on, and its number stays. A holdout is the same while
    more than half of the test rows were looked at before. A test side without rows shows nothing, and is no look.
    """
    use = HoldoutUse(
        model=model, evaluation=evaluation.digest, parts=tuple((part.sha256, part.rows) for part in test.parts if part.rows)
    )
    if not use.parts:
        return 1
    for _ in range(ATTEMPTS):
        events = ledger.events(model)
        known = holdout_uses(events)
        ours = [at for at, one in enumerate(known) if one.evaluation == use.evaluation]
        before = earlier_looks(use.parts, known[: ours[0]] if ours else known)
        number = len(before) + 1
        if ours:
            return number
        try:
            ledger.append(
                model,
                EventKind.JUDGED,
                expected=len(events),
                version="",
                subject=use.digest,
                stage=None,
                leaves=None,
                actor=by,
                reason=f"look {number} at a test of {test.rows} rows",
                at=now(),
                record=use.to_json(),
            )
        except Stale:
            raise
        except Conflict:
            continue
        return number
    raise TryLater(f"the ledger of {model} is busier than {ATTEMPTS} tries", fix="try again")


def holdout_uses(events: tuple[Event, ...]) -> list[HoldoutUse]:
    """What the judged events among a model's events say, oldest first."""
    return [
        HoldoutUse.from_json(event.record, where=f"ledger, event {event.sequence}", digest=event.subject)
        for event in events
        if event.event is EventKind.JUDGED and event.record is not None
    ]
