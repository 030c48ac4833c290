"""Admits what was tuned from its folder, or says what is wrong with it. peft's own loading is not strict, so it is not used.

The files are judged before any library sees them: only known file names, only safetensors, a config equal to the one that
belongs to the handshake. Then the tensors must be exactly those of such a tuning on that base, and behave as they did
when they were written. Nothing here changes a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.peft_model import PeftModel

from pipeline.domain.model import BaseModelRef
from pipeline.domain.record import FileDigest, first_difference
from pipeline.domain.tuning import Tuner
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.modeling.adapters.adapter import peft_config
from pipeline.modeling.adapters.folder_checks import (
    check_base,
    check_config,
    check_parts,
    check_replaced,
    read_handshake,
    read_peft,
    read_template,
    refuse_files,
)
from pipeline.modeling.adapters.handshake import CONFIG, HANDSHAKE, NAME, TEMPLATE, TUNED_WEIGHTS, WEIGHTS, Handshake, Shape
from pipeline.modeling.adapters.probing import bare_states, probe
from pipeline.modeling.loading import head_modules, load_base
from pipeline.modeling.tuners.soft_prompt import put_prompt
from pipeline.modeling.tuners.weights import fill, tuned_names


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was tuned, its files in order. tensors: of the peft adapter, fp32 on the CPU by key. template: its chat template,
    None for classify. Tensors that replace the base's stay in their file until they are put into a model."""

    folder: Path
    handshake: Handshake
    tensors: dict[str, torch.Tensor]
    template: str | None

    @property
    def replaced(self) -> Path:
        """The file of tensors that replace the base's; there where handshake.weights is."""
        return self.folder / TUNED_WEIGHTS


def admit(folder: Path, base: BaseModelRef, *, files: tuple[FileDigest, ...] | None = None) -> Admitted:
    """Judge the files in `folder` for use on `base` (as describe_base gives it); `files` are the recorded digests, if known.

    Raises Tampered when a file differs from its record, Broken for everything else that keeps an adapter out.
    """
    if files is not None and (difference := first_difference(folder, files)) is not None:
        raise Tampered(f"the adapter is not the one that was recorded: {difference}", where=str(folder))
    refuse_files(folder, {CONFIG, WEIGHTS, TUNED_WEIGHTS, HANDSHAKE, TEMPLATE})
    handshake = read_handshake(folder)
    check_parts(folder, handshake)
    if handshake.has_peft:
        check_config(folder, handshake)
    template = read_template(folder, handshake)
    check_base(folder, handshake.base, base)
    if handshake.weights is not None:
        check_replaced(folder, handshake)
    return Admitted(folder, handshake, read_peft(folder, handshake) if handshake.has_peft else {}, template)


def attach(model: Any, admitted: Admitted, name: str) -> Any:
    """Put what was admitted on `model` under the unused name `name`; returns the model that carries it, in eval mode.

    `model` is a bare base; or, for what shares one (handshake.shares_base), a base that carries others of its kind. Raises Broken
    when the tensors do not fit, or the probe is not answered as when they were written. A LoRA is then taken off again; a
    model whose own weights were replaced, or that has a soft prompt, must be thrown away.
    """
    said = admitted.handshake
    if bool(getattr(model, "is_loaded_in_4bit", False)) != said.quantized:
        how = "a 4-bit (NF4) base" if said.quantized else "a base in full precision"
        raise Broken(f"the adapter was trained on {how}, and this one is not", where=str(admitted.folder))
    bare = None
    if said.weights is not None:
        bare = bare_states(model)
        fill(model, admitted.replaced, replaced_names(model, said))
    tuned = put_peft(model, admitted, name) if said.has_peft else model
    try:
        if said.has_peft:
            fill_peft(tuned, admitted.tensors, name=name, where=str(admitted.folder / WEIGHTS))
        _check_probe(tuned, admitted, name, bare)
    except Broken:
        if said.shares_base and len(tuned.peft_config) > 1:
            tuned.delete_adapter(name)
        elif said.shares_base:
            tuned.unload()  # the bare model was changed in place
        raise
    return tuned.eval()


def replaced_names(model: Any, said: Shape) -> tuple[str, ...]:
    """Names of the parameters of the bare `model` that such a tuning's own weights must be. Beside a LoRA they are without a
    head, which is the adapter's."""
    if said.weights is None:
        return ()
    names = tuned_names(model, said.weights, said.layers, said.output)
    heads = tuple(f"{name}." for name in head_modules(model, said.output)) if said.has_peft else ()
    return tuple(name for name in names if not (heads and name.startswith(heads)))


def fill_peft(model: Any, held: Mapping[str, torch.Tensor], *, name: str = NAME, where: str) -> None:
    """Give the peft adapter `name` on `model` the tensors `held`. Raises Broken unless they are exactly its own, in shape too."""
    expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    for key in sorted(expected.keys() - held.keys()):
        raise Broken(f"the tensor {key} is missing", where=where)
    for key in sorted(held.keys() - expected.keys()):
        raise Broken(f"the tensor {key} belongs to no module of this base", where=where)
    for key, tensor in held.items():
        if tensor.shape != expected[key].shape:
            raise Broken(f"{key} has the shape {tuple(tensor.shape)}, not {tuple(expected[key].shape)}", where=where)
    set_peft_model_state_dict(model, dict(held), adapter_name=name)
    now = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    for key, tensor in held.items():
        if not torch.equal(now[key].detach().float().cpu(), tensor.to(now[key].dtype).float().cpu()):
            raise Broken(f"{key} did not arrive in the model", where=where)


def load_adapter(
    folder: Path, path: Path, base: BaseModelRef, *, files: tuple[FileDigest, ...] | None = None
) -> tuple[Any, Admitted]:
    """The base in `path` (which describe_base calls `base`) with what was tuned in `folder` on it, both checked; see admit."""
    admitted = admit(folder, base, files=files)
    said = admitted.handshake
    model = load_base(path, said.output, said.labels, quantize=said.quantized)
    return attach(model, admitted, NAME), admitted


def put_peft(model: Any, admitted: Admitted, name: str) -> Any:
    """`model` with a place for the peft adapter that was admitted, frozen, still to be filled (fill_peft)."""
    said = admitted.handshake
    try:
        if said.tuner is Tuner.SOFT_PROMPT:
            return put_prompt(model, said, name=name, frozen=True)
        config = peft_config(said, frozen=True)
        if not isinstance(model, PeftModel):
            return get_peft_model(model, config, adapter_name=name)
        model.add_adapter(name, config)
        return model
    except (ValueError, Misuse) as error:
        raise Broken(f"the adapter does not fit the base: {error}", where=str(admitted.folder)) from error


def _check_probe(model: Any, admitted: Admitted, name: str, bare: torch.Tensor | None) -> None:
    seen = probe(model, admitted.handshake, name=name, bare=bare)
    where = str(admitted.folder)
    if not seen.finite:
        raise Broken("the adapter gives no finite logits", where=where)
    if seen.change == 0.0:
        raise Broken("the adapter leaves the base's logits as they were", where=where)
    said = admitted.handshake.probe
    # Other kernels and other precision move logits a little; another alpha or base moves them a lot.
    exact = not admitted.handshake.quantized and not torch.cuda.is_available()
    bound = (0.02 if exact else 0.2) * max(1e-3, max(abs(v) for v in said))
    if len(said) != len(seen.values) or max(abs(a - b) for a, b in zip(said, seen.values, strict=True)) > bound:
        raise Broken("the adapter does not answer the probe as it did when it was trained", where=where)
