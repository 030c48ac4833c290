"""What the tests of learning from a reward are made of: prompts, a policy on the tiny base, a loop without the Trainer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.domain.tuning import Objective
from pipeline.modeling.forward import token_logits
from pipeline.modeling.learning.ppo.cast import Cast
from pipeline.modeling.learning.ppo.learner import PpoLearner
from pipeline.modeling.texts.rows import IGNORED, SCHEMA, Encoded, Row, collate, to_batch
from pipeline.params import StageParams

END, PAD = 2, 0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def policy(base: Path, *, moved: float = 0.0, rank: int = 4, dropout: float = 0.0, seed: int = 5) -> Any:
    """The base with a LoRA `default`; moved: how far its B is from zero."""
    torch.manual_seed(seed)
    bare = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=8, lora_dropout=dropout, target_modules=TARGETS)
    tuned = get_peft_model(bare, config)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if ".lora_B." in name:
                weight.normal_(0.0, moved) if moved else weight.zero_()
    return tuned.eval()


def build_loud_base(base: Path, folder: Path) -> Path:
    """The tiny base with larger embeddings: as it is its logits are all but equal, and no LoRA could make it say anything."""
    shutil.copytree(base, folder)
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(25.0)
    model.save_pretrained(folder)
    return folder


def prompts(base: Path, texts: Sequence[str], answers: Sequence[str | None] = ()) -> Encoded:
    """Prompts in ids, as encoding them for ppo gives."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    made = []
    for n, text in enumerate(texts):
        ids = tokenizer(f"<s><|user|>{text}<|end|><|assistant|>", add_special_tokens=False)["input_ids"]
        made.append(([Row(ids, [])], n, None, answers[n] if answers else None))
    counts = {"read": len(made), "kept": len(made), "items": len(made), "other_kinds": 0, "cut": 0}
    return Encoded(pa.Table.from_batches([to_batch(made)] if made else [], schema=SCHEMA), {}, counts)


def stage(**changes: Any) -> StageParams:
    usual = {"rewards": ({"rule": "length", "words": 2},), "rollouts": 8, "epochs": 2, "max_new_tokens": 10, "kl_bound": 1000.0}
    usual |= {"longest_growth": 100.0, "most_repetition": 0.99}
    ppo = usual | changes.pop("ppo", {})
    settings = {"objective": Objective.PPO, "batch_size": 4, "learning_rate": 0.01, "max_length": 96} | changes
    return StageParams(**settings, ppo=ppo)


def learner(base: Path, how: StageParams, *, tuned: Any = None, train: Encoded | None = None, held: Encoded | None = None) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(base)
    asked = train if train is not None else prompts(base, [f"Where is {n}{'?' * (n % 4)}" for n in range(12)])
    cast = tuned if isinstance(tuned, Cast) else Cast(tuned if tuned is not None else policy(base))

    def read(ids: Sequence[int]) -> str:
        return str(tokenizer.decode([i for i in ids if i != END], skip_special_tokens=True))

    return PpoLearner(cast, asked, held if held is not None else prompts(base, []), how, read=read, ends=(END,), pad_id=PAD)


class Steps:
    """Optimizer steps of a learner, as the loop takes them."""

    def __init__(self, learner: Any) -> None:
        self.learner = learner
        self.done = 0
        weights = [weight for weight in learner.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, lr=learner.stage.learning_rate, weight_decay=0.0)

    def take(self, count: int) -> list[dict[str, float]]:
        """So many steps from where it is; the measures of each."""
        found = []
        rows, order = self.learner.stage.step_rows, self.learner.order
        per_epoch = len(order) // rows
        for step in range(self.done + 1, self.done + count + 1):
            order.epoch = (step - 1) // per_epoch
            places = list(order)[(step - 1) % per_epoch * rows :][:rows]
            found.append(self._step(step, places))
        self.done += count
        return found

    def _step(self, step: int, places: list[int]) -> dict[str, float]:
        sums, _ = gradients(self.learner, step, places, rows=len(places))
        torch.nn.utils.clip_grad_norm_(self.learner.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return sums


def gradients(learner: Any, step: int, places: Sequence[int], *, rows: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Put the gradients of one step in place, cut into `rows` answers at a time; its measures, and the gradients by name."""
    learner.model.zero_grad()
    learner.begin_step(step, places)
    learner.model.train()
    units, sums = learner.units(places), {}
    for start in range(0, len(places), rows):
        losses = learner.losses(learner.batch(places[start : start + rows]))
        (losses.total / units).backward()
        for name, value in {"loss": float(losses.total.detach()), **losses.measures}.items():
            sums[name] = sums.get(name, 0.0) + value / units
    return sums, {name: w.grad.clone() for name, w in learner.model.named_parameters() if w.grad is not None}


def weights(model: Any) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of a model."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def taught(base: Path, answers: Sequence[str], *, steps: int = 120) -> Any:
    """A policy that has learned to give `answers` in turn, and to end them, as a stage of sft leaves it."""
    tuned, tokenizer = policy(base, rank=16), AutoTokenizer.from_pretrained(base)
    texts = [f"<s><|user|>Where is {n}<|end|><|assistant|>{answers[n % len(answers)]}<|end|>" for n in range(16)]
    rows = []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        prompt = ids.index(tokenizer.convert_tokens_to_ids("<|assistant|>")) + 1
        rows.append(Row(ids, [IGNORED] * prompt + ids[prompt:]))
    batch = collate(rows, PAD)
    optimizer = torch.optim.AdamW([weight for weight in tuned.parameters() if weight.requires_grad], lr=0.02)
    for _ in range(steps):
        logits, targets, _ = token_logits(tuned, batch)
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return tuned
