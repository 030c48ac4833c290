"""A tuned model by itself, for those who load it without this project: a peft adapter, merged weights, or merged and quantised.

Whatever is written is read again by the plain libraries and asked the same as the tuned model as it was trained; how far apart
their logits are decides whether it may be given away. What a release is, and where it goes, is not known here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import Output, Tuner
from pipeline.errors import Broken, Misuse
from pipeline.modeling.adapters.admission import Admitted, admit, attach, fill_peft, put_peft, replaced_names
from pipeline.modeling.adapters.handshake import CONFIG, NAME, TEMPLATE, WEIGHTS
from pipeline.modeling.base import TOKENIZER_FILES, check_config
from pipeline.modeling.loading import inference, keep_plain_kernels, load_base, load_tokenizer, nf4, quiet
from pipeline.modeling.tuners.weights import fill

_ASKED = (
    "The quick brown fox jumps over the lazy dog.",
    "My card was declined in a shop abroad, although there is enough money on the account. What can I do?",
    "Once upon a time there was a little girl who lived in a house by the sea.",
    "def total(prices, tax=0.19):\n    return sum(prices) * (1 + tax)",
    '{"order": 1042, "items": [{"sku": "A-7", "count": 3}], "paid": true}',
    "In 1969 two people walked on the Moon; 650 million watched them.",
    "Please reset my password, I no longer have access to the old e-mail address!",
    "Water boils at a lower temperature on a mountain, because the air presses less.",
)
"""What the forms of a model are asked: plain texts of several sorts, each by itself."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a form's logits are from those of the tuned model, over all places of all texts.

    logits: root mean square of the differences over that of the tuned model's own logits, each place's mean taken off, which no
    probability depends on. divergence: of the probabilities, in nats, the mean over places. agreement: the share of places with
    the same likeliest token or label.
    """

    logits: float
    divergence: float
    agreement: float


def tuned_logits(base: Path, ref: BaseModelRef, adapter: Path) -> tuple[list[torch.Tensor], Admitted]:
    """Logits of the tuned model as it was trained (unmerged, in 4 bits where it was), and what was admitted.

    Raises Misuse for a reward model, Broken or Tampered for a folder that is not what it says.
    """
    admitted = admit(adapter, ref)
    said = admitted.handshake
    if said.output is Output.SCORE:
        raise Misuse("a reward model gives a number, and is no release", where=str(adapter))
    model = attach(load_base(base, said.output, said.labels, quantize=said.quantized), admitted, NAME)
    return _ask(model, base), admitted


def write_peft(admitted: Admitted, folder: Path) -> None:
    """The peft adapter alone, with the chat template. Raises Misuse for what is no adapter on the base as it is."""
    said = admitted.handshake
    if not said.has_peft or said.weights is not None:
        what = "tunes weights of the base itself" if not said.has_peft else "lies on tuned weights of the base"
        raise Misuse(f"what {said.tuner} made {what}, so there is no adapter to give away", fix="export it merged")
    for name in (CONFIG, WEIGHTS, TEMPLATE):
        if (admitted.folder / name).is_file():
            shutil.copyfile(admitted.folder / name, folder / name)


def precision(base: Path) -> str:
    """In what a base's files hold its weights: float16, bfloat16, or float32, also where its config does not say."""
    config = check_config(base)
    said = str(config.get("dtype", config.get("torch_dtype")))
    return said if said in ("float16", "bfloat16") else "float32"


def write_merged(base: Path, admitted: Admitted, folder: Path) -> None:
    """All weights in one, as a Hugging Face folder in the base's own precision: config, weights, tokenizer, chat template.

    Merged in fp32. What was trained beside 4-bit weights is merged into what those 4 bits stand for, since that is what it was
    trained beside; the result takes full room. Raises Misuse for a soft prompt.
    """
    _save(_merge(base, admitted).to(getattr(torch, precision(base))), base, admitted, folder)


def write_quantised(merged: Path, base: Path, admitted: Admitted, folder: Path) -> None:
    """The merged model of the folder `merged` in 4-bit NormalFloat, saved by bitsandbytes; loads where that is installed."""
    options = {
        "quantization_config": nf4(merged, admitted.handshake.output),
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    with quiet():
        model = _kind(admitted).from_pretrained(merged, **options)
    keep_plain_kernels(model)
    _save(model, base, admitted, folder)


def peft_logits(base: Path, admitted: Admitted, folder: Path) -> list[torch.Tensor]:
    """Logits of the adapter in `folder` as plain peft loads it."""
    said = admitted.handshake
    model = load_base(base, said.output, said.labels, quantize=said.quantized)
    with quiet():
        return _ask(PeftModel.from_pretrained(model, str(folder)).eval(), base)


def plain_logits(folder: Path, base: Path, admitted: Admitted) -> list[torch.Tensor]:
    """Logits of the model in `folder` as the plain library loads it."""
    options = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    with quiet():
        model = _kind(admitted).from_pretrained(folder, **options).eval()
    keep_plain_kernels(model)
    return _ask(model, base)


def compare(form: list[torch.Tensor], tuned: list[torch.Tensor]) -> Difference:
    """How far the logits of a form, [places, tokens or labels] a text, are from the tuned model's. Raises Broken for NaN."""
    ours, theirs = torch.cat(form), torch.cat(tuned)
    if ours.shape != theirs.shape or not bool(torch.isfinite(ours).all()):
        raise Broken("what was written gives no finite logits, or other ones")
    a, b = (logits - logits.mean(-1, keepdim=True) for logits in (ours, theirs))
    logs, likely = ours.log_softmax(-1), theirs.log_softmax(-1)
    return Difference(
        logits=float((a - b).square().mean().sqrt() / b.square().mean().sqrt().clamp(min=1e-12)),
        divergence=max(0.0, float((likely.exp() * (likely - logs)).sum(-1).mean())),
        agreement=float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()),
    )


def _merge(base: Path, admitted: Admitted) -> Any:
    said = admitted.handshake
    if said.tuner is Tuner.SOFT_PROMPT:
        raise Misuse("a soft prompt stands before the text and cannot be merged into weights", fix="export it as adapter")
    model = load_base(base, said.output, said.labels, dtype=torch.float32)
    if said.quantized:
        _take_quantised(model, load_base(base, said.output, said.labels, quantize=True))
    if said.weights is not None:
        fill(model, admitted.replaced, replaced_names(model, said))
    if not said.has_peft:
        return model
    tuned = put_peft(model, admitted, NAME)
    fill_peft(tuned, admitted.tensors, where=str(admitted.folder / WEIGHTS))
    return tuned.merge_and_unload(safe_merge=True)


def _take_quantised(model: Any, quantised: Any) -> None:
    """Give a full model the values that the 4-bit weights of another stand for."""
    for name, module in quantised.named_modules():
        if isinstance(module, Linear4bit):
            values = dequantize_4bit(module.weight.data, module.weight.quant_state).to(model.device, torch.float32)
            whole = model.get_submodule(name)
            whole.weight.data = values.T.contiguous() if isinstance(whole, Conv1D) else values


def _kind(admitted: Admitted) -> Any:
    return AutoModelForCausalLM if admitted.handshake.output is Output.TEXT else AutoModelForSequenceClassification


def _save(model: Any, base: Path, admitted: Admitted, folder: Path) -> None:
    with quiet():
        model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if admitted.template is not None:
        (folder / TEMPLATE).write_bytes(admitted.template.encode())


def _ask(model: Any, base: Path) -> list[torch.Tensor]:
    """Logits on each text, fp32 on the CPU: of all its places (text), or one row (labels)."""
    made = load_tokenizer(base)
    room = min(64, getattr(model.config, "max_position_embeddings", 64) // 2)
    found = []
    with inference():
        for text in _ASKED:
            ids = torch.tensor([made(text)["input_ids"][:room]], device=next(model.parameters()).device)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().cpu()
            found.append(logits[0][-ids.shape[1] :] if logits.dim() == 3 else logits)
    return found
