"""A LoRA from elsewhere: gone on from when it is a plain one, refused with a sentence before any library sees what is not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuner_kit import begin, edit_weights, logits_of, nudge

from pipeline.domain.tuning import Output
from pipeline.errors import Broken, Misuse

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def elsewhere(tiny_base, tmp_path_factory):
    """What plain peft saves of a LoRA, and the model it was saved from."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("elsewhere") / "adapter"
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    model = nudge(get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base), config))
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture
def copied(elsewhere, tmp_path):
    return Path(shutil.copytree(elsewhere[0], tmp_path / "adapter"))


def begin_from(folder: Path, base: Path, **keys: Any) -> Any:
    return begin(base, start=folder, **({"target_modules": ["q_proj", "v_proj"]} | keys))


def test_training_goes_on_from_it(elsewhere, copied, tiny_base):
    import torch

    folder, theirs = elsewhere
    assert (folder / "README.md").is_file()  # which peft writes, and nobody reads
    ours = begin_from(folder, tiny_base)
    assert torch.allclose(logits_of(ours), logits_of(theirs.eval()), atol=1e-6)
    assert {p.dtype for p in ours.parameters() if p.requires_grad} == {torch.float32}
    for dtype in (torch.float16, torch.bfloat16):
        edit_weights(copied, lambda t, d=dtype: {k: v.to(d) for k, v in t.items()}, WEIGHTS)
        half = begin_from(copied, tiny_base)
        assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
        assert torch.allclose(logits_of(half), logits_of(theirs), atol=0.05)


def test_it_melts_into_full_tuning_and_gives_other_outputs_a_start(elsewhere, tiny_base):
    import torch

    folder, theirs = elsewhere
    assert torch.allclose(logits_of(begin(tiny_base, start=folder, tuner="full")), logits_of(theirs.eval()), atol=1e-5)
    scores = begin_from(folder, tiny_base, output=Output.SCORE)
    assert logits_of(scores).shape == (1, 1)
    with pytest.raises(Misuse, match="has rank 4, and the stage asks for 8"):
        begin_from(folder, tiny_base, rank=8)
    with pytest.raises(Misuse, match="4-bit"):
        begin_from(folder, tiny_base, tuner="qlora")


def say(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: edit_weights(folder, change, WEIGHTS)


def first(held: dict[str, Any], part: str = "lora_A") -> str:
    return min(key for key in held if part in key)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickle": (lambda f: (f / "adapter_model.bin").write_bytes(b"\x80\x04."), "adapter_model.bin has no place.*can run code"),
    "training arguments": (lambda f: (f / "training_args.bin").write_bytes(b"\x80\x04."), "can run code"),
    "torch file": (lambda f: (f / "extra.pt").write_bytes(b"\x80\x04."), "can run code"),
    "code": (lambda f: (f / "modeling.py").write_text("import canary_of_tests"), "can run code"),
    "link": (lambda f: (f / "notes").symlink_to("/etc/passwd"), "no place"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "is missing"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "is missing"),
    "auto_map": (say(auto_map={"AutoModel": "canary_of_tests.Model"}), "'auto_map' is not known"),
    "parent_library": (say(parent_library="canary_of_tests"), "'parent_library' is not known"),
    "auto_mapping": (say(auto_mapping={"parent_library": "canary_of_tests", "base_model_class": "X"}), "auto_mapping is"),
    "unknown key": (say(something_new=1), "'something_new' is not known"),
    "megatron": (say(megatron_config={"x": 1}, megatron_core="canary_of_tests"), "megatron_con?"),
    "other method": (say(peft_type="LOHA"), "peft_type is 'LOHA'"),
    "weights made anew": (say(init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
    "rank pattern": (say(rank_pattern={"q_proj": 2}), "rank_pattern is"),
    "whole modules": (say(modules_to_save=["lm_head"]), "modules_to_save is"),
    "bias": (say(bias="all"), "bias is 'all'"),
    "rank": (say(r=8), "which is not of rank 8"),
    "no rank": (say(r=0), "r is 0"),
    "a word for a rank": (say(r="4"), "r is '4'"),
    "endless alpha": (say(lora_alpha=1e9), "lora_alpha is"),
    "key twice": (lambda f: (f / "adapter_config.json").write_text('{"r":4,"r":4}'), "appears twice"),
    "deep": (lambda f: (f / "adapter_config.json").write_text("[" * 100_000), "not readable"),
    "foreign key": (tensors(lambda t: t | {"base_model.model.model.more.weight": t[first(t)].clone()}), "is part of no LoRA"),
    "foreign module": (tensors(lambda t: {k.replace("layers.1", "layers.7"): v for k, v in t.items()}), "is missing|no module"),
    "half of a pair": (tensors(lambda t: {k: v for k, v in t.items() if k != first(t)}), "is missing"),
    "NaN": (tensors(lambda t: t | {first(t): t[first(t)] * float("nan")}), "NaN or Inf"),
    "whole numbers": (tensors(lambda t: t | {first(t): t[first(t)].char()}), "where adapters are float16"),
    "nothing learned": (tensors(lambda t: {k: v * ("lora_B" not in k) for k, v in t.items()}), "changes nothing"),
    "torn": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "not a whole safetensors"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_lora_is_refused_before_anything_is_imported(kind, copied, tiny_base, tmp_path, monkeypatch):
    change, said = REFUSED[kind]
    canary = tmp_path / "lib" / "canary_of_tests.py"
    canary.parent.mkdir()
    canary.write_text(f"open({str(tmp_path / 'sang')!r}, 'w')\nclass X: ...\nclass Model: ...\n")
    monkeypatch.syspath_prepend(str(canary.parent))
    change(copied)
    with pytest.raises(Broken, match=said):
        begin_from(copied, tiny_base)
    assert "canary_of_tests" not in sys.modules
    assert not (tmp_path / "sang").exists()


def test_modules_that_the_base_has_not_are_named(copied, tiny_base):
    tensors(lambda t: {k.replace("v_proj", "query"): v for k, v in t.items()})(copied)
    with pytest.raises((Misuse, Broken), match="query"):
        begin_from(copied, tiny_base, target_modules=["q_proj", "query"])
    with pytest.raises(Misuse, match="has target_modules q_proj, query"):
        begin_from(copied, tiny_base)
