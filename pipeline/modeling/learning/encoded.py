"""What learners of encoded items share: the order they are drawn in, what they cost, batches of them, measuring the eval split.

The loss of each objective is its own module's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.modeling.forward import answer_log_probs
from pipeline.modeling.learning.learner import Batch, Losses, Order
from pipeline.modeling.loading import inference
from pipeline.modeling.texts.packing import flat, looks_back_only, packs
from pipeline.modeling.texts.rows import Encoded, EpochOrder, Row, by_length, collate, collate_packed
from pipeline.params.train import StageParams


class FromItems:
    """A learner (see learner.Learner) of `train` that is measured on `held`; one unit an item unless `units` says otherwise.

    order: of the items, by default shuffled with like lengths in one step. packed: whether several texts are put into one
    sequence; by default where packing.py says so.
    """

    per_token = True
    """Whether single tokens are learned. What is said of a text as a whole is not packed."""

    def __init__(
        self,
        tuned: nn.Module,
        train: Encoded,
        held: Encoded,
        stage: StageParams,
        *,
        pad_id: int,
        order: Order | None = None,
        packed: bool | None = None,
    ) -> None:
        self.model: Any = tuned
        self.train = train
        self.held = held
        self.stage = stage
        self.pad_id = pad_id
        self.rows = stage.batch_size
        self._lengths = np.asarray(train.lengths)
        self.order: Order = order or EpochOrder(self._lengths.tolist(), batch_size=stage.step_rows, seed=stage.seed)
        if packed is None:
            packed = self.per_token and packs(stage, tuned, self._lengths.tolist(), self.order)
        self.packed = packed
        # Noise on embeddings (NEFTune) is reckoned by the mask; else a model that only looks back is faster without one.
        self._masked = not self.per_token or stage.neftune_alpha is not None or not looks_back_only(tuned)

    def prepare(self) -> None:
        """Nothing has to be known before the first step."""

    def begin_step(self, step: int, places: Sequence[int]) -> None:
        """Nothing has to be known of a whole step."""

    def lengths(self, places: Sequence[int]) -> list[int]:
        return list(self._lengths[list(places)].tolist())

    def units(self, places: Sequence[int]) -> float:
        return float(len(places))

    def batch(self, places: Sequence[int]) -> Batch:
        return self.batch_of(self.train, places)

    def batch_of(self, side: Encoded, places: Sequence[int]) -> Batch:
        """Items of one side as tensors on the CPU: all first rows, then all second ones, and so on."""
        items = [side[place] for place in places]
        return self.together([row for rows in zip(*items, strict=True) for row in rows])

    def together(self, rows: Sequence[Row]) -> Batch:
        """Rows in one batch, packed or padded."""
        if self.packed:
            return collate_packed(rows, self.pad_id, width=sum(len(row.input_ids) for row in rows) if flat(self.model) else 0)
        batch = collate(rows, self.pad_id)
        if not self._masked:
            del batch["attention_mask"]
        return batch

    def losses(self, batch: Batch) -> Losses:
        raise NotImplementedError

    def evaluate(self, batch_size: int) -> dict[str, float]:
        raise NotImplementedError

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """There is nothing to take up."""

    def closing(self) -> tuple[dict[str, float], tuple[str, ...]]:
        return {}, ()

    @property
    def batched(self) -> str:
        """How rows are put together where nothing is learned, in words: the last digits of what is found hang on it."""
        return f"{self.stage.batch_size} rows, {'packed' if self.packed else 'padded'}"

    def log_probs(self, side: Encoded) -> npt.NDArray[np.float32]:
        """Log-probabilities of all labelled tokens of each row together, of one side: [items, rows of an item]."""
        found = np.zeros(side.row_lengths.shape, np.float32)
        for places, batch in self.asked(side, min(self.rows, self.stage.batch_size)):
            found[places] = answer_log_probs(self.model, batch).view(-1, len(places)).T.cpu().numpy()
        return found

    def asked(self, side: Encoded, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
        """All of one side in batches on the model's device, longest first, without gradients: the places, and their batch."""
        yield from self.on_device(side, by_length(side.lengths, batch_size), range(len(side)))

    def on_device(self, side: Encoded, batches: Sequence[list[int]], of: Sequence[int]) -> Iterator[tuple[list[int], Batch]]:
        """The same for given batches of numbers within the places `of`."""
        device = next(self.model.parameters()).device
        with inference():
            for some in batches:
                batch = self.batch_of(side, [of[n] for n in some])
                yield some, {name: tensor.to(device) for name, tensor in batch.items()}
