"""What a training would take, said before it starts: memory, time and cost of each tuner for each stage of a chain. Pure values.

How numbers are predicted is modeling/hardware/'s; which tuner the plan would take is said here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pipeline.domain.record import Record, Value
from pipeline.domain.tuning import Tuner

LORA_BITS, TOKEN_BITS = 2.0, 1.0
"""What a weight of LoRA can hold, and what a token with a loss has to teach, at most (after Schulman et al., 2025, "LoRA without
regret": LoRA learns as full tuning does until the data outgrow it)."""
_QUALITY = (Tuner.LORA, Tuner.FULL, Tuner.QLORA, Tuner.LAST_LAYERS, Tuner.SOFT_PROMPT)


class Span(Value):
    """A predicted number with the range that it is expected in."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Span:
        return Span(value=self.value * factor, low=self.low * factor, high=self.high * factor)


class Forecast(Value):
    """What one tuner would take in one stage. trainable: numbers that learn. memory: bytes at the peak, the process itself among
    them; parts: what they are for. micro_rows: items in memory at once. seconds: of the whole stage. measured: whether by steps
    that were taken on this machine, else from its speed alone. cost: in the currency of price_per_hour. problem: why it cannot
    be taken here, None when it can."""

    tuner: Tuner
    trainable: int
    memory: Span
    parts: dict[str, int]
    micro_rows: int
    gradient_checkpointing: bool
    seconds: Span
    measured: bool
    cost: Span | None = None
    problem: str | None = None


class StagePlan(Value):
    """One stage. asked: the tuner of params. items: rows or pairs that are learned from; tokens: of one, on average; labelled: of
    those with a loss. steps: of the optimizer. refused: tuners that the objective does not allow, and why. takes: the tuner that
    the plan would take, None when none fits; because: why."""

    name: str
    objective: str
    asked: Tuner
    items: int
    tokens: float
    labelled: float
    steps: int
    forecasts: tuple[Forecast, ...]
    refused: dict[str, str]
    takes: Tuner | None
    because: str

    def forecast(self, tuner: Tuner) -> Forecast | None:
        return next((one for one in self.forecasts if one.tuner is tuner), None)

    @property
    def as_asked(self) -> Forecast | None:
        """What the tuner of params would take."""
        return self.forecast(self.asked)


class Plan(Record):
    """Before a training. snapshot: digest of the data it was reckoned for. data: where that comes from, for people. room: bytes
    that a training may take, and what bounds them. warnings: what to know before starting."""

    kind: ClassVar[str] = "plan"

    snapshot: str
    data: str
    base: str
    weights: int
    machine: dict[str, str]
    room: int
    bound: str
    stages: tuple[StagePlan, ...]
    warnings: tuple[str, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.snapshot,)

    @property
    def fits(self) -> bool:
        """Whether the chain can be run here as params ask for it."""
        return all(stage.as_asked is not None and stage.as_asked.problem is None for stage in self.stages)

    @property
    def seconds(self) -> Span:
        """Of all stages with the tuners of params."""
        found = [stage.as_asked.seconds for stage in self.stages if stage.as_asked is not None]
        return Span(value=sum(s.value for s in found), low=sum(s.low for s in found), high=sum(s.high for s in found))


def pick_tuner(forecasts: Sequence[Forecast], labelled_tokens: float) -> tuple[Tuner | None, str]:
    """The tuner to take among those that can be taken, and why: not the cheapest, the best that fits.

    LoRA while it can hold what the data teach: it then learns as much as full tuning, for less memory, and forgets less. Full
    tuning where the data outgrow LoRA. QLoRA where the weights of neither fit. Then the last layers, then a soft prompt, which
    learn less. labelled_tokens: tokens with a loss in one pass over the data.
    """
    able = {one.tuner: one for one in forecasts if one.problem is None}
    lora, full = able.get(Tuner.LORA), able.get(Tuner.FULL)
    if lora is not None:
        holds, teaches = lora.trainable * LORA_BITS, labelled_tokens * TOKEN_BITS
        if holds >= teaches:
            return Tuner.LORA, f"{lora.trainable:,} weights of LoRA can hold what {labelled_tokens:,.0f} tokens teach"
        said = f"{labelled_tokens:,.0f} tokens teach more than {lora.trainable:,} weights of LoRA can hold"
        if full is not None:
            return Tuner.FULL, f"{said}, and full fits"
        return Tuner.LORA, f"{said}: a greater rank would help; full cannot be taken here"
    for tuner in _QUALITY:
        if tuner in able:
            others = [one for one in _QUALITY[: _QUALITY.index(tuner)] if any(f.tuner is one for f in forecasts)]
            return (
                tuner,
                f"{' and '.join(others)} would be better, but cannot be taken here" if others else "nothing better is allowed",
            )
    return None, "nothing fits"
