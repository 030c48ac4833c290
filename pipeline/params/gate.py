"""gate: what is asked of a candidate before it may be registered. The rules are domain/gating's; here are their bounds.

Metrics and suites named here must be measured (params/__init__.py holds the sections together): a rule about a number that nobody
makes would never pass, and would be found out only after the training.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.section import Section

Margin = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class HoldoutParams(Section):
    """Each look at the same test rows may pass a candidate by luck: how the chance of that is kept in bounds over all looks."""

    spending: Literal["harmonic", "even", "off"] = "harmonic"
    """harmonic: the n-th look gets 1 / (n (n + 1)) of the allowed chance. even: each of `looks` the same, none after them.
    off: each look all of it, as if the rows were fresh."""
    looks: Annotated[int, Field(ge=1, le=10_000)] = 30
    """even: so many looks there may be; a later one is insufficient."""


class SliceRule(Section):
    """For slices by one field: worse than the champion (else the base) by more than `margin`, beyond chance, in any one fails."""

    margin: Margin = 0.0
    min_rows: Annotated[int, Field(ge=1)] = 10
    """A slice of fewer rows is shown, not judged."""


class CeilingParams(Section):
    """The most that answers may take, as measured on the machine of the run (docs/gate.md)."""

    latency_p50: Annotated[float, Field(gt=0)] | None = None
    """Seconds."""
    latency_p95: Annotated[float, Field(gt=0)] | None = None
    """Seconds."""
    per_thousand: Annotated[float, Field(ge=0)] | None = None
    """Price of 1,000 answers; needs evaluate.cost.price_per_hour."""
    slower_than_champion: Annotated[float, Field(gt=0)] | None = None
    """Median latency over the champion's (where nobody holds production, the bare base's): 1.5 allows half as much again."""


class GateParams(Section):
    min_test_rows: Annotated[int, Field(ge=1)] = 100
    """Fewer that the primary metric counts are insufficient, which never passes."""
    thresholds: dict[str, Share] = {}
    """Metric: the least value; the lower end of the interval must reach it."""
    not_worse_than_champion: dict[str, Margin] = {}
    """Metric: margin; the lower end of (candidate - champion) must be above -margin."""
    better_than_champion: dict[str, Margin] = {}
    """Metric: margin; the lower end of (candidate - champion) must be above it."""
    better_than_base: dict[str, Margin] = {}
    """Metric: margin; the lower end of (candidate - bare base) must be above it."""
    worth_tuning: dict[str, Margin] = {}
    """Metric: margin; the lower end of (candidate - each rung of the ladder) must be above it."""
    suites: dict[str, Share] = {}
    """Suite: the least score; the lower end of the interval must reach it. Edge cases and safety are no sample: there the score
    itself must."""
    forgetting: dict[str, Margin] = {}
    """Suite: budget; the lower end of (candidate - champion, else bare base) must be above -budget."""
    slices: dict[str, SliceRule] = {}
    """Field of evaluate.slices: how much worse no slice may be."""
    overfitting_gap: Annotated[float, Field(ge=0)] | None = None
    """The most that the loss on the eval side may be above that of training, in nats."""
    exposure: Annotated[float, Field(ge=0)] | None = None
    """The most bits by which any canary may be given away (a suite of canaries is needed)."""
    ceilings: CeilingParams = CeilingParams()
    parity: Annotated[tuple[Literal["loaded", "merged", "quantized", "served"], ...], Field(strict=False)] = ("loaded", "served")
    """Ways to run the candidate that must be the one that was measured; one that was not run is insufficient. With
    evaluate.parity_rows 0 none is asked about."""
    holdout: HoldoutParams = HoldoutParams()
