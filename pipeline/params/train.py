"""The section `train`: one training stage, or a chain of them, each an objective, a tuner, data and a start.

Keys of a stage that an entry of train.stages does not give are those of train itself, so what all have in common is written once.
What goes together is domain/tuning.py's to say.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.domain.data import ExampleKind, Task
from pipeline.domain.tuning import CAN_LEARN_FROM, LEARNS_FROM, USUAL_OBJECTIVE, Objective, Tuner, refusal, start_refusal
from pipeline.params.section import Count, Fraction, Section, Share

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
STARTS = r"previous|base|champion|stage:[a-z][a-z0-9_-]{0,30}|version:(?:[a-z0-9][a-z0-9_-]{0,62}/)?[1-9][0-9]{0,8}|\./.+"


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
    """Continual: what share of the rows drawn are old, of shards that the champion was trained on; the others are newer. Default:
    all rows count alike."""


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


class StageParams(Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")] | None = None
    """Names the stage within the chain; default: its objective."""
    objective: Annotated[Objective, Field(strict=False)] | None = None
    """What is learned; default: sft (task generate) or classify. docs/methods.md has the table."""
    tuner: Annotated[Tuner, Field(strict=False)] = Tuner.LORA
    """Which weights learn."""
    start: Annotated[str, Field(pattern=f"^(?:{STARTS})$")] = "previous"
    """previous: the stage before, or the bare base. base. champion: what holds the last release stage; the bare base while nobody
    does. stage:NAME. version:N, or version:MODEL/N of another model on the same base. ./FOLDER: a peft LoRA from elsewhere."""
    kinds: Annotated[tuple[Annotated[ExampleKind, Field(strict=False)], ...], Field(strict=False)] | None = None
    """The kinds of row that are learned from; default: all that belong to the objective."""
    mix: MixParams = MixParams()
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    rslora: bool = False
    """Scale LoRA by alpha / sqrt(rank), not alpha / rank (Kalajdzievski, 2023)."""
    dora: bool = False
    """Learn the magnitude of each column beside LoRA's direction (Liu et al., 2024)."""
    dropout: Share = 0.0
    """Of LoRA's input."""
    target_modules: Annotated[tuple[str, ...], Field(strict=False)] | Literal["all-linear"] = "all-linear"
    """lora, qlora: the linear modules that are adapted, by the ends of their names."""
    layers: Count = 2
    """last_layers: how many."""
    soft_prompt: SoftPromptParams = SoftPromptParams()
    epochs: Positive = 3.0
    max_steps: Count | None = None
    """Stop after this many optimizer steps, whatever epochs says. ppo: an optimizer step is one minibatch of one pass."""
    batch_size: Count = 16
    """Rows (pairs, answers) that are in memory at once; halved when memory runs out."""
    gradient_accumulation: Count = 1
    """So many batches make an optimizer step."""
    eval_batch_size: Count | None = None
    """Rows in memory at once when the eval split is measured; default: batch_size."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_share: Share = 0.05
    """Of all steps."""
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """How long AdamW remembers squared gradients; short runs at a high rate want less (0.98)."""
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    label_smoothing: Share = 0.0
    """pretrain, sft, classify."""
    neftune_alpha: Positive | None = None
    """Noise on the embeddings while training (Jain et al., 2023), 5 is usual; default: none."""
    max_length: Count = 512
    """In tokens. Longer prompts are cut at their start (generate) or end (classify); longer answers are dropped; both counted."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Put several rows into one sequence, each seeing itself alone. auto: where rows differ enough in length for it to pay."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    logging_steps: Count = 10
    eval_steps: Count | None = None
    """How often the eval split is measured; default: once an epoch."""
    save_steps: Count = 50
    """How often a checkpoint is written."""
    keep_checkpoints: Count = 2
    keep: Literal["last", "best"] = "last"
    """Which weights are the result: those after the last step, or those with the least loss on the eval split."""
    early_stopping: EarlyStoppingParams = EarlyStoppingParams()
    overfitting: OverfittingParams = OverfittingParams()
    ewc: EwcParams = EwcParams()
    reward: RewardParams = RewardParams()
    dpo: DpoParams = DpoParams()
    kto: KtoParams = KtoParams()
    orpo: OrpoParams = OrpoParams()
    ppo: PpoParams = PpoParams()

    def learns(self, task: Task) -> Objective:
        """The objective, by default the task's usual one."""
        return self.objective or USUAL_OBJECTIVE[task]

    def learns_from(self, task: Task) -> tuple[ExampleKind, ...]:
        """The kinds of row that it learns from."""
        return self.kinds or LEARNS_FROM[self.learns(task)]

    @property
    def step_rows(self) -> int:
        """Rows that an optimizer step sees."""
        return self.batch_size * self.gradient_accumulation


class MachineParams(Section):
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where a GPU has it; never on a CPU."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile. auto: where a short probe on a GPU finds it faster."""
    kernels: Literal["auto", "on", "off"] = "auto"
    """Liger kernels, where they are installed and there is a GPU."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Compute activations twice to keep fewer. auto: where the predicted peak would not fit otherwise."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes on this machine, one a GPU or CPU part; each sees its share of every step's rows. A ppo stage takes one: each
    would make all the answers."""
    shard: bool = False
    """Spread weights, gradients and optimizer over the processes (FSDP)."""


class TrainParams(StageParams):
    stages: Annotated[tuple[StageParams, ...], Field(strict=False)] = ()
    """The chain, first to last: each entry has the keys above, and takes from above those it does not give. Without entries the
    keys above are the one stage."""
    machine: MachineParams = MachineParams()
    max_hours: Positive | None = None
    """Stop at a checkpoint when training has taken so long in all, and go on from there when it may take longer."""
    max_cost: Positive | None = None
    """The same in money; needs price_per_hour."""
    price_per_hour: Positive | None = None
    """What an hour of this machine costs, in your currency."""

    @model_validator(mode="before")
    @classmethod
    def _share_keys(cls, said: Any) -> Any:
        """Give each stage the keys of the whole that it does not give itself; sections within are joined key by key."""
        if not isinstance(said, dict) or not isinstance(said.get("stages"), list | tuple):
            return said
        shared = {key: value for key, value in said.items() if key in StageParams.model_fields and key not in ("name", "start")}
        stages = [_joined(shared, stage) if isinstance(stage, dict) else stage for stage in said["stages"]]
        return {**said, "stages": stages}

    @model_validator(mode="after")
    def _check_caps(self) -> TrainParams:
        if self.max_cost is not None and self.price_per_hour is None:
            raise ValueError("max_cost needs price_per_hour")
        return self

    def chain(self, task: Task) -> tuple[StageParams, ...]:
        """The stages, first to last, each with its objective and a name filled in; stages without one are numbered."""
        keys = set(StageParams.model_fields)
        entries = self.stages or (StageParams.model_validate(self.model_dump(include=keys)),)
        taken: dict[str, int] = {}
        found = []
        for stage in entries:
            usual = stage.learns(task).value
            taken[usual] = taken.get(usual, 0) + (stage.name is None)
            name = stage.name or (usual if taken[usual] == 1 else f"{usual}-{taken[usual]}")
            found.append(stage.model_copy(update={"name": name, "objective": stage.learns(task)}))
        return tuple(found)


def chain_problems(train: TrainParams, task: Task) -> list[str]:
    """What in a chain cannot be carried out, a sentence each with the key before it."""
    problems: list[str] = []
    chain = train.chain(task)
    earlier: dict[str, StageParams] = {}
    for number, stage in enumerate(chain):
        place = f"train.stages.{number}" if train.stages else "train"
        objective = stage.learns(task)
        problems += [f"{place}: {problem}" for problem in _stage_problems(stage, objective, task)]
        problems += _machine_problems(train.machine, stage, objective)
        before = _stage_before(stage.start, chain[:number], earlier)
        if isinstance(before, str):
            problems.append(f"{place}.start: {before}")
        elif before is not None:
            reason = start_refusal(stage.tuner, before.tuner)
            if reason is None and before.learns(task) is Objective.REWARD is not objective:
                reason = "a reward model gives a number, not a text: start from another stage, and name it in ppo.rewards"
            if reason is not None:
                problems.append(f"{place}.start: {stage.name} ({stage.tuner}) from {before.name} ({before.tuner}): {reason}")
        for source in stage.ppo.rewards if objective is Objective.PPO else ():
            named = earlier.get(source.stage or "")
            if source.stage is not None and (named is None or named.learns(task) is not Objective.REWARD):
                problems.append(f"{place}.ppo.rewards: no earlier stage of the objective reward is called {source.stage!r}")
            elif named is not None and (named.tuner is not stage.tuner):
                reason = f"{source.stage} was tuned by {named.tuner}, and ppo needs it on the same base: {stage.tuner}"
                problems.append(f"{place}.ppo.rewards: {reason}")
        if stage.name in earlier:
            problems.append(f"{place}.name: two stages are called {stage.name!r}")
        earlier[str(stage.name)] = stage
    if chain[-1].learns(task) is Objective.REWARD:
        problems.append("train: the last stage is a reward model, which nobody can be answered by; let ppo follow")
    return problems


def _machine_problems(machine: MachineParams, stage: StageParams, objective: Objective) -> list[str]:
    """What of a stage several processes cannot do."""
    problems = []
    if machine.shard and objective is Objective.PPO:
        problems.append("train.machine.shard: ppo answers with the whole model between steps, so it cannot be spread")
    if machine.shard and machine.processes == 1:
        problems.append("train.machine.shard: there is one process, so nothing to spread over; raise train.machine.processes")
    if machine.shard and stage.tuner is Tuner.QLORA:
        problems.append("train.machine.shard: 4-bit weights are blocks that cannot be spread; take lora, or qlora without shard")
    if machine.shard and stage.ewc.weight:
        problems.append("train.machine.shard: ewc's penalty is reckoned over whole weights; leave one of the two out")
    return problems


def _stage_problems(stage: StageParams, objective: Objective, task: Task) -> list[str]:
    problems = []
    if (objective is Objective.CLASSIFY) != (task is Task.CLASSIFY):
        problems.append(f"the objective {objective} does not fit the task {task}")
    if (reason := refusal(objective, stage.tuner)) is not None:
        problems.append(f"{objective} cannot be learned by {stage.tuner}: {reason}")
    for kind in stage.kinds or ():
        if kind not in CAN_LEARN_FROM[objective]:
            able = ", ".join(CAN_LEARN_FROM[objective])
            problems.append(f"kinds: {objective} cannot learn from {kind} rows; it can from {able}")
    if objective is Objective.PPO and stage.ppo.rollouts % stage.step_rows:
        problems.append(f"ppo.rollouts: {stage.ppo.rollouts} is no multiple of the {stage.step_rows} rows of an optimizer step")
    if objective is Objective.PPO and not stage.ppo.rewards:
        problems.append("ppo.rewards: name a reward stage, as {stage: NAME}, or a rule, as {rule: json_valid}")
    return problems


def _stage_before(start: str, chain: tuple[StageParams, ...], earlier: dict[str, StageParams]) -> StageParams | str | None:
    """The stage of this chain that is started from, None when it is none of this chain, or what is wrong."""
    if start == "previous":
        return chain[-1] if chain else None
    if match := re.fullmatch(r"stage:(.+)", start):
        return earlier.get(match[1]) or f"no earlier stage is called {match[1]!r}"
    return None


def _joined(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    both = {key: value for key, value in shared.items() if key in own and isinstance(value, dict) and isinstance(own[key], dict)}
    return {**shared, **own, **{key: {**value, **own[key]} for key, value in both.items()}}
