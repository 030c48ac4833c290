"""Noise on the embeddings while training: NEFTune (Jain et al., 2023, "Noisy Embeddings Improve Instruction Finetuning").

Uniform in [-1, 1] times alpha / sqrt(L d), where L counts the tokens of a text and d the embedding's numbers. L is that of each
text by itself: padding does not count, nor do the neighbours in a packed row, so noise is as strong however rows are batched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def noisy_embeddings(model: Any, alpha: float | None) -> Iterator[None]:
    """Within, `model` in training mode and with gradients sees its input embeddings through noise; None: it does not."""
    if alpha is None:
        yield
        return
    seen: dict[str, Any] = {}

    def look(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        said = {name: kwargs[name] for name in ("attention_mask", "position_ids") if kwargs.get(name) is not None}
        if said:
            seen.clear()
            seen.update(said)

    def disturb(module: nn.Module, _: Any, embedded: torch.Tensor) -> torch.Tensor | None:
        if not (module.training and torch.is_grad_enabled()):
            return None
        lengths = tokens_of_texts(embedded.shape[:2], seen.get("attention_mask"), seen.get("position_ids"))
        scale = alpha / (lengths.to(embedded.device, torch.float32) * embedded.shape[-1]).sqrt()
        noise = torch.empty_like(embedded, dtype=torch.float32).uniform_(-1, 1) * scale.unsqueeze(-1)
        return embedded + noise.to(embedded.dtype)

    # A learner asks its model through any of its wrappers; the outermost that is asked knows the mask before tokens are embedded.
    asked = [module for module in model.modules() if hasattr(module, "get_input_embeddings")]
    handles = [module.register_forward_pre_hook(look, with_kwargs=True) for module in asked]
    handles.append(model.get_input_embeddings().register_forward_hook(disturb))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tokens_of_texts(shape: Any, mask: torch.Tensor | None, positions: torch.Tensor | None) -> torch.Tensor:
    """How many tokens the text of each place has, long, of `shape` [rows, longest], at least 1.

    By `positions` [rows, longest], which start again at 0 with each text of a packed row, else by `mask` [rows, longest], 1 where
    there is a text, else every row is one text.
    """
    rows, longest = shape
    if positions is not None and tuple(positions.shape) == (rows, longest):
        text = (positions == 0).long().cumsum(1)
        counted = mask.bool() if mask is not None and tuple(mask.shape) == (rows, longest) else torch.ones_like(text).bool()
        sizes = torch.zeros(rows, longest + 1, dtype=torch.long, device=positions.device)
        sizes.scatter_add_(1, text, counted.long())
        return sizes.gather(1, text).clamp(min=1)
    if mask is not None and mask.dim() == 2:
        return mask.long().sum(1, keepdim=True).expand(rows, longest).clamp(min=1)
    return torch.full((rows, longest), longest, dtype=torch.long)
