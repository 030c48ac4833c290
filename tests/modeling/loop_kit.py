"""What the tests of the loop are made of: a learner of a few hundred weights, and a loop around it in a folder."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from modeling_kit import Remembering
from torch import nn

from pipeline.modeling.learning.learner import Losses
from pipeline.modeling.loop.curves import Curves
from pipeline.modeling.loop.loop import Loop
from pipeline.modeling.texts.rows import EpochOrder
from pipeline.params import StageParams
from pipeline.ports import silent

KINDS = 3

gc.freeze()  # the Trainer collects garbage each time; libraries are none, and there is much of them


class Bag(nn.Module):
    """Logits [rows, KINDS] of texts by the mean of their embeddings; with dropout, so that random state counts."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(8, KINDS)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        seen = self.embedding(input_ids) * attention_mask.unsqueeze(-1)
        mean = seen.sum(1) / attention_mask.sum(1, keepdim=True)
        return self.out(self.dropout(torch.tanh(self.frozen(mean))))


class TinyLearner:
    """Learns which of three kinds a text of up to six tokens is. Each step counts in `seen`, which is part of its state.

    most_rows: with more at once memory runs out. held: the loss on the eval split by step, instead of the real one.
    """

    def __init__(
        self,
        *,
        rows: int = 22,
        step_rows: int = 4,
        seed: int = 7,
        dropout: float = 0.1,
        most_rows: int = 1000,
        most_measured: int = 1000,
        held: Sequence[float] | None = None,
    ) -> None:
        made = torch.Generator().manual_seed(3)
        self.texts = [torch.randint(1, 20, (1 + n % 6,), generator=made) for n in range(rows)]
        self.kinds = [int(text.sum()) % KINDS for text in self.texts]
        torch.manual_seed(seed)
        self.model = Bag(dropout)
        self.order = EpochOrder([len(text) for text in self.texts], batch_size=step_rows, seed=seed)
        self.rows = 0
        self.seen = torch.zeros((), dtype=torch.long)
        self.sizes: list[int] = []
        self.most_rows, self.most_measured = most_rows, most_measured
        self._held = iter(held) if held is not None else None

    def prepare(self) -> None:
        torch.rand(3)  # whoever prepares may draw: the loop must not mind

    def begin_step(self, step: int, places: Sequence[int]) -> None:
        if self.rows > self.most_rows:
            torch.rand(2)
        self._begun = step

    def lengths(self, places: Sequence[int]) -> list[int]:
        return [len(self.texts[place]) for place in places]

    def units(self, places: Sequence[int]) -> float:
        return len(places)

    def batch(self, places: Sequence[int]) -> dict[str, torch.Tensor]:
        texts = nn.utils.rnn.pad_sequence([self.texts[place] for place in places], batch_first=True)
        kinds = torch.tensor([self.kinds[place] for place in places])
        return {"input_ids": texts, "attention_mask": (texts > 0).long(), "kinds": kinds}

    def losses(self, batch: dict[str, torch.Tensor]) -> Losses:
        logits = self.model(batch["input_ids"], attention_mask=batch["attention_mask"])
        self.sizes.append(len(logits))
        if len(logits) > self.most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.seen += len(logits)
        right = float((logits.argmax(-1) == batch["kinds"]).sum())
        return Losses(nn.functional.cross_entropy(logits, batch["kinds"], reduction="sum"), {"accuracy": right})

    def evaluate(self, batch_size: int) -> dict[str, float]:
        torch.rand(1)
        if batch_size > self.most_measured:
            raise MemoryError("the eval split is too much at once")
        if self._held is not None:
            return {"eval_loss": next(self._held)}
        batch = self.batch(range(6))
        logits = self.model(batch["input_ids"], attention_mask=batch["attention_mask"])
        return {"eval_loss": float(nn.functional.cross_entropy(logits, batch["kinds"]))}

    def state(self) -> dict[str, torch.Tensor]:
        return {"seen": self.seen}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        self.seen = state["seen"]

    def closing(self) -> tuple[dict[str, float], tuple[str, ...]]:
        torch.rand(1)
        return {"rows_seen": float(self.seen)}, ("a sentence",)


def stage(**changes: Any) -> StageParams:
    settings: dict[str, Any] = {
        "batch_size": 4,
        "learning_rate": 0.05,
        "epochs": 1.5,
        "save_steps": 100,
        "eval_steps": 2,
        "logging_steps": 1,
        "keep_checkpoints": 100,
    }
    return StageParams(**(settings | changes))


def loop(learner: TinyLearner, folder: Path, params: StageParams | None = None, **more: Any) -> Loop:
    params = params or stage()
    drawn = Curves(more.pop("tracker", Remembering()), folder, every=params.logging_steps)
    return Loop(learner, params, folder=folder, curves=drawn, progress=more.pop("progress", silent), **more)


def weights(learner: TinyLearner) -> bytes:
    """All trained numbers, bit by bit."""
    return b"".join(p.detach().numpy().tobytes() for p in learner.model.parameters())
