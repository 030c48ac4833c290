"""Muon for the hidden matrices of a small model, in fp32.

torch's own Muon works in bf16, which a processor without bf16 units does tens of times slower. Only the update rule
belongs here: vectors and embeddings are AdamW's affair.
"""

from __future__ import annotations

import torch


def orthogonalised(stack: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Each matrix of the stack with its singular values pushed towards one, by Newton and Schulz's iteration."""
    wide = stack if stack.shape[1] <= stack.shape[2] else stack.mT
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = wide @ wide.mT
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    return wide if stack.shape[1] <= stack.shape[2] else wide.mT


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal; matrices of one shape are treated together."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float = 0.02, momentum: float = 0.95) -> None:
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for param in params:
            by_shape.setdefault(param.shape, []).append(param)
        super().__init__([{"params": group} for group in by_shape.values()], {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every matrix from its gradient."""
        for group in self.param_groups:
            params, momentum = group["params"], group["momentum"]
            grads = torch.stack([param.grad for param in params])
            state = self.state[params[0]]
            kept = state.setdefault("momentum", torch.zeros_like(grads)).lerp_(grads, 1 - momentum)
            update = orthogonalised(grads.lerp(kept, momentum))
            size = group["lr"] * max(1.0, grads.shape[1] / grads.shape[2]) ** 0.5
            for param, change in zip(params, update, strict=True):
                param.mul_(1 - 0.01 * group["lr"]).sub_(change, alpha=size)
