"""Loads a base and its tokenizer, checked: every weight present, none left over, one numeric type, never remote code.

Which folder it is and whether it may be used is base.py's; adapters are put on top in adapter.py.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig
from transformers import logging as transformers_logging

from pipeline.domain.tuning import Output
from pipeline.errors import Broken, Misuse
from pipeline.modeling.base import check_config

log = logging.getLogger(__name__)

# peft asks transformers by a name that transformers has since changed; nobody who reads it could do anything about it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def device() -> torch.device:
    """The one device that models are put on."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def device_class() -> str:
    """What kind of device that is, for records: bit-identical repeats are promised on one kind only."""
    return f"cuda: {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "cpu"


def half_precision() -> bool:
    """Whether bases are loaded in bf16. Never on a CPU, where most have no bf16 units and it is tens of times slower."""
    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """No gradients; bf16 bases meet fp32 adapters through autocast."""
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=half_precision()):
        yield


def load_tokenizer(path: Path) -> Any:
    """The base's tokenizer, with a padding token.

    A base without one is padded with its unknown or end token: those places are masked out everywhere, so the choice has no
    bearing on what is learned, and no token is added that the base has no embedding for.
    """
    check_config(path)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise Misuse("the tokenizer has no padding, unknown or end token to pad with", where=str(path))
        log.info("the base has no padding token; %r is used", tokenizer.pad_token)
    return tokenizer


def load_base(
    path: Path, output: Output, labels: Sequence[str] = (), *, quantize: bool = False, dtype: torch.dtype | None = None
) -> Any:
    """The base in `path` as a model in eval mode on `device()`: fp32 on CPU, bf16 where a GPU has it, NF4 with `quantize`.

    output: next-token logits, a logit for each of `labels`, or one number a text. A new head is drawn from torch's random state;
    nothing else may be new. dtype: instead of the usual one. Raises Broken when a weight is missing or left over (a truncated
    or foreign checkpoint), Misuse when the base cannot give such an output.
    """
    check_config(path)
    if output is Output.LABEL and len(labels) < 2:
        raise Misuse(f"classification needs two labels or more, and the data has {len(labels)}", where=str(path))
    options: dict[str, Any] = {
        "dtype": dtype or (torch.bfloat16 if half_precision() else torch.float32),
        "trust_remote_code": False,
        "local_files_only": True,
        "use_safetensors": True,
        "output_loading_info": True,
    }
    if quantize:
        options["quantization_config"] = nf4(path, output)
        options["device_map"] = {"": device()}
    if output is not Output.TEXT:
        rows = tuple(labels) if output is Output.LABEL else ("score",)
        options["id2label"] = dict(enumerate(rows))
        options["label2id"] = {label: i for i, label in enumerate(rows)}
        # A base that was tuned for other labels brings a head of another shape, which is replaced.
        options["ignore_mismatched_sizes"] = True
    kind = AutoModelForCausalLM if output is Output.TEXT else AutoModelForSequenceClassification
    with quiet():
        try:
            model, info = kind.from_pretrained(path, **options)
        except ValueError as error:
            raise Misuse(f"this base cannot give a {output}: {error}", where=str(path)) from error
    _check_loaded(model, info, output, path)
    if output is not Output.TEXT:
        model.config.pad_token_id = load_tokenizer(path).pad_token_id  # decoders find a row's last token by it
    if quantize:
        keep_plain_kernels(model)
    return (model if quantize else model.to(device())).eval()


def head_modules(model: Any, output: Output) -> tuple[str, ...]:
    """Names of the modules between the last hidden layer and labels or score, which are learned whole; none for text.

    A body's pooler is one of them: encoders made for embeddings never trained theirs, some bases have none, and what holds it
    back is no low-rank matter.
    """
    if output is Output.TEXT:
        return ()
    body = model.base_model_prefix
    found = [name for name, child in model.named_children() if name != body and any(True for _ in child.parameters())]
    if getattr(getattr(model, body, None), "pooler", None) is not None:
        found.append(f"{body}.pooler")
    return tuple(found)


def context_length(model: Any) -> int | None:
    """How many tokens of text the model has positions for, a soft prompt's taken off; None when its config does not say."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return limit - virtual_tokens(model) if isinstance(limit, int) and limit > 0 else None


def virtual_tokens(model: Any) -> int:
    """How many places a soft prompt on `model` takes before the text; 0 without one."""
    configs = getattr(model, "peft_config", None)
    return int(getattr(configs[model.active_adapter], "num_virtual_tokens", 0) or 0) if configs else 0


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end an answer, by the base's own generation config and tokenizer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = configured if isinstance(configured, list) else [configured]
    # A start token among the ends (some converted bases say so) is kept: after an answer has begun it can only end it.
    return tuple(sorted({i for i in [*found, tokenizer.eos_token_id] if i is not None}))


def nf4(path: Path, output: Output) -> Any:
    """4-bit NormalFloat for the base in `path`, as QLoRA has it (Dettmers et al., 2023): for all but the output embedding, or the
    head, which is learned whole."""
    kind = AutoModelForCausalLM if output is Output.TEXT else AutoModelForSequenceClassification
    with torch.device("meta"), quiet():
        skeleton = kind.from_config(AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True))
    embedding = skeleton.get_output_embeddings()
    whole = [name for name, module in skeleton.named_modules() if module is embedding] if embedding is not None else []
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if half_precision() else torch.float32,
        llm_int8_skip_modules=[*whole, *head_modules(skeleton, output)],
    )


def keep_plain_kernels(model: nn.Module) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes packs 4-bit weights anew for a bf16 kernel as soon as a layer is asked outside
    training: other numbers than were trained on, and an error where a matrix is narrower than a block (seen with 0.50.2)."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _check_loaded(model: nn.Module, info: dict[str, Any], output: Output, path: Path) -> None:
    heads = tuple(f"{name}." for name in head_modules(model, output))
    missing = sorted(str(k) for k in info["missing_keys"] if not (heads and str(k).startswith(heads)))
    mismatched = sorted(str(k[0] if isinstance(k, tuple) else k) for k in info["mismatched_keys"])
    mismatched = [k for k in mismatched if not (heads and k.startswith(heads))]
    # Another head among the leftovers is what classification expects; a numbered layer, or anything else, is not.
    unexpected = sorted(str(k) for k in info["unexpected_keys"] if output is Output.TEXT or re.search(r"\.\d+\.", str(k)))
    for what, keys in (("lacks", missing), ("has the wrong shape of", mismatched), ("does not know", unexpected)):
        if keys:
            subject = "the config" if what == "does not know" else "the base"
            raise Broken(
                f"{subject} {what} {len(keys)} of the weights, the first {keys[0]}",
                where=str(path),
                fix="the weight files and config.json do not belong together; download or copy the base again",
            )
    if info.get("error_msgs"):
        raise Broken(f"the base does not load: {info['error_msgs'][0]}", where=str(path))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars and warnings: what they would say is checked and raised instead."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
