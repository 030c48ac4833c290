"""Whether what a window shows is beyond what is allowed, and beyond chance. Plain numbers in, measures out.

A share (of answers that are unusable, of requests that take too long) fires when so many, or more, would be seen with at most the
chance `false_alarms` if the true share were just what is allowed: the exact binomial test. A mean (cost) fires by Student's t.
Nothing fires because a window is small.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import regex

from pipeline.domain.monitoring import CanaryAnswer, CanaryPrompt, Measure
from pipeline.domain.signals import SignalKind
from pipeline.evaluation.drift import LEAST_ROWS

_PATTERN_SECONDS = 1.0


def quantile(values: Sequence[float], at: float) -> float:
    """The least value that a share `at` of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return float(ordered[max(math.ceil(at * len(ordered)) - 1, 0)]) if ordered else 0.0


def share(what: SignalKind, bad: int, of: int, *, allowed: float, false_alarms: float, said: str) -> Measure:
    """A share of rows that are bad. said: what they are, e.g. 'answers are unusable'."""
    from scipy.stats import binom

    if not of:
        return Measure(what=what, judged=False, fired=False, amount=0.0, allowed=allowed, detail=f"no {said.split()[0]}")
    p = float(binom.sf(bad - 1, of, allowed))
    return Measure(
        what=what,
        judged=True,
        fired=bad > allowed * of and p <= false_alarms,
        amount=bad / of,
        allowed=allowed,
        p=p,
        detail=f"{bad} of {of} {said}",
    )


def latency(seconds: Sequence[float], *, p95: float | None, false_alarms: float) -> Measure:
    """No more than a twentieth of requests may take longer than `p95` seconds; without it, times are told alone."""
    seen = quantile(seconds, 0.95)
    if p95 is None or not seconds:
        detail = f"half within {quantile(seconds, 0.5):.3f} s, 95 in 100 within {seen:.3f} s"
        return Measure(what=SignalKind.LATENCY, judged=False, fired=False, amount=seen, detail=detail)
    slow = sum(value > p95 for value in seconds)
    said = f"requests took longer than {p95:g} s"
    found = share(SignalKind.LATENCY, slow, len(seconds), allowed=0.05, false_alarms=false_alarms, said=said)
    return found.model_copy(update={"amount": seen, "allowed": p95})


def cost(costs: Sequence[float], *, per_thousand: float | None, false_alarms: float) -> Measure:
    """What a thousand requests cost. costs: of each request."""
    from scipy.stats import t

    mean = float(np.mean(costs)) if costs else 0.0
    detail = f"a thousand requests cost {1000 * mean:.4g}"
    if per_thousand is None or len(costs) < LEAST_ROWS:
        return Measure(what=SignalKind.COST, judged=False, fired=False, amount=1000 * mean, allowed=per_thousand, detail=detail)
    spread = float(np.std(costs, ddof=1)) / math.sqrt(len(costs))
    beyond = mean - per_thousand / 1000
    p = float(t.sf(beyond / spread, len(costs) - 1)) if spread else float(beyond <= 0)
    fired = beyond > 0 and p <= false_alarms
    return Measure(what=SignalKind.COST, judged=True, fired=fired, amount=1000 * mean, allowed=per_thousand, p=p, detail=detail)


def canaries(answers: Sequence[CanaryAnswer], *, failures: int) -> Measure:
    """Fixed questions with fixed answers: no chance is in it where answers are greedy, so no p."""
    failed = [answer.name for answer in answers if not answer.passed]
    detail = f"{len(failed)} of {len(answers)} canary prompts failed" + (f": {', '.join(failed[:5])}" if failed else "")
    fired = len(failed) > failures
    return Measure(
        what=SignalKind.CANARY,
        judged=bool(answers),
        fired=fired,
        amount=float(len(failed)),
        allowed=float(failures),
        detail=detail,
    )


def canary_answer(prompt: CanaryPrompt, answer: str) -> CanaryAnswer:
    """Whether an answer to a canary prompt holds, and if not why, without a word of it."""
    why = ""
    if prompt.expect is not None and answer.strip() != prompt.expect.strip():
        why = "not what is expected"
    if prompt.pattern is not None:
        try:
            why = "" if regex.search(prompt.pattern, answer, timeout=_PATTERN_SECONDS) else "the pattern is not in it"
        except TimeoutError:
            why = f"the pattern took more than {_PATTERN_SECONDS:g} s"
    if prompt.fields is not None:
        why = _missing(prompt.fields, answer)
    return CanaryAnswer(name=prompt.name, passed=not why, why=why)


def _missing(fields: dict[str, Any], answer: str) -> str:
    try:
        said = json.loads(answer)
    except ValueError:
        return "no JSON"
    if not isinstance(said, dict):
        return "no JSON object"
    wrong = sorted(name for name, value in fields.items() if name not in said or said[name] != value)
    return f"differs in {', '.join(wrong)}" if wrong else ""
