"""One base in all its parts: the policy that learns, the reference it is held near, the value, reward models; an adapter each.

Which weights learn never changes while parts are switched: the policy's, the value's and the value's head. Everything else is
frozen. Where texts come from, and what is done with the numbers, is not known here.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from pipeline.modeling.adapters.handshake import NAME
from pipeline.modeling.learning.learner import Batch

REFERENCE, VALUE, REWARD = "reference", "value", "reward_"
"""Names of adapters beside the policy's; reward models have theirs after `reward_`."""


class Cast(nn.Module):  # type: ignore[misc]
    """`policy` is a peft LoRA model whose adapter `default` is the policy as it starts; other adapters are put beside it.

    The reference is the base with all adapters off while the policy changes nothing yet, else a frozen copy of the policy. The
    value is an adapter that starts as the policy, with a head that starts at zero: nothing is expected of any token at first.
    Its trainable parameters are all that is learned.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy
        self.value_head = _head(policy)
        self.reward_heads = nn.ModuleDict()
        self._playing: str | None = NAME
        self._learned = {name for name, weight in policy.named_parameters() if weight.requires_grad}
        self._learned |= {name.replace(f".{NAME}.", f".{VALUE}.") for name in self._learned}
        changes = any(bool(w.any()) for name, w in policy.named_parameters() if f".lora_B.{NAME}." in name)
        self.reference = REFERENCE if changes else None
        for name in (VALUE, REFERENCE) if changes else (VALUE,):
            self._copy_policy(name)
        self._hold()

    @property
    def config(self) -> Any:
        return self.policy.config

    def get_input_embeddings(self) -> nn.Module:
        """Where noise is put on, if any is."""
        found: nn.Module = self.policy.get_input_embeddings()
        return found

    def mind_recomputing(self) -> None:
        """Where activations are computed again in the backward pass (gradient checkpointing), let each layer do so with the
        adapter that it was asked with, whichever is on by that time."""
        model = self.policy.get_base_model()
        if not any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            return

        def contexts() -> tuple[Any, Any]:
            return contextlib.nullcontext(), self.playing(self._playing)

        how = {"use_reentrant": False, "context_fn": contexts}
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)

    @contextlib.contextmanager
    def playing(self, part: str | None) -> Iterator[Any]:
        """The peft model, with the adapter `part` on and no other; None: all off."""
        before = self._playing
        self._switch(part)
        try:
            yield self.policy
        finally:
            self._switch(before)

    def values(self, batch: Batch) -> torch.Tensor:
        """What is expected before each token that is predicted at batch["places"], as [n], fp32."""
        with self.playing(VALUE):
            hidden = self._hidden(batch).flatten(0, 1)[batch["places"]]
            found: torch.Tensor = self.value_head(hidden.to(self.value_head.weight.dtype))
        return found.squeeze(-1).float()

    def scores(self, name: str, batch: Batch) -> torch.Tensor:
        """What the reward model `name` gives each text, at its last token: [rows], fp32."""
        head = self.reward_heads[name]
        with self.playing(REWARD + name):
            hidden = self._hidden(batch)
            last = batch["attention_mask"].sum(1) - 1
            found: torch.Tensor = head(hidden[torch.arange(len(last), device=last.device), last].to(head.weight.dtype))
        return found.squeeze(-1).float()

    def add_reward(self, name: str, config: Any, head: torch.Tensor) -> None:
        """A place for the reward model `name`: a frozen adapter as `config` has it, for the caller to fill, and its head, one
        row of weights [1, width]."""
        place = next(self.value_head.parameters()).device
        linear = nn.Linear(head.shape[1], 1, bias=False, device=place)
        linear.weight = nn.Parameter(head.to(place), requires_grad=False)
        self.reward_heads[name] = linear
        self.policy.add_adapter(REWARD + name, config)
        self._hold()

    def _hidden(self, batch: Batch) -> torch.Tensor:
        """Last hidden states [rows, tokens, width] under the adapter that is on."""
        model = self.policy.get_base_model()
        body = getattr(model, model.base_model_prefix)
        found: torch.Tensor = body(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).last_hidden_state
        return found

    def _copy_policy(self, name: str) -> None:
        self.policy.add_adapter(name, copy.deepcopy(self.policy.peft_config[NAME]))
        tensors = dict(self.policy.named_parameters())
        with torch.no_grad():
            for own, tensor in tensors.items():
                if f".{NAME}." in own:
                    tensors[own.replace(f".{NAME}.", f".{name}.")].copy_(tensor)

    def _switch(self, part: str | None) -> None:
        if part == self._playing:
            return
        if part is None:
            self.policy.base_model.disable_adapter_layers()
        else:
            if self._playing is None:
                self.policy.base_model.enable_adapter_layers()
            self.policy.set_adapter(part)
        self._playing = part
        self._hold()

    def _hold(self) -> None:
        """peft lets what is on learn and freezes the rest; here what learns stays the same."""
        for name, weight in self.policy.named_parameters():
            weight.requires_grad_(name in self._learned)


def _head(policy: Any) -> nn.Linear:
    """A linear head that gives zero, for the hidden states that the output embedding takes."""
    head = nn.Linear(policy.get_base_model().get_output_embeddings().weight.shape[1], 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head.to(next(policy.parameters()).device)
