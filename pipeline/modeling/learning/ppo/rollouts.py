"""Rollouts: answers of the policy to a set of prompts, what each of their tokens was worth, as tensors that a checkpoint holds.

A rollout is a function of its number, the seed and the weights: prompts and chances are drawn by number. What is learned from it
is learner.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.modeling.adapters.handshake import NAME
from pipeline.modeling.forward import label_log_probs, token_logits
from pipeline.modeling.learning.learner import Batch, Order
from pipeline.modeling.learning.ppo.cast import Cast
from pipeline.modeling.learning.ppo.rewards import Worth, appraise
from pipeline.modeling.learning.ppo.rules import repetition
from pipeline.modeling.learning.ppo.sampling import Chances, Sampling, sample
from pipeline.modeling.loading import inference
from pipeline.modeling.objectives import policy
from pipeline.modeling.texts.rows import IGNORED, Row, by_length, collate
from pipeline.params.learning import PpoParams

_NONE = -1


@dataclass(frozen=True, slots=True)
class Asked:
    """Prompts as ids, and what each row itself answers, empty where it does not."""

    prompts: list[list[int]]
    wanted: list[str]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers and what was found out about them. log_probs, reference (by policy and reference) and values: of each token,
    [answers, longest], fp32 on the CPU; mask: where there is a token. ended: whether each came to its end by itself."""

    ids: list[list[int]]
    log_probs: torch.Tensor
    reference: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    worth: Worth
    ended: list[bool]

    @property
    def divergence(self) -> torch.Tensor:
        """An estimate of KL(policy || reference) a token, zero where there is none: [answers, longest]."""
        return torch.where(self.mask, policy.divergence_k1(self.log_probs, self.reference), 0.0)

    def measures(self) -> dict[str, float]:
        """Means over answers: reward and each part of it, kl (nats an answer), length (tokens), repetition, unended (share cut
        off by max_new_tokens)."""
        found = {"reward": float(self.worth.total.mean())}
        if len(self.worth.parts) > 1:
            found |= {f"reward_{name}": float(part.mean()) for name, part in self.worth.parts.items()}
        return found | {
            "kl": float(self.divergence.double().sum(1).mean()),
            "length": float(np.mean([len(ids) for ids in self.ids])),
            "repetition": float(np.mean([repetition(ids) for ids in self.ids])),
            "unended": 1.0 - float(np.mean(self.ended)),
        }


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is learned from: answers by their ids, and of each token, [answers, longest] in fp32, the log-probability and value
    when it was drawn, its advantage, and the return that the value is to learn."""

    number: int
    answers: list[list[int]]
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    measures: dict[str, float]

    def state(self) -> dict[str, torch.Tensor]:
        """All of it as tensors."""
        longest = self.values.shape[1]
        ids = torch.full((len(self.answers), longest), _NONE, dtype=torch.int32)
        for n, answer in enumerate(self.answers):
            ids[n, : len(answer)] = torch.tensor(answer, dtype=torch.int32)
        return {
            "number": torch.tensor([self.number]),
            "answers": ids,
            "log_probs": self.log_probs,
            "values": self.values,
            "advantages": self.advantages,
            "returns": self.returns,
            **{f"measure.{name}": torch.tensor([value], dtype=torch.float64) for name, value in self.measures.items()},
        }

    @classmethod
    def restored(cls, state: Mapping[str, torch.Tensor]) -> Rollout:
        """The rollout that `state` was made of."""
        return cls(
            number=int(state["number"]),
            answers=[[i for i in row if i != _NONE] for row in state["answers"].tolist()],
            measures={
                name.removeprefix("measure."): float(value) for name, value in state.items() if name.startswith("measure.")
            },
            **{name: state[name].clone() for name in ("log_probs", "values", "advantages", "returns")},
        )


@dataclass(frozen=True, slots=True)
class Asking:
    """How answers are got and judged. read: the text of an answer's ids."""

    how: Sampling
    ppo: PpoParams
    read: Callable[[Sequence[int]], str]


def answer(cast: Cast, asked: Asked, drawn: Chances, asking: Asking, *, rows: int) -> Answers:
    """What the policy answers, with everything that is to be known of it; without dropout, at most `rows` texts at a time.

    drawn: see sampling.chances. The model's mode is left as it was.
    """
    training, how = cast.training, asking.how
    cast.eval()
    try:
        ids = sample(cast.policy, asked.prompts, drawn, how, rows=rows)
        texts = [Row(p + a, [IGNORED] * len(p) + a) for p, a in zip(asked.prompts, ids, strict=True)]
        found = [torch.zeros(len(ids), max(len(one) for one in ids)) for _ in range(3)]
        for places in by_length([len(text.input_ids) for text in texts], rows):
            for tensor, values in zip(found, _assessed(cast, [texts[n] for n in places], how), strict=True):
                for n, own in zip(places, values.split([len(ids[n]) for n in places]), strict=True):
                    tensor[n, : len(own)] = own
        said = [asking.read(one) for one in ids]
        whole = [text.input_ids for text in texts]
        worth = appraise(cast, asking.ppo.rewards, whole, said, asked.wanted, pad_id=how.pad_id, rows=rows)
    finally:
        cast.train(training)
    log_probs, reference, values = found
    mask = torch.arange(values.shape[1]) < torch.tensor([len(one) for one in ids])[:, None]
    return Answers(ids, log_probs, reference, values, mask, worth, [one[-1] in how.ends for one in ids])


def rollout(number: int, answers: Answers, ppo: PpoParams, coefficient: float) -> Rollout:
    """What answers give to learn: scores at their ends less the divergence on the way, turned into advantages and returns."""
    given = policy.token_rewards(answers.worth.total.float(), answers.divergence, answers.mask, coefficient=coefficient)
    raw, returns = policy.advantages(given, answers.values, answers.mask, gamma=ppo.gamma, decay=ppo.gae_lambda)
    return Rollout(
        number=number,
        answers=answers.ids,
        log_probs=answers.log_probs,
        values=answers.values,
        advantages=policy.whiten(raw, answers.mask),
        returns=returns,
        measures=answers.measures() | {"kl_coefficient": coefficient},
    )


class Shuffled:
    """Numbers below `count`, in another order each epoch."""

    def __init__(self, count: int, seed: int) -> None:
        self.epoch = 0
        self._count, self._seed = count, seed

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        yield from np.random.default_rng([self._seed, self.epoch]).permutation(self._count).tolist()


class PromptOrder:
    """Which prompts each rollout asks: the epochs of `order` one after the other, cut into rollouts of `size`."""

    def __init__(self, order: Order, size: int) -> None:
        self._order = order
        self._size = size
        self._drawn: tuple[int, list[int]] = (-1, [])

    def of(self, number: int) -> list[int]:
        """Item numbers of rollout `number`, from 0."""
        epoch, skip = divmod(number * self._size, len(self._order))
        found: list[int] = []
        while len(found) < self._size:
            found += self._epoch(epoch)[skip : skip + self._size - len(found)]
            epoch, skip = epoch + 1, 0
        return found

    def _epoch(self, epoch: int) -> list[int]:
        if self._drawn[0] != epoch:
            self._order.epoch = epoch
            self._drawn = (epoch, list(self._order))
        return self._drawn[1]


class PassOrder:
    """In which order the answers of rollouts are learned from: `passes` over all of one, each shuffled, before the next.

    Places are answers of a rollout, from 0. An epoch is as many rollouts as ask every prompt once.
    """

    def __init__(self, rollouts: int, size: int, passes: int, seed: int) -> None:
        self.epoch = 0
        self._rollouts, self._size, self._passes, self._seed = rollouts, size, passes, seed

    def __len__(self) -> int:
        return self._rollouts * self._size * self._passes

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self._seed, self.epoch, self._passes])
        for _ in range(self._rollouts * self._passes):
            yield from random.permutation(self._size).tolist()


def _assessed(cast: Cast, texts: Sequence[Row], how: Sampling) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities by policy and reference and values of all answer tokens of `texts`, one after the other: [n] each."""
    place = cast.value_head.weight.device
    batch: Batch = {name: tensor.to(place) for name, tensor in collate(texts, how.pad_id).items()}
    with inference():
        found = []
        for part in (NAME, cast.reference):
            with cast.playing(part) as model:
                logits, targets, _ = token_logits(model, batch)
            found.append(label_log_probs(logits / how.temperature, targets).float().cpu())
        return found[0], found[1], cast.values(batch).cpu()
