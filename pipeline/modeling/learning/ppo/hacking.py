"""Tells when a reward is being hacked: it rises, and answers have become something that nobody wanted. Plain numbers only."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import RewardHacked
from pipeline.params.learning import PpoParams


def check_answers(now: Mapping[str, float], start: Mapping[str, float], ppo: PpoParams, *, when: str) -> None:
    """Raise RewardHacked when answers have drifted too far from the start's, grown too long, or repeat themselves too much.

    now, start: means over a rollout of `reward`, `kl` (nats an answer), `length` (tokens) and `repetition` (share of triples of
    tokens that were there before). when: which rollout of which step this is, for the message.
    """
    growth = now["length"] / max(start["length"], 1.0)
    signs = {
        f"its divergence from the start is {now['kl']:.2f} nats an answer, above ppo.kl_bound ({ppo.kl_bound:g})": (
            not now["kl"] <= ppo.kl_bound
        ),
        f"its answers are {growth:.1f} times as long as at the start, {now['length']:.1f} tokens, above ppo.longest_growth "
        f"({ppo.longest_growth:g})": growth > ppo.longest_growth,
        f"{now['repetition']:.0%} of what its answers say repeats, {start['repetition']:.0%} at the start, above "
        f"ppo.most_repetition ({ppo.most_repetition:.0%})": (
            now["repetition"] > ppo.most_repetition and now["repetition"] > start["repetition"]
        ),
    }
    seen = [sign for sign, holds in signs.items() if holds]
    if seen:
        raise RewardHacked(
            f"a reward is being hacked: {when}, {'; '.join(seen)}; the reward went from {start['reward']:.3f} to "
            f"{now['reward']:.3f}",
            where="train.ppo",
            fix="raise ppo.kl or set ppo.kl_target, lower train.learning_rate, add a reward against it ({rule: length}, {rule: "
            "not_repeating}), or raise the bound where such answers are wanted; nothing was published",
        )
