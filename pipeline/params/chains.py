"""What in a chain of training stages cannot be carried out, and why: told when params are read, before anything is loaded.

What goes together is domain/tuning.py's to say; the keys are train.py's.
"""

from __future__ import annotations

import re

from pipeline.domain.data import Task
from pipeline.domain.tuning import CAN_LEARN_FROM, Objective, Tuner, refusal, start_refusal
from pipeline.params.train import MachineParams, StageParams, TrainParams


def chain_problems(train: TrainParams, task: Task, *, workers: int = 0) -> list[str]:
    """What in a chain cannot be carried out, a sentence each with the key before it. workers: of a cluster, where one trains."""
    problems: list[str] = []
    chain = train.chain(task)
    earlier: dict[str, StageParams] = {}
    for number, stage in enumerate(chain):
        place = f"train.stages.{number}" if train.stages else "train"
        objective = stage.learns(task)
        problems += [f"{place}: {problem}" for problem in _stage_problems(stage, objective, task)]
        problems += _machine_problems(train.machine, stage, objective, workers)
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


def _machine_problems(machine: MachineParams, stage: StageParams, objective: Objective, workers: int) -> list[str]:
    """What of a stage several processes cannot do."""
    problems = []
    if machine.shard and objective is Objective.PPO:
        problems.append("train.machine.shard: ppo answers with the whole model between steps, so it cannot be spread")
    if machine.shard and max(machine.processes, workers) == 1:
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
