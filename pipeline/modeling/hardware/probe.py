"""Chooses by a short measurement what a GPU does faster, and puts choices on a loaded model. The one module here with torch.

A cut-down base of random weights is enough: layers are alike, and their kernels are what differs. What fits is fitting.py's.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from pipeline.errors import Misuse
from pipeline.modeling.hardware.choices import Choices, Fitted
from pipeline.params.train import MachineParams, StageParams

WORTH = 0.95
"""What costs this share of the time or more is no gain: the plainer choice stays."""
_LAYERS, _TIMES, _WARM = 2, 5, 2
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h


def choose_on_gpu(base: Path, stage: StageParams, machine: MachineParams) -> Choices:
    """What `machine` leaves open, by measuring; what it says, as it says. Raises Misuse for what is not installed."""
    half = torch.cuda.is_bf16_supported() if machine.precision == "auto" else machine.precision == "bf16"
    if half and not torch.cuda.is_bf16_supported():
        raise Misuse("this GPU has no bf16", where="train.machine.precision", fix="leave it at auto, or write fp32")
    because = {"precision": "params say so" if machine.precision != "auto" else f"the GPU has {'' if half else 'no '}bf16"}
    rows, tokens = min(stage.batch_size, 8), min(stage.max_length, 1024)
    dtype = torch.bfloat16 if half else torch.float32

    def seconds(**how: Any) -> float:
        return time_layers(base, torch.device("cuda", 0), dtype, rows=rows, tokens=tokens, **how)

    attention: str = machine.attention
    if attention == "flash_attention_2" and not _has("flash_attn"):
        fix = "pip install flash-attn, or leave it at auto"
        raise Misuse("flash_attention_2 needs the package flash-attn", where="train.machine.attention", fix=fix)
    if attention == "auto":
        able = ["sdpa", *(["flash_attention_2"] if half and _has("flash_attn") else [])]
        attention, because["attention"] = fastest(able, lambda name: seconds(attention=name))
    kernels = machine.kernels == "on"
    if kernels and not _has("liger_kernel"):
        fix = "pip install liger-kernel, or leave it at auto"
        raise Misuse("kernels: on needs the package liger-kernel", where="train.machine.kernels", fix=fix)
    if machine.kernels == "auto" and _has("liger_kernel"):
        chosen, because["kernels"] = fastest(["off", "on"], lambda on: seconds(attention=attention, kernels=on == "on"))
        kernels = chosen == "on"
    compiled = machine.compile == "on"
    if machine.compile == "auto":
        chosen, because["compile"] = fastest(
            ["off", "on"], lambda on: seconds(attention=attention, kernels=kernels, compiled=on == "on")
        )
        compiled = chosen == "on"
    return Choices("bf16" if half else "fp32", attention, compiled, kernels, because)


def fastest(able: Sequence[str], seconds: Callable[[str], float]) -> tuple[str, str]:
    """(the choice, why). The first of `able` stays unless another takes less than WORTH of its time; one that fails is out."""
    if len(able) == 1:
        return able[0], "nothing else is installed"
    took: dict[str, float] = {able[0]: seconds(able[0])}
    said = [f"{able[0]} {took[able[0]] * 1000:.1f} ms"]
    for name in able[1:]:
        try:
            took[name] = seconds(name)
            said.append(f"{name} {took[name] * 1000:.1f} ms")
        except (RuntimeError, ValueError, ImportError, NotImplementedError) as error:
            said.append(f"{name} fails ({type(error).__name__})")
    best = min(took, key=lambda name: took[name] * (1.0 if name == able[0] else 1 / WORTH))
    return best, f"forward and backward of {_LAYERS} layers: {', '.join(said)}"


def time_layers(
    base: Path,
    device: torch.device,
    dtype: torch.dtype,
    *,
    rows: int,
    tokens: int,
    attention: str = "sdpa",
    kernels: bool = False,
    compiled: bool = False,
) -> float:
    """Median seconds of a forward and backward pass over two layers of the base, random weights and ids [rows, tokens]."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True)
    config.num_hidden_layers = _LAYERS
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:_LAYERS]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(7)
        model = AutoModel.from_config(config, attn_implementation=attention, dtype=dtype).to(device).train()
        ids = torch.randint(0, config.vocab_size, (rows, tokens), device=device)
        if kernels:
            _put_kernels(model)
        if compiled:
            model.compile()
        took = []
        for _ in range(_WARM + _TIMES):
            _wait(device)
            started = time.perf_counter()
            model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.float().square().mean().backward()
            _wait(device)
            took.append(time.perf_counter() - started)
    return statistics.median(took[_WARM:])


def gpu_flops(*, half: bool, size: int = 8192) -> float:
    """Floating-point operations a second of the GPU in matrix products [size, size]."""
    device, dtype = torch.device("cuda", 0), torch.bfloat16 if half else torch.float32
    matrix = torch.ones((size, size), dtype=dtype, device=device)
    took = []
    for _ in range(_WARM + _TIMES):
        _wait(device)
        started = time.perf_counter()
        matrix @ matrix
        _wait(device)
        took.append(time.perf_counter() - started)
    return 2.0 * size**3 / statistics.median(took[_WARM:])


def put_on(model: Any, fitted: Fitted) -> None:
    """Carry out what was chosen: on a loaded model, with its tuner on it, attention, gradient checkpointing, Liger kernels and
    compiling; on this process tight memory. Raises Misuse where the base does not know gradient checkpointing."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if whole.config._attn_implementation != fitted.choices.attention:
        whole.set_attn_implementation(fitted.choices.attention)
    if fitted.tight:
        _hold_memory_tight()
    if fitted.gradient_checkpointing:
        try:
            # Not reentrant: it works where no input needs a gradient, as with frozen embeddings, and keeps random state.
            whole.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            fix = "train.machine.gradient_checkpointing: off, with a smaller train.max_length"
            raise Misuse(f"this base knows no gradient checkpointing: {error}", where="train.machine", fix=fix) from error
    if fitted.choices.kernels:
        _put_kernels(whole)
    if fitted.choices.compile:
        whole.compile()


def _hold_memory_tight() -> None:
    """Have glibc give blocks of 1 MiB and more back as soon as they are free. Its own threshold grows to 32 MiB, and blocks below
    it are pooled in a way that loses nearly as much as is used (memory._FRAGMENTED). Other allocators are left alone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


def _put_kernels(model: Any) -> None:
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
