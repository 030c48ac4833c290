"""Which weights learn, a module a kind: put on a base for training.

`tunable` gives the loop a model whose parameters that learn are trainable, and no others. Writing what was tuned is adapter.py's,
believing it again admission.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import Output
from pipeline.params import StageParams


def tunable(
    base: Path, ref: BaseModelRef, stage: StageParams, output: Output, labels: Sequence[str] = (), *, start: Path | None = None
) -> Any:
    """The base in `base` (which describe_base calls `ref`) ready to be tuned as `stage` says, on loading.device(), in eval mode.

    Trainable parameters are fp32, all others frozen. What is new is drawn from torch's random state: seed it first. start: an
    adapter folder (of ours, or a peft LoRA from elsewhere) that is admitted strictly and gone on from; see starting.py. Raises
    Misuse for what does not go together, Broken for a start that is not what it says.
    """
    from pipeline.modeling.tuners.starting import begin  # late: admission, which it needs, needs this package

    return begin(base, ref, stage, output, tuple(labels), start=start)
