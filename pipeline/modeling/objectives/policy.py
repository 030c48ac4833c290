"""The arithmetic of learning from a reward: advantages, clipped losses, divergence and its controller. Pure functions of tensors.

No model, no text and no random numbers enter here. `mask` is true where there is a token of an answer; what tensors hold
elsewhere is never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """Per token, all [n]. loss: differentiable. clipped: 1 where the clip took the gradient away."""

    loss: torch.Tensor
    clipped: torch.Tensor


def advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, *, gamma: float, decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimates (Schulman et al., 2016) and the returns that values are to learn, both [rows, tokens].

    rewards: what a token was given; values: what was expected before it, all [rows, tokens]. Each row's answer is one run of
    tokens from the left; after its last there is nothing to expect. decay: lambda. Zero outside the mask.
    """
    kept = mask.to(values.dtype)
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    found = torch.zeros_like(values)
    after = ahead = torch.zeros_like(values[:, 0]) if values.shape[1] else values.new_zeros(len(values))
    for at in range(values.shape[1] - 1, -1, -1):
        surprise = rewards[:, at] + gamma * ahead - values[:, at]
        after = (surprise + gamma * decay * after) * kept[:, at]
        ahead = values[:, at]
        found[:, at] = after
    return found, (found + values) * kept


def token_rewards(scores: torch.Tensor, divergence: torch.Tensor, mask: torch.Tensor, *, coefficient: float) -> torch.Tensor:
    """What each token is given: less for leaving the reference, and the answer's score at its last (Ziegler et al., 2019).

    scores [rows]; divergence, mask [rows, tokens], at least one token a row. Returns [rows, tokens], zero outside the mask.
    """
    found = torch.where(mask, -coefficient * divergence, 0.0)
    last = mask.sum(1) - 1
    rows = torch.arange(len(scores), device=scores.device)
    found[rows, last] = found[rows, last] + scores.to(found.dtype)
    return found


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The same with mean 0 and variance 1 over the mask; values that are all alike become 0. Zero outside the mask."""
    kept = values[mask].double()
    spread = kept.var(unbiased=False) if kept.numel() else kept.new_zeros(())
    centred = (values.double() - (kept.mean() if kept.numel() else 0.0)) * torch.rsqrt(spread + 1e-8)
    return torch.where(mask, centred, 0.0).to(values.dtype)


def clipped_policy_loss(new: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, *, clip: float) -> PolicyLoss:
    """PPO's pessimistic loss a token (Schulman et al., 2017, eq. 7): log-probabilities now and when sampled, advantages;
    all [n]."""
    ratio = torch.exp(new - old)
    free, held = -advantage * ratio, -advantage * ratio.clamp(1.0 - clip, 1.0 + clip)
    return PolicyLoss(torch.maximum(free, held), (held > free).to(new.dtype))


def clipped_value_loss(new: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, *, clip: float) -> torch.Tensor:
    """Half the squared error of values, the greater of that and the one with the value held within `clip` of the old; all [n]."""
    held = old + (new - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((new - returns) ** 2, (held - returns) ** 2)


def divergence_k1(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """A token's unbiased estimate of KL(new || reference), of tokens drawn from `new`: the difference of log-probabilities.

    May be negative; its size stays bounded even where the two are far apart, so sums of it are what is watched (Schulman, 2020).
    """
    return new - reference


def divergence_k3(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The same, never negative and of less variance while the two are near each other (Schulman, 2020)."""
    return torch.expm1(reference - new) - (reference - new)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of the distributions in `logits` [n, vocabulary], as [n]."""
    logs = torch.log_softmax(logits, -1)
    return -(logs.exp() * logs).sum(-1)


def steered(coefficient: float, divergence: float, *, target: float, gain: float = 0.1) -> float:
    """The next coefficient of the adaptive controller (Ziegler et al., 2019, sec. 2.2) after a rollout of a mean `divergence`.

    The error is held within 20 %, so that one odd rollout moves the coefficient by 2 % at most.
    """
    error = min(max(divergence / target - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + gain * error)
