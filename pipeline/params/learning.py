"""Sections within a training stage: how rows are mixed, what is watched, what each objective may be told. See train.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.params.section import Count, Fraction, Section, Share

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
LARGEST_REPLAY = 0.99
"""An epoch is at most a hundred times its newer rows."""


class SoftPromptParams(Section):
    kind: Literal["prompt", "prefix"] = "prompt"
    """prompt: vectors before the text's own. prefix: keys and values before those of each layer."""
    tokens: Annotated[int, Field(ge=1, le=1000)] = 20


class MixParams(Section):
    by: str = "source"
    """What tells the tasks in the data apart: source, kind, or a metadata field."""
    weights: dict[str, NotNegative] = {}
    """Task: how often it is drawn, beside its rows' number; one that is not named counts 1, 0 leaves it out."""
    temperature: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Tasks are drawn in proportion to rows ** (1 / temperature): 1 as they are, greater evens them out (Raffel et al., 2020)."""
    caps: dict[str, Count] = {}
    """Task: so many of its rows count, drawn by the seed."""
    replay: Fraction | None = None
    """Continual: what share of the rows drawn are old, of shards that the champion was trained on; the others are newer.
    Up to 0.99, or 1 for old rows alone. Default: all rows count alike."""

    @field_validator("replay")
    @classmethod
    def _bounded_epoch(cls, replay: float | None) -> float | None:
        if replay is not None and LARGEST_REPLAY < replay < 1:
            raise ValueError(f"at most {LARGEST_REPLAY}, or 1: each newer row is drawn once, so an epoch would be endless")
        return replay


class EwcParams(Section):
    weight: NotNegative = 0.0
    """How strongly weights that mattered to the start are held (Kirkpatrick et al., 2017); 0: not at all."""
    rows: Count = 256
    """Old rows whose gradients tell what mattered (the diagonal of the Fisher information); without a champion, rows of all."""


class EarlyStoppingParams(Section):
    patience: Count | None = None
    """Stop when so many evaluations in a row were no better than the best; default: never."""
    min_change: NotNegative = 0.0
    """What counts as better: eval_loss lower by more than this."""


class OverfittingParams(Section):
    policy: Literal["off", "warn", "stop"] = "warn"
    """What happens when the training loss falls while the loss on the eval split rises; the step is named either way. Not looked
    for in ppo, whose losses on the two sides are of different things."""
    evaluations: Annotated[int, Field(ge=2, le=100)] = 3
    """So many evaluations in a row."""


class RewardParams(Section):
    centre: NotNegative = 0.01
    """How strongly scores are held around zero (Eisenstein et al., 2023)."""


class DpoParams(Section):
    beta: Positive = 0.1
    """How strongly the model is held near its start."""
    loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """sigmoid: Rafailov et al., 2023. hinge: Zhao et al., 2023. ipo: Azar et al., 2023."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of the pairs taken to be the wrong way round (sigmoid)."""


class KtoParams(Section):
    beta: Positive = 0.1
    desirable_weight: Positive = 1.0
    undesirable_weight: Positive = 1.0


class OrpoParams(Section):
    beta: Positive = 0.1
    """Weight of the odds ratio beside the answer's own loss."""


class RewardSource(Section):
    """One part of PPO's reward: the scores of a reward stage, or a rule that is checked."""

    stage: str | None = None
    """Name of an earlier stage of the objective reward."""
    rule: Literal["json_valid", "exact_match", "length", "not_repeating"] | None = None
    """json_valid: 1 if the answer parses as JSON. exact_match: 1 if it is the row's own answer. length: 1 at `words` words, less
    the further off. not_repeating: the share of word triples that are new."""
    words: Count = 40
    """length: how many words an answer should have."""
    weight: float = 1.0

    @model_validator(mode="after")
    def _check_one(self) -> RewardSource:
        if (self.stage is None) == (self.rule is None):
            raise ValueError("a reward is either a stage or a rule")
        return self


class PpoParams(Section):
    rewards: Annotated[tuple[RewardSource, ...], Field(strict=False)] = ()
    """Their weighted sum is the reward of an answer."""
    rollouts: Count = 64
    """Prompts answered between updates."""
    epochs: Count = 4
    """Passes over the answers of one rollout."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    temperature: Positive = 1.0
    kl: NotNegative = 0.05
    """Coefficient of the divergence from the start in the reward, a token; with kl_target only where it begins."""
    kl_target: Positive | None = None
    """Divergence, summed over an answer, to which the coefficient is steered (Ziegler et al., 2019); default: it stays."""
    kl_bound: Positive = 20.0
    """A rollout whose mean divergence, summed over an answer, is above this stops the run: a reward is being hacked."""
    longest_growth: Annotated[float, Field(gt=1)] = 3.0
    """Answers on average so many times as long as at the start stop the run."""
    most_repetition: Share = 0.6
    """Share of token triples in answers that repeat earlier ones, above which the run stops; must also be above the start's."""
    clip: Share = 0.2
    value_clip: Share = 0.2
    value_weight: NotNegative = 0.1
    entropy_weight: NotNegative = 0.0
    gamma: Fraction = 1.0
    gae_lambda: Fraction = 0.95
    value_learning_rate: Positive | None = None
    """Default: learning_rate."""
