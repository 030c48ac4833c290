"""Losses of reward, dpo, kto and orpo: what people like better. Pure functions over scores and log-probabilities.

They give one value a pair or answer; what is summed, over what, is the learner's.

A ratio is the log-probability of a whole answer under the model less that under the reference: what the model would add to it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn.functional import logsigmoid

_LOG_2 = math.log(2)


def reward_loss(better: torch.Tensor, worse: torch.Tensor, *, centre: float = 0.0) -> torch.Tensor:
    """Of pairs of scores [pairs]: minus the log-probability that the better one wins, after Bradley and Terry (1952).

    centre: weight of the squared sum of both scores, which holds them around zero (Eisenstein et al., 2023): the first term alone
    leaves open where they lie.
    """
    return -logsigmoid(better - worse) + centre * (better + worse) ** 2


def dpo_loss(
    better: torch.Tensor,
    worse: torch.Tensor,
    *,
    beta: float,
    kind: Literal["sigmoid", "hinge", "ipo"] = "sigmoid",
    smoothing: float = 0.0,
    tokens: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Of pairs of ratios [pairs]: how far the better answer's is from being the greater one by enough.

    sigmoid: Rafailov et al. (2023), with `smoothing` for the share of pairs that are the wrong way round (Mitchell, 2023). hinge:
    Zhao et al. (2023). ipo: Azar et al. (2023), of ratios a token, which its authors say theirs are; `tokens` are those of both
    sides.
    """
    if kind == "ipo":
        if tokens is None:
            raise ValueError("ipo needs the tokens of both sides")
        return (better / tokens[0] - worse / tokens[1] - 1 / (2 * beta)) ** 2
    margin = beta * (better - worse)
    if kind == "hinge":
        return torch.relu(1 - margin)
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)


def kto_loss(
    ratios: torch.Tensor,
    good: torch.Tensor,
    divergence: float,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """Of answers' ratios [answers], and whether each is good: how much less than sure it is that a good one's is above
    `divergence`, a bad one's below (Ethayarajh et al., 2024, equation 7).

    divergence: how far the model has moved from the reference at all, from mismatched answers; see kto_divergence.
    """
    sign = good.to(ratios.dtype) * 2 - 1
    weight = torch.where(good, desirable_weight, undesirable_weight)
    return weight * (1 - torch.sigmoid(sign * beta * (ratios - divergence)))


def kto_divergence(ratios: torch.Tensor) -> float:
    """The divergence from the reference by the ratios [answers] of answers to other questions: their mean, at least 0."""
    return max(float(ratios.mean()), 0.0) if len(ratios) else 0.0


def odds_loss(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """Of pairs of mean log-probabilities a token [pairs]: minus the log-sigmoid of the log ratio of their odds.

    Hong et al. (2024), equations 4 and 7.
    """
    return -logsigmoid(log_odds(better, worse))


def log_odds(better: torch.Tensor, worse: torch.Tensor) -> torch.Tensor:
    """Logarithm of how many times the odds of the better answer are those of the worse, of mean log-probabilities [pairs]."""
    return (better - worse) - (_log_one_less(better) - _log_one_less(worse))


def _log_one_less(log_prob: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x < 0 without losing digits at either end (Mächler, 2012). Each branch is given only what it is good
    for: what is not taken must have a finite slope too. A probability of 1 counts as the next one below."""
    near = torch.log(-torch.expm1(log_prob.clamp(-_LOG_2, -torch.finfo(log_prob.dtype).eps)))
    far = torch.log1p(-torch.exp(log_prob.clamp(max=-_LOG_2)))
    return torch.where(log_prob > -_LOG_2, near, far)
