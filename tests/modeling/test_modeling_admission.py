"""Strict loading: an adapter that is not exactly what it says is refused, and plain peft loads one that is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modeling_kit import model_params, run, train_params

from pipeline.domain.model import TrainingRun
from pipeline.domain.record import digest_bytes
from pipeline.errors import Broken, Tampered
from pipeline.modeling.base import describe_base


def tune(data: Any, base: Path, home: Path, task: str, **changes: Any) -> TrainingRun:
    params = train_params(**({"max_steps": 6, "save_steps": 100} | changes))
    return run(data, base, home, params=params, model=model_params(base, task))


@pytest.fixture(scope="module")
def trained(chat_data, tiny_base, tmp_path_factory):
    home = tmp_path_factory.mktemp("trained")
    return home / "out" / "adapter", tune(chat_data, tiny_base, home, "generate")


@pytest.fixture
def copied(trained, tmp_path):
    return Path(shutil.copytree(trained[0], tmp_path / "adapter"))


def load(folder: Path, base: Path, task: str = "generate", **more: Any) -> Any:
    from pipeline.modeling.adapters.admission import load_adapter

    return load_adapter(folder, base, describe_base(model_params(base, task), base), **more)


def logits_of(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(20).unsqueeze(0)).logits


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def edit_tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "adapter_model.safetensors")
        save_file(change(tensors) or tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    return apply


def first(tensors: dict[str, Any], part: str) -> str:
    return min(k for k in tensors if part in k)


def both(folder: Path) -> None:
    """An alpha changed where it is used and where it is vouched for."""
    edit_json("adapter_config.json", lora_alpha=4096)(folder)
    edit_json("tuneline.json", alpha=4096)(folder)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    # D3: another template than it was trained with (other bases and tokenizers have a test of their own).
    "template": (lambda f: (f / "chat_template.jinja").write_text("{{ messages }}"), "chat template is not the one"),
    "no template": (lambda f: (f / "chat_template.jinja").unlink(), "chat_template.jinja is missing"),
    # D4: tensors that do not belong, do nothing, or do too much.
    "key missing": (edit_tensors(lambda t: {k: v for k, v in t.items() if k != first(t, "lora_A")}), "is missing"),
    "key extra": (
        edit_tensors(lambda t: t.update({"base_model.model.extra.lora_B.weight": t[first(t, "lora_B")].clone()})),
        "no module",
    ),
    "key renamed": (edit_tensors(lambda t: {k.replace("layers.1", "layers.7"): v for k, v in t.items()}), "is missing"),
    "shape": (
        edit_tensors(lambda t: t.update({first(t, "lora_A"): t[first(t, "lora_A")][:, :-1].contiguous()})),
        "has the shape",
    ),
    "half precision": (edit_tensors(lambda t: {k: v.half() for k, v in t.items()}), "adapters are float32"),
    "NaN": (edit_tensors(lambda t: _fill(t, "nan")), "NaN or Inf"),
    "one zero lora_B": (edit_tensors(lambda t: _fill(t, "0")), "all zeros"),
    "all zero lora_B": (edit_tensors(lambda t: {k: v * ("lora_B" not in k) for k, v in t.items()}), "all zeros"),
    "scaled weights": (edit_tensors(lambda t: {k: v * (40 if "lora_B" in k else 1) for k, v in t.items()}), "answer the probe"),
    "alpha": (edit_json("adapter_config.json", lora_alpha=4096), "lora_alpha is 4096"),
    "alpha twice": (both, "answer the probe"),
    "rank": (edit_json("adapter_config.json", r=2), "r is 2"),
    "rank pattern": (edit_json("adapter_config.json", rank_pattern={"q_proj": 1}), "rank_pattern"),
    "truncated": (lambda f: _cut(f / "adapter_model.safetensors"), "not a whole safetensors"),
    # D5: whatever could make a library run code.
    "auto_map": (edit_json("adapter_config.json", auto_map={"x": "evil.py"}), "'auto_map' is not known"),
    "auto_mapping": (edit_json("adapter_config.json", auto_mapping={"parent_library": "canary_of_tests"}), "auto_mapping is"),
    "parent_library": (edit_json("adapter_config.json", parent_library="canary_of_tests"), "'parent_library' is not known"),
    "attention": (edit_json("adapter_config.json", _attn_implementation_internal="evil/kernel"), "is not known"),
    "unknown key": (edit_json("adapter_config.json", something_new=1), "'something_new' is not known"),
    "other method": (edit_json("adapter_config.json", peft_type="LOHA"), "peft_type is 'LOHA'"),
    "megatron": (edit_json("adapter_config.json", megatron_core="canary_of_tests"), "megatron_core"),
    "true for one": (edit_json("adapter_config.json", use_dora=0), "use_dora is 0"),
    "pickle": (lambda f: (f / "adapter_model.bin").write_bytes(b"\x80\x04."), "can run code"),
    "code": (lambda f: (f / "modeling.py").write_text("raise SystemExit"), "can run code"),
    "extra file": (lambda f: (f / "notes.txt").write_text("hi"), "it is not known"),
    "folder": (lambda f: (f / "checkpoint").mkdir(), "no place"),
    "link": (lambda f: (f / "README.md").symlink_to("/etc/passwd"), "no place"),
    "double key": (lambda f: (f / "tuneline.json").write_text('{"rank":4,"rank":4}'), "appears twice"),
    "deep": (lambda f: (f / "adapter_config.json").write_text("[" * 100_000), "not readable"),
    "no handshake": (lambda f: (f / "tuneline.json").unlink(), "tuneline.json is missing"),
    "unknown handshake": (edit_json("tuneline.json", format=2), "handshake cannot be read"),
}


def _fill(tensors: dict[str, Any], value: str) -> None:
    tensors[first(tensors, "lora_B")].fill_(float(value))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("kind", REFUSED)
def test_a_changed_adapter_is_refused(kind, copied, trained, tiny_base):
    change, said = REFUSED[kind]
    change(copied)
    with pytest.raises(Broken, match=said):
        load(copied, tiny_base)
    with pytest.raises(Broken):
        load(copied, tiny_base, files=trained[1].adapter)
    assert "canary_of_tests" not in sys.modules


def test_one_flipped_byte_is_told_from_the_record(copied, trained, tiny_base):
    path = copied / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # still a finite number, hardly another one
    path.write_bytes(content)
    with pytest.raises(Tampered, match="not the one that was recorded"):
        load(copied, tiny_base, files=trained[1].adapter)
    load(trained[0], tiny_base, files=trained[1].adapter)


def test_another_base_or_tokenizer_is_refused(trained, tiny_base, tmp_path):
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(tiny_base, tmp_path / "weights"))
    weights = load_file(other / "model.safetensors")
    save_file({k: v * 1.5 for k, v in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Broken, match="other weights"):
        load(trained[0], other)
    other = Path(shutil.copytree(tiny_base, tmp_path / "tokenizer"))
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text().replace('"lstrip": false', '"lstrip": true', 1))
    with pytest.raises(Broken, match="other tokenizer"):
        load(trained[0], other)


def test_a_base_that_only_claims_to_be_the_one_is_found_out_by_the_probe(copied, tiny_base, tmp_path):
    """Same shapes, other weights, and a handshake forged to fit them."""
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(tiny_base, tmp_path / "forged"))
    weights = load_file(other / "model.safetensors")
    save_file({k: v.flip(0).contiguous() for k, v in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((copied / "tuneline.json").read_text())
    said["base"]["weights"] = describe_base(model_params(other), other).weights
    (copied / "tuneline.json").write_text(json.dumps(said))
    with pytest.raises(Broken, match="answer the probe"):
        load(copied, other)


def test_a_refused_adapter_leaves_its_neighbours_as_they_were(trained, copied, tiny_base):
    import torch

    from pipeline.modeling.adapters.admission import admit, attach

    model, admitted = load(trained[0], tiny_base)
    before = logits_of(model)
    edit_tensors(lambda t: {k: v * (40 if "lora_B" in k else 1) for k, v in t.items()})(copied)
    with pytest.raises(Broken, match="answer the probe"):
        attach(model, admit(copied, admitted.handshake.base), "other")
    assert list(model.peft_config) == ["default"]
    assert torch.equal(logits_of(model), before)


def test_plain_peft_loads_the_adapter_with_the_same_logits(trained, tiny_base, tmp_path):
    """A script that knows nothing of this project, in a process of its own."""
    import torch

    model, _ = load(trained[0], tiny_base)
    script = f"""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained({str(tiny_base)!r}, dtype=torch.float32)
model = PeftModel.from_pretrained(base, {str(trained[0])!r})
with torch.no_grad():
    torch.save(model(input_ids=torch.arange(20).unsqueeze(0)).logits, {str(tmp_path / "logits.pt")!r})
import sys
assert not any(name.split(".")[0] == "pipeline" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=300, cwd=tmp_path)
    plain = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert torch.equal(plain, logits_of(model))


def test_merged_into_the_base_it_answers_the_same(trained, tiny_base):
    import torch

    model, _ = load(trained[0], tiny_base)
    apart = logits_of(model)
    assert torch.allclose(logits_of(model.merge_and_unload(safe_merge=True)), apart, atol=1e-5)


@pytest.mark.parametrize("task", ["generate", "classify"])
def test_an_adapter_on_a_4_bit_base_trains_reloads_and_refuses_full_precision(task, chat_data, label_data, tiny_base, tmp_path):
    from pipeline.modeling.adapters.admission import admit, attach
    from pipeline.modeling.loading import load_base

    record = tune(chat_data if task == "generate" else label_data, tiny_base, tmp_path, task, tuner="qlora")
    again = tune(chat_data if task == "generate" else label_data, tiny_base, tmp_path, task, tuner="qlora")
    assert again.adapter_digest == record.adapter_digest
    model, admitted = load(tmp_path / "out" / "adapter", tiny_base, task, files=record.adapter)
    assert model.is_loaded_in_4bit
    full = load_base(tiny_base, admitted.handshake.output, admitted.handshake.labels)
    with pytest.raises(Broken, match="trained on a 4-bit"):
        attach(full, admit(tmp_path / "out" / "adapter", record.base), "x")


def test_the_written_config_is_plain_and_sorted(trained):
    text = (trained[0] / "adapter_config.json").read_text()
    config = json.loads(text)
    assert text == json.dumps(config, sort_keys=True, indent=2) + "\n"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["auto_mapping"] is None
    assert json.loads((trained[0] / "tuneline.json").read_text())["base"]["template"] == digest_bytes(
        (trained[0] / "chat_template.jinja").read_bytes()
    )
