"""What the drill of the gate is made of: bad candidates, each with the reason it must be refused for, and good ones.

Those of the desk that labels stand in gate_bad_adapters.py, gate_bad_labels.py and gate_bad_reports.py, those of the other in
gate_bad_answers.py. Most are a good candidate with one thing changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.domain.gating import GateDecision, Outcome
from pipeline.errors import TunelineError
from tests.drills.gate_worlds import Tuned, World

Trial = Callable[[World], GateDecision | Tuned]
"""Makes a candidate; measures and judges it too where that is not done as usual. May raise, which refuses as well."""


@dataclass(frozen=True)
class Bad:
    """because: the check that must refuse it, or the error that must be raised. verdict: what the check says. says: words that
    must stand in the reason. alone: no other check may refuse it, so nothing else would have caught it."""

    name: str
    because: str | type[TunelineError]
    trial: Trial
    says: str = ""
    verdict: Outcome = Outcome.FAILED
    alone: bool = False


@dataclass(frozen=True)
class Good:
    """params: of its training, beside the usual ones."""

    name: str
    params: dict[str, Any]


def judged(world: World, found: GateDecision | Tuned) -> GateDecision:
    return found if isinstance(found, GateDecision) else world.judged(found)


def why_not(decision: GateDecision) -> str:
    """What a decision says against a candidate, a line a check."""
    return "\n".join(f"{check.verdict} {check.name}: {check.detail}" for check in decision.failed)


def refused(world: World, bad: Bad) -> str:
    """Try the bad candidate; returns what it was refused with. Raises AssertionError for a pass, or another reason."""
    found = _tried(world, bad)
    if isinstance(found, TunelineError):
        said = f"{type(found).__name__}: {found.what}"
        assert type(found) is bad.because, f"{bad.name}: {bad.because} was to refuse it, and this was raised: {said}"
        assert bad.says in str(found), f"{bad.name}: {bad.says!r} is not in {found}"
        return said
    assert found.verdict is not Outcome.PASSED, f"{bad.name} passed"
    named = next((check for check in found.failed if check.name == bad.because), None)
    assert named is not None, f"{bad.name}: {bad.because} did not refuse it, but\n{why_not(found)}"
    assert named.verdict is bad.verdict, f"{bad.name}: {named.verdict} {named.detail}"
    assert bad.says in named.detail, f"{bad.name}: {bad.says!r} is not in {named.detail}"
    if bad.alone:
        assert [check.name for check in found.failed] == [bad.because], f"{bad.name}: more refused it\n{why_not(found)}"
    return f"{bad.because} {named.verdict}: {named.detail}"


def _tried(world: World, bad: Bad) -> GateDecision | TunelineError:
    try:
        return judged(world, bad.trial(world))
    except TunelineError as error:
        return error


def passed(world: World, good: Good) -> GateDecision:
    """Train, measure and judge a good candidate. Raises AssertionError when it is refused."""
    decision = world.judged(world.trained(good.name, **good.params))
    assert decision.verdict is Outcome.PASSED, f"{good.name} was refused:\n{why_not(decision)}"
    return decision


GOOD: dict[str, tuple[Good, ...]] = {
    "labels": (
        *(Good(f"labels-seed-{seed}", {"seed": seed}) for seed in (2, 3, 4, 6)),
        Good("labels-rate-3e-3", {"learning_rate": 3e-3}),
        Good("labels-rate-5e-3", {"learning_rate": 5e-3}),
        Good("labels-rank-4", {"rank": 4, "alpha": 8}),
        Good("labels-rank-16", {"rank": 16, "alpha": 32, "learning_rate": 3e-3}),
        Good("labels-rslora", {"rslora": True, "alpha": 4}),
        Good("labels-from-champion", {"start": "champion", "learning_rate": 3e-4, "max_steps": 20}),
    ),
    "answers": (
        *(Good(f"answers-seed-{seed}", {"seed": seed}) for seed in (2, 3, 4, 5, 7)),
        Good("answers-rank-8", {"rank": 8, "alpha": 16}),
        Good("answers-rslora", {"rslora": True, "alpha": 8}),
        Good("answers-dropout", {"dropout": 0.05, "seed": 6}),
        Good("answers-longer", {"max_steps": 200}),
        Good("answers-from-champion", {"start": "champion", "learning_rate": 3e-4, "max_steps": 40}),
    ),
}
