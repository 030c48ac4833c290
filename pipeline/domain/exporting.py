"""A release that leaves this project: in which form, how far it may be from what was measured, what is said. Pure values."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pipeline.domain.record import FileDigest, Record, Value
from pipeline.domain.tuning import Tuner


class Form(StrEnum):
    """What somebody else loads."""

    ADAPTER = "adapter"
    """A peft adapter, for the base that they have."""
    MERGED = "merged"
    """All weights in one, in the precision of the base's files."""
    QUANTIZED = "quantized"
    """Those in 4-bit NormalFloat, as bitsandbytes saves them."""


BOUNDS: dict[Form, float] = {Form.ADAPTER: 0.001, Form.MERGED: 0.001, Form.QUANTIZED: 0.2}
"""How far a form's logits may be from the tuned model's unless the one who asks says otherwise; see Compared.logits."""
HALF_BOUND = 0.05
"""The same for merged weights where the base's files hold 16-bit numbers, which round by a hundredth of a logit's size."""


class Compared(Value):
    """How far a form's logits are from those of the tuned model as it was trained and measured.

    logits: root mean square of the differences over that of the tuned model's own. divergence: of the probabilities, in nats, on
    average. agreement: share of places with the same likeliest token or label.
    """

    form: Form
    logits: float
    divergence: float
    agreement: float


class Exported(Record):
    """What was exported, or why it was not: compared holds each form that was made on the way, the one asked for last.

    version_record, adapter_digest: which release it is. precision: of the weights (a peft adapter's are always float32).
    files: of what was written, without this record.
    """

    kind: ClassVar[str] = "exported"

    model: str
    version: str
    version_record: str
    training: str
    adapter_digest: str
    base: str
    base_digest: str
    tuner: Tuner
    form: Form
    precision: str
    bound: float
    compared: tuple[Compared, ...]
    files: tuple[FileDigest, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.version_record, self.training, self.base_digest)

    @property
    def ok(self) -> bool:
        """Whether what was asked for, and what it was made of, is near enough."""
        return all(one.logits <= self.bound for one in self.compared if one.form is self.form)
