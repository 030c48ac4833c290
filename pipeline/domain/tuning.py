"""The two axes of tuning: what is learned (objective) and which weights learn it (tuner), and what goes together. Pure values.

docs/methods.md is written from these tables. How an objective's loss is made is modeling/objectives/'s, how a tuner is put on a
base modeling/tuners/'s.
"""

from __future__ import annotations

from enum import StrEnum

from pipeline.domain.data import ExampleKind, Task


class Objective(StrEnum):
    """What a training stage learns."""

    PRETRAIN = "pretrain"
    """The next token of raw text: continued pretraining."""
    SFT = "sft"
    """The answer to a conversation: supervised fine-tuning."""
    CLASSIFY = "classify"
    """The label of a text."""
    REWARD = "reward"
    """A number that is higher for the better of two answers: a reward model (Bradley-Terry)."""
    DPO = "dpo"
    """To prefer the better of two answers, held near where it started (Rafailov et al., 2023)."""
    KTO = "kto"
    """To give good answers and not bad ones, each judged by itself (Ethayarajh et al., 2024)."""
    ORPO = "orpo"
    """The better answer, and the odds against the worse one, without a reference (Hong et al., 2024)."""
    PPO = "ppo"
    """To answer so that a reward is high, held near where it started (Schulman et al., 2017; Ouyang et al., 2022)."""


class Tuner(StrEnum):
    """Which weights learn."""

    FULL = "full"
    """All weights of the base."""
    LAST_LAYERS = "last_layers"
    """The last layers of the base, and its head."""
    LORA = "lora"
    """Low-rank matrices beside frozen weights (Hu et al., 2021), with rsLoRA and DoRA as choices."""
    QLORA = "qlora"
    """The same beside weights in 4-bit NormalFloat (Dettmers et al., 2023)."""
    SOFT_PROMPT = "soft_prompt"
    """Vectors before the text (Lester et al., 2021) or before each layer's keys and values (Li and Liang, 2021)."""


class Output(StrEnum):
    """What a model gives for a text: logits of the next token, a logit for each label, or one number."""

    TEXT = "text"
    LABEL = "label"
    SCORE = "score"


OUTPUT_OF: dict[Objective, Output] = {
    Objective.PRETRAIN: Output.TEXT,
    Objective.SFT: Output.TEXT,
    Objective.CLASSIFY: Output.LABEL,
    Objective.REWARD: Output.SCORE,
    Objective.DPO: Output.TEXT,
    Objective.KTO: Output.TEXT,
    Objective.ORPO: Output.TEXT,
    Objective.PPO: Output.TEXT,
}

USUAL_OBJECTIVE: dict[Task, Objective] = {Task.GENERATE: Objective.SFT, Task.CLASSIFY: Objective.CLASSIFY}
"""What a stage learns that does not say."""

_PAIRS = (ExampleKind.PREFERENCE, ExampleKind.RANKING)
_ASKS = (ExampleKind.PROMPT, ExampleKind.ANSWER, ExampleKind.PREFERENCE, ExampleKind.RANKING, ExampleKind.FEEDBACK)

LEARNS_FROM: dict[Objective, tuple[ExampleKind, ...]] = {
    Objective.PRETRAIN: (ExampleKind.TEXT,),
    Objective.SFT: (ExampleKind.ANSWER, ExampleKind.CALL),
    Objective.CLASSIFY: (ExampleKind.LABEL,),
    Objective.REWARD: _PAIRS,
    Objective.DPO: _PAIRS,
    Objective.KTO: (ExampleKind.FEEDBACK, *_PAIRS),
    Objective.ORPO: _PAIRS,
    Objective.PPO: _ASKS,
}
"""The kinds of row that an objective learns from unless train.kinds says otherwise. Of a pair kto takes both sides by themselves;
of a ranking of n answers each neighbouring pair is taken; ppo takes the conversation alone."""

CAN_LEARN_FROM: dict[Objective, tuple[ExampleKind, ...]] = LEARNS_FROM | {
    Objective.SFT: (ExampleKind.ANSWER, ExampleKind.CALL, *_PAIRS, ExampleKind.FEEDBACK),
    Objective.PRETRAIN: (ExampleKind.TEXT, ExampleKind.ANSWER),
}
"""All that train.kinds may name: sft also the better answers of pairs and rankings and the good ones of feedback; pretrain also
whole conversations with their answers, as the chat template writes them."""

PEFT_TUNERS = (Tuner.LORA, Tuner.QLORA, Tuner.SOFT_PROMPT)
"""Those that leave the base's weights alone and are written as a peft adapter."""

_ONE_BASE = "policy, reference, value and reward share one base, which only LoRA adapters can"
_REFUSED: dict[tuple[Objective, Tuner], str] = {
    (Objective.PPO, Tuner.FULL): _ONE_BASE,
    (Objective.PPO, Tuner.LAST_LAYERS): _ONE_BASE,
    (Objective.PPO, Tuner.SOFT_PROMPT): _ONE_BASE,
    (
        Objective.REWARD,
        Tuner.SOFT_PROMPT,
    ): "ppo asks the reward model as a LoRA adapter, which a soft prompt cannot share a model with",
}


def refusal(objective: Objective, tuner: Tuner) -> str | None:
    """Why an objective cannot be learned by a tuner; None when it can."""
    return _REFUSED.get((objective, tuner))


def start_refusal(tuner: Tuner, start: Tuner) -> str | None:
    """Why a stage with `tuner` cannot start from what `start` made; None when it can.

    A stage goes on training what it starts from when both are of one tuner (and one shape, which is checked when it is loaded),
    puts an adapter on weights that were tuned, or melts an adapter into the weights and tunes those.
    """
    if tuner is start:
        return None
    if start is Tuner.SOFT_PROMPT or tuner is Tuner.SOFT_PROMPT:
        return "a soft prompt stands alone: it can neither be melted into weights nor be put before an adapter"
    if Tuner.QLORA in (tuner, start):
        return "what was trained beside 4-bit weights answers otherwise beside full ones, and the other way round"
    if tuner is Tuner.LAST_LAYERS and start is Tuner.LORA:
        return "LoRA has changed all layers: tune full, or the adapter itself"
    return None
