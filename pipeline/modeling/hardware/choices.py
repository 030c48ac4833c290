"""What is chosen for a machine, as values: written beside a stage's checkpoints, read again on a resume, and recorded.

How it is chosen is fitting.py's and probe.py's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.domain.record import canonical_json

RECORD = "machine.json"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Choices:
    """What has to be known before a base is loaded. precision: fp32 or bf16. attention: as transformers names it. kernels: those
    of Liger. because: why, a sentence for each."""

    precision: str
    attention: str
    compile: bool
    kernels: bool
    because: dict[str, str] = field(default_factory=dict)

    @property
    def half(self) -> bool:
        return self.precision == "bf16"


@dataclass(frozen=True, slots=True)
class Fitted:
    """Choices, and how much is computed at once. micro_rows: items (rows, pairs) of a step. tight: memory is given back at once,
    which costs time. predicted: bytes at the peak."""

    micro_rows: int
    gradient_checkpointing: bool
    tight: bool
    choices: Choices
    predicted: int
    because: dict[str, str] = field(default_factory=dict)

    @property
    def machine(self) -> dict[str, str]:
        """For the record of the stage: what was chosen. Why depends on what else ran, and stands in the log and in RECORD."""
        return {
            "micro_rows": str(self.micro_rows),
            "gradient_checkpointing": _on(self.gradient_checkpointing),
            "tight_memory": _on(self.tight),
            "precision": self.choices.precision,
            "attention": self.choices.attention,
            "compile": _on(self.choices.compile),
            "kernels": _on(self.choices.kernels),
            "predicted_mib": str(self.predicted // MIB),
        }


def read_fitted(folder: Path) -> Fitted | None:
    """What was chosen when the stage with this folder began; None when it has not, or was torn before its first step."""
    try:
        kept = json.loads((folder / RECORD).read_bytes())
        return Fitted(**kept | {"choices": Choices(**kept["choices"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_fitted(found: Fitted, folder: Path) -> None:
    """Write it for read_fitted, all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{RECORD}"
    aside.write_text(canonical_json(asdict(found)) + "\n", encoding="utf-8")
    aside.rename(folder / RECORD)


def _on(value: bool) -> str:
    return "on" if value else "off"
