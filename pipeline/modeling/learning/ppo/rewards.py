"""What answers are worth: the weighted sum of reward models, asked as adapters of the policy's base, and of checked rules.

A reward model's folder is admitted as strictly as any adapter's. It was trained as a sequence classifier with one number; its
LoRA has the same places on a causal model, whose body is the same, and its head stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import Output
from pipeline.errors import Broken, Misuse
from pipeline.modeling.adapters.adapter import is_inner
from pipeline.modeling.adapters.admission import Admitted, admit, fill_peft
from pipeline.modeling.adapters.handshake import WEIGHTS
from pipeline.modeling.adapters.tensor_files import tensors
from pipeline.modeling.learning.ppo.cast import REWARD, Cast
from pipeline.modeling.learning.ppo.rules import judged
from pipeline.modeling.loading import inference
from pipeline.modeling.texts.rows import by_length, pad
from pipeline.modeling.tuners.lora import lora_config
from pipeline.params.learning import RewardSource


def add_reward_model(cast: Cast, name: str, folder: Path, ref: BaseModelRef) -> None:
    """Put the reward model of the stage `name`, in `folder`, beside the policy. ref: the base that both must be tuned on.

    Raises Broken when it is not what it says (see admission.admit), or its tensors are not exactly those of such a LoRA on this
    base and one head; Misuse when it is no reward model, or was tuned on other weights than the policy.
    """
    came = admit(folder, ref)
    said, ours = came.handshake, cast.policy.making.shape
    if said.output is not Output.SCORE:
        raise Misuse(
            f"{name} gives {said.output}, not a score", where="train.ppo.rewards", fix="name a stage of the objective reward"
        )
    if said.tuner is not ours.tuner:
        what = f"{name} was tuned by {said.tuner}, the policy is by {ours.tuner}"
        raise Misuse(what, where="train.ppo.rewards", fix="give both stages the same tuner: they share one base")
    _check_same_weights(cast, name, came)
    heads = {key: tensor for key, tensor in came.tensors.items() if not is_inner(key)}
    head = next(iter(heads.values()), None)
    if head is None or len(heads) > 1 or head.dim() != 2 or len(head) != 1:
        raise Broken(f"a head of one row is wanted, and there is {sorted(heads)}", where=str(folder / WEIGHTS))
    shape = said.model_copy(update={"output": Output.TEXT, "head": ()})
    cast.add_reward(name, lora_config(shape, frozen=True), head)
    inner = {key: tensor for key, tensor in came.tensors.items() if is_inner(key)}
    fill_peft(cast.policy, inner, name=REWARD + name, where=str(folder / WEIGHTS))


@dataclass(frozen=True, slots=True)
class Worth:
    """Of answers, in their order. total: the weighted sum; parts: what each source gave before its weight, by its name."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


def name_of(source: RewardSource) -> str:
    """What a source is called in curves: its reward stage or its rule."""
    return source.stage or str(source.rule)


def appraise(
    cast: Cast,
    sources: Sequence[RewardSource],
    texts: Sequence[list[int]],
    answers: Sequence[str],
    wanted: Sequence[str],
    *,
    pad_id: int,
    rows: int,
) -> Worth:
    """What each answer is worth. texts: ids of prompt and answer; answers: as text; wanted: what each row itself answers.

    rows: texts in memory at once. Scores are fp64 on the CPU.
    """
    total = torch.zeros(len(texts), dtype=torch.float64)
    parts = {}
    for source in sources:
        if source.stage is not None:
            found = scores(cast, source.stage, texts, pad_id=pad_id, rows=rows)
        else:
            found = torch.tensor(judged(source, answers, wanted), dtype=torch.float64)
        parts[name_of(source)] = found
        total += source.weight * found
    return Worth(total, parts)


def _check_same_weights(cast: Cast, name: str, came: Admitted) -> None:
    """The base's own weights may have been tuned before either; then they must be the same under both."""
    fix = "start both stages from the same"
    if (came.handshake.weights is None) != (cast.policy.making.shape.weights is None):
        raise Misuse(f"only one of {name} and the policy is on tuned weights", where="train.ppo.rewards", fix=fix)
    if came.handshake.weights is None:
        return
    own = {key.replace(".base_layer.", "."): weight for key, weight in cast.policy.get_base_model().named_parameters()}
    for key, tensor in tensors(came.replaced):
        if key not in own or not torch.equal(tensor.to(own[key].dtype), own[key].detach().cpu()):
            raise Misuse(f"{name} was tuned on another {key} than the policy", where="train.ppo.rewards", fix=fix)


def scores(cast: Cast, name: str, texts: Sequence[list[int]], *, pad_id: int, rows: int) -> torch.Tensor:
    """What the reward model `name` gives each text, fp64 on the CPU; the model is in eval mode."""
    found = torch.zeros(len(texts), dtype=torch.float64)
    place = cast.value_head.weight.device
    with inference():
        for places in by_length([len(ids) for ids in texts], rows):
            batch = {key: tensor.to(place) for key, tensor in pad([texts[n] for n in places], pad_id).items()}
            found[places] = cast.scores(name, batch).double().cpu()
    return found
