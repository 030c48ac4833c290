"""PPO at work (Schulman et al., 2017; Ziegler et al., 2019): answers are sampled, judged, learned from in some passes, then anew.

Optimizer step s belongs to rollout (s - 1) // (steps of a rollout); the rollout is made before the first of them. Its tensors are
part of every checkpoint, so a resume goes on in the middle of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pipeline.errors import Misuse
from pipeline.modeling.adapters.handshake import NAME
from pipeline.modeling.forward import label_log_probs, token_logits
from pipeline.modeling.learning.learner import Batch, Losses, Order
from pipeline.modeling.learning.ppo.cast import VALUE, Cast
from pipeline.modeling.learning.ppo.hacking import check_answers
from pipeline.modeling.learning.ppo.rollouts import (
    Answers,
    Asked,
    Asking,
    PassOrder,
    PromptOrder,
    Rollout,
    Shuffled,
    answer,
    rollout,
)
from pipeline.modeling.learning.ppo.sampling import Sampling, chances
from pipeline.modeling.objectives import policy
from pipeline.modeling.texts.rows import IGNORED, Encoded, Row, collate
from pipeline.params import StageParams

_TRAIN, _HELD = 1, 2
"""Keys by which chances for rollouts and for the eval split are told apart."""


class PpoLearner:
    """Learns to give answers that are worth more.

    cast: the policy as it starts, with the reward models that stage.ppo.rewards names. train, held: prompts. read: the text of an
    answer's ids. ends: ids that end an answer. prompts: in which order they are asked, by default shuffled. A place is an answer
    of the present rollout, a unit a token of one.
    """

    def __init__(
        self,
        cast: Cast,
        train: Encoded,
        held: Encoded,
        stage: StageParams,
        *,
        read: Callable[[Sequence[int]], str],
        ends: tuple[int, ...],
        pad_id: int,
        prompts: Order | None = None,
    ) -> None:
        self.model = cast
        self.rows = stage.batch_size
        self.stage = stage
        self.ppo = ppo = stage.ppo
        _check_cut(stage)
        self._train, self._held = _Rows(train), _Rows(held)
        self._asking = Asking(Sampling(ppo.max_new_tokens, ppo.temperature, ends, pad_id), ppo, read)
        every = prompts if prompts is not None else Shuffled(len(train), stage.seed)
        self._prompts = PromptOrder(every, ppo.rollouts)
        self.order: Order = PassOrder(-(-len(every) // ppo.rollouts), ppo.rollouts, ppo.epochs, stage.seed)
        self._steps = ppo.rollouts * ppo.epochs // stage.step_rows
        self._coefficient = ppo.kl
        self._start: dict[str, float] = {}
        self._now: Rollout | None = None
        self._texts: list[Row] = []
        self._last_step = 0

    def prepare(self) -> None:
        """Nothing is computed beforehand: the reference is asked about the answers of each rollout."""
        self.model.mind_recomputing()

    def rate(self, name: str) -> float | None:
        """The value may have a learning rate of its own."""
        return self.ppo.value_learning_rate if name.startswith("value_head.") or f".{VALUE}." in name else None

    def begin_step(self, step: int, places: Sequence[int]) -> None:
        """Make the rollout that `step` learns from, unless it is there. Raises RewardHacked."""
        number = (step - 1) // self._steps
        self._last_step = step
        if self._now is not None and self._now.number == number:
            return
        found, prompts = self._answers(number, f"in rollout {number + 1}, before step {step}")
        self._take(rollout(number, found, self.ppo, self._coefficient), prompts)
        if self.ppo.kl_target is not None:
            self._coefficient = policy.steered(self._coefficient, found.measures()["kl"], target=self.ppo.kl_target)

    def lengths(self, places: Sequence[int]) -> list[int]:
        return [len(self._texts[n].input_ids) for n in places]

    def units(self, places: Sequence[int]) -> float:
        """Tokens of answers."""
        return float(sum(len(self._rollout.answers[n]) for n in places))

    def batch(self, places: Sequence[int]) -> Batch:
        """Texts as collate makes them, and of each token of an answer what the rollout says of it, [n] each."""
        now = self._rollout
        batch = collate([self._texts[n] for n in places], self._asking.how.pad_id)
        for name in ("log_probs", "values", "advantages", "returns"):
            batch[name] = torch.cat([getattr(now, name)[n, : len(now.answers[n])] for n in places])
        return batch

    def losses(self, batch: Batch) -> Losses:
        """Clipped policy loss and clipped value loss, less entropy, each with its weight; summed over tokens of answers."""
        ppo, cast = self.ppo, self.model
        with cast.playing(NAME) as model:
            logits, targets, _ = token_logits(model, batch)
        logits = logits / ppo.temperature
        new = label_log_probs(logits, targets)
        acted = policy.clipped_policy_loss(new, batch["log_probs"], batch["advantages"], clip=ppo.clip)
        value = policy.clipped_value_loss(cast.values(batch), batch["values"], batch["returns"], clip=ppo.value_clip)
        spread = policy.entropy(logits if ppo.entropy_weight else logits.detach())
        total = (acted.loss + ppo.value_weight * value - ppo.entropy_weight * spread).sum()
        update = policy.divergence_k3(batch["log_probs"], new.detach())
        sums = {"clipped": acted.clipped, "value_loss": value, "entropy": spread, "update_kl": update}
        measures = {name: float(values.detach().sum()) for name, values in sums.items()}
        # What is known of the whole rollout holds for each token of it: divided by the tokens of the step it is itself again.
        measures |= {name: value * len(new) for name, value in self._rollout.measures.items()}
        return Losses(total, measures)

    def evaluate(self, batch_size: int) -> dict[str, float]:
        """Answers to the prompts of the eval split, by the same chances every time. eval_loss is minus what is maximised: the
        reward, less ppo.kl times the divergence from the start."""
        if not len(self._held):
            return {}
        drawn = chances(len(self._held), self.ppo.max_new_tokens, self.stage.seed, _HELD)
        asked = self._held.asked(range(len(self._held)))
        found = answer(self.model, asked, drawn, self._asking, rows=batch_size).measures()
        measures = {f"eval_{name}": value for name, value in found.items()}
        return {"eval_loss": self.ppo.kl * found["kl"] - found["reward"], **measures}

    def state(self) -> dict[str, torch.Tensor]:
        now = {f"rollout.{name}": tensor for name, tensor in self._now.state().items()} if self._now is not None else {}
        start = {f"start.{name}": torch.tensor([value], dtype=torch.float64) for name, value in self._start.items()}
        kept = {
            "coefficient": torch.tensor([self._coefficient], dtype=torch.float64),
            "last_step": torch.tensor([self._last_step]),
        }
        return kept | start | now

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        self._coefficient, self._last_step = float(state["coefficient"]), int(state["last_step"])
        parts = {
            kind: {name.removeprefix(kind): tensor for name, tensor in state.items() if name.startswith(kind)}
            for kind in ("start.", "rollout.")
        }
        self._start = {name: float(value) for name, value in parts["start."].items()}
        if parts["rollout."]:
            now = Rollout.restored(parts["rollout."])
            self._take(now, self._prompts_of(now.number).prompts)

    def closing(self) -> tuple[dict[str, float], tuple[str, ...]]:
        """One more rollout, which is judged and not learned from: what the last steps made must not be hacked either."""
        number = (self._last_step - 1) // self._steps + 1
        found, _ = self._answers(number, f"in a rollout after the last step, {self._last_step}")
        measures = found.measures()
        alarms = []
        if measures["reward"] <= self._start["reward"]:
            alarms.append(f"the reward did not rise: {self._start['reward']:.3f} at first, {measures['reward']:.3f} in the end")
        if measures["unended"] > 0.5:
            alarms.append(f"{measures['unended']:.0%} of the last answers were cut off by ppo.max_new_tokens")
        started = {f"start_{name}": value for name, value in self._start.items()}
        return measures | started, tuple(alarms)

    def _answers(self, number: int, when: str) -> tuple[Answers, list[list[int]]]:
        """Answers to the prompts of a rollout, found to be no hack of the reward, and the prompts."""
        asked = self._prompts_of(number)
        drawn = chances(len(asked.prompts), self.ppo.max_new_tokens, self.stage.seed, _TRAIN, number)
        found = answer(self.model, asked, drawn, self._asking, rows=self.rows)
        measures = found.measures()
        self._start = self._start or {name: measures[name] for name in ("reward", "kl", "length", "repetition")}
        check_answers(measures, self._start, self.ppo, when=when)
        return found, asked.prompts

    def _prompts_of(self, number: int) -> Asked:
        return self._train.asked(self._prompts.of(number))

    def _take(self, now: Rollout, prompts: Sequence[list[int]]) -> None:
        self._now = now
        self._texts = [Row(p + a, [IGNORED] * len(p) + a) for p, a in zip(prompts, now.answers, strict=True)]

    @property
    def _rollout(self) -> Rollout:
        assert self._now is not None, "begin_step comes first"
        return self._now


class _Rows:
    """Encoded prompts, and what their rows themselves answer."""

    def __init__(self, encoded: Encoded) -> None:
        self._encoded = encoded
        self._answers: Any = encoded.extra["answer"]

    def __len__(self) -> int:
        return len(self._encoded)

    def asked(self, items: Sequence[int]) -> Asked:
        return Asked([self._encoded[n][0].input_ids for n in items], [self._answers[n] or "" for n in items])


def _check_cut(stage: StageParams) -> None:
    """Each pass over a rollout must come out even in optimizer steps."""
    if stage.ppo.rollouts % stage.step_rows:
        raise Misuse(
            f"{stage.ppo.rollouts} answers of a rollout do not divide into optimizer steps of {stage.step_rows}",
            where="train.ppo.rollouts",
            fix="make it a multiple of batch_size * gradient_accumulation",
        )
