"""Asks a model for no more than a loss needs: logits where a label is predicted, or one set of them a text. No loss enters here.

Both go through the model's ordinary forward with a hook before its head, so whatever is put on the model (LoRA, 4-bit weights,
soft prompts, wrappers) works as always, and the head, often the largest matrix, is asked only where it counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

_INPUTS = ("input_ids", "attention_mask", "position_ids")


def token_logits(model: Any, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [n, vocabulary] in fp32 at `batch["places"]`, the labels [n] that they are to predict, and the row [n] of each.

    batch: as rows.collate or collate_packed makes it, on the model's device. Soft prompts before the text are reckoned with.
    """
    ids, places = batch["input_ids"], batch["places"]

    def pick(hidden: torch.Tensor) -> torch.Tensor:
        before = hidden.shape[1] - ids.shape[1]  # vectors of a soft prompt, which every row begins with
        at = places + (places // ids.shape[1] + 1) * before
        return hidden.flatten(0, 1).index_select(0, at)

    with before_head(model.get_output_embeddings(), pick):
        # A cache is of no use here, and the library makes no mask of packed positions when there is one.
        logits = model(**_inputs(batch), use_cache=False).logits
    return logits.float(), batch["targets"], batch["owners"]


def answer_log_probs(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Log-probability [rows] of all labelled tokens of each row together; batch as for token_logits."""
    logits, targets, owners = token_logits(model, batch)
    return row_sums(label_log_probs(logits, targets), owners, len(batch["tokens"]))


def label_log_probs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target under its logits: [n], of logits [n, vocabulary]."""
    return -cross_entropy(logits, targets, reduction="none")


def row_sums(values: torch.Tensor, owners: torch.Tensor, rows: int) -> torch.Tensor:
    """Sums [rows] of `values` [n] by the row that owns each."""
    return torch.zeros(rows, dtype=values.dtype, device=values.device).index_add(0, owners, values)


def pooled_logits(model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits of a sequence head in fp32: [rows, labels], or [rows, 1] of a reward model. batch: input_ids and attention_mask.

    Decoders are asked at each text's last token by the mask. Left to itself the library looks for the last id that is no
    padding: it finds none under a soft prompt, where there are no ids, and the wrong one where the end token pads.
    """
    head, mask = getattr(model, "score", None), batch["attention_mask"]

    def spread(hidden: torch.Tensor) -> torch.Tensor:
        """The last token's state at every place, so that whichever place the library picks holds it."""
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1) + hidden.shape[1] - mask.shape[1]
        return hidden[torch.arange(len(mask), device=mask.device), last].unsqueeze(1).expand(-1, hidden.shape[1], -1)

    with before_head(head, spread) if isinstance(head, nn.Module) else contextlib.nullcontext():
        logits: torch.Tensor = model(**_inputs(batch)).logits
    return logits.float()


def _inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in _INPUTS if name in batch}


@contextlib.contextmanager
def before_head(head: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within it, `head` is given what `change` makes of its input."""
    handle = head.register_forward_pre_hook(lambda _, given: (change(given[0]), *given[1:]))
    try:
        yield
    finally:
        handle.remove()
