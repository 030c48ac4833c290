"""Going on from what an earlier stage or a release left: what is kept, what is fresh, what is melted in, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tuner_kit import SHAPES, begin, build_lively_base, load, logits_of, make, ref_of

from pipeline.domain.record import digest_file
from pipeline.domain.tuning import Output
from pipeline.errors import Broken, Misuse


@pytest.fixture(scope="module")
def lively(tiny_base, tmp_path_factory):
    return build_lively_base(tmp_path_factory.mktemp("lively") / "base", tiny_base)


@pytest.fixture(scope="module")
def started(tiny_base, tmp_path_factory):
    """A folder that each tuner left, by name."""
    home = tmp_path_factory.mktemp("started")
    for name, keys in SHAPES.items():
        make(tiny_base, home / name, **keys)
    return home


def same(one: Any, other: Any, *, within: float = 0.0) -> bool:
    import torch

    return torch.allclose(logits_of(one), logits_of(other), rtol=0, atol=within)


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_tuner_goes_on_where_it_was(name, started, tiny_base, tmp_path):
    before = load(started / name, tiny_base)
    model = begin(tiny_base, start=started / name, **SHAPES[name])
    assert same(model, before)
    after, _ = make(tiny_base, tmp_path / "next", start=started / name, **SHAPES[name])
    assert not same(after, before)
    assert same(load(tmp_path / "next", tiny_base), after)


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("lora", {"rank": 8}, "has rank 4, and the stage asks for 8"),
        ("lora", {"alpha": 4}, "has alpha 8"),
        ("lora", {"dora": True}, "has dora False"),
        ("dora", {"dora": False}, "has dora True"),
        ("rslora", {"rslora": False}, "has rslora True"),
        ("qlora", {"target_modules": ["q_proj"]}, "has target_modules down_proj"),
        ("last_layers", {"layers": 2}, "has layers 1, and the stage asks for 2"),
        ("prompt", {"soft_prompt": {"kind": "prompt", "tokens": 6}}, r"soft_prompt\.tokens 5"),
        ("prompt", {"soft_prompt": {"kind": "prefix", "tokens": 5}}, r"soft_prompt\.kind prompt"),
    ],
)
def test_another_shape_is_refused_and_the_key_named(name, changed, said, started, tiny_base):
    with pytest.raises(Misuse, match=said):
        begin(tiny_base, start=started / name, **(SHAPES[name] | changed))


@pytest.mark.parametrize("under", ["full", "last_layers"])
def test_a_lora_goes_on_top_of_tuned_weights_and_both_are_written(under, started, tiny_base, tmp_path):
    assert same(begin(tiny_base, start=started / under), load(started / under, tiny_base))
    model, said = make(tiny_base, tmp_path / "both", start=started / under)
    assert (said.tuner, said.weights) == ("lora", under)
    weights = "tuned_weights.safetensors"
    assert digest_file(tmp_path / "both" / weights) == digest_file(started / under / weights)
    assert same(load(tmp_path / "both", tiny_base), model)
    # And on: the same LoRA again, or all of it melted into full.
    further, said = make(tiny_base, tmp_path / "further", start=tmp_path / "both")
    assert said.weights == under
    assert same(load(tmp_path / "further", tiny_base), further)
    assert same(begin(tiny_base, start=tmp_path / "both", tuner="full"), model, within=1e-5)


@pytest.mark.parametrize("name", ["lora", "rslora", "dora"])
def test_under_full_tuning_a_lora_is_melted_in(name, started, tiny_base, tmp_path):
    before = load(started / name, tiny_base)
    assert same(begin(tiny_base, start=started / name, tuner="full"), before, within=1e-5)
    model, said = make(tiny_base, tmp_path / "full", start=started / name, tuner="full")
    assert said.weights == "full"
    assert same(load(tmp_path / "full", tiny_base), model)


def test_last_layers_after_full_keep_the_rest_of_what_full_tuned(started, tiny_base, tmp_path):
    from safetensors.torch import load_file

    keys = {"tuner": "last_layers", "layers": 1}
    assert same(begin(tiny_base, start=started / "full", **keys), load(started / "full", tiny_base))
    model, said = make(tiny_base, tmp_path / "last", start=started / "full", **keys)
    assert (said.weights, said.layers) == ("full", 1)
    before, after = (load_file(folder / "tuned_weights.safetensors") for folder in (started / "full", tmp_path / "last"))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert before.keys() == after.keys()
    assert all(name.startswith(("model.layers.1.", "model.norm.")) for name in changed)
    assert changed
    assert same(load(tmp_path / "last", tiny_base), model)


def test_a_head_is_kept_for_the_same_labels_and_fresh_for_others(tiny_base, tmp_path):
    import torch

    for name in ("lora", "full", "last_layers", "prefix"):
        make(tiny_base, tmp_path / name, Output.LABEL, **SHAPES[name])
        before = load(tmp_path / name, tiny_base, Output.LABEL)
        assert same(begin(tiny_base, Output.LABEL, start=tmp_path / name, **SHAPES[name]), before)
        others = begin(tiny_base, Output.LABEL, labels=("x", "y"), start=tmp_path / name, **SHAPES[name])
        fresh = begin(tiny_base, Output.LABEL, labels=("x", "y"), **SHAPES[name])
        assert logits_of(others).shape == (1, 2)
        assert torch.equal(_head_of(others), _head_of(fresh))
        assert not torch.equal(logits_of(others), logits_of(fresh))  # what is before the head is the start's
        model, _ = make(tiny_base, tmp_path / "other", Output.LABEL, labels=("x", "y"), start=tmp_path / name, **SHAPES[name])
        assert same(load(tmp_path / "other", tiny_base, Output.LABEL), model)


@pytest.mark.parametrize("name", ["lora", "full", "last_layers"])
@pytest.mark.parametrize("base", ["tiny_base", "lively"])
def test_a_reward_model_begins_from_what_answers_with_a_fresh_head(name, base, request, tmp_path):
    base = request.getfixturevalue(base)
    make(base, tmp_path / "answers", **SHAPES[name])
    for tuner in {name, "lora"}:
        keys = SHAPES[tuner]
        model, said = make(base, tmp_path / "scores", Output.SCORE, start=tmp_path / "answers", **keys)
        assert said.output is Output.SCORE
        assert logits_of(model).shape == (1, 1)
        assert same(load(tmp_path / "scores", base, Output.SCORE), model)
        with pytest.raises(Misuse, match="gives a number, not a text"):
            begin(base, start=tmp_path / "scores", **keys)


def test_what_does_not_go_together_is_refused_with_the_reason(started, tiny_base):
    for start, keys, said in (
        ("lora", SHAPES["qlora"], "4-bit"),
        ("qlora", SHAPES["full"], "4-bit"),
        ("lora", SHAPES["last_layers"], "LoRA has changed all layers"),
        ("prompt", SHAPES["lora"], "a soft prompt stands alone"),
        ("full", SHAPES["prefix"], "a soft prompt stands alone"),
    ):
        with pytest.raises(Misuse, match=said):
            begin(tiny_base, start=started / start, **keys)


def test_a_start_on_another_base_or_with_another_template_is_refused(started, tiny_base, lively, tmp_path):
    for name in ("lora", "full", "prompt"):
        with pytest.raises(Broken, match="other weights"):
            begin(lively, start=started / name, **SHAPES[name])
    other = Path(shutil.copytree(tiny_base, tmp_path / "template"))
    (other / "chat_template.jinja").write_text((other / "chat_template.jinja").read_text() + " ")
    assert ref_of(other).template != ref_of(tiny_base).template
    with pytest.raises(Broken, match="another chat template"):
        begin(other, start=started / "lora")


def _head_of(model: Any) -> Any:
    return next(p for name, p in model.named_parameters() if "score" in name and p.requires_grad).detach()
