"""Logits where they are needed are the logits that the whole model gives, whatever is put on it and however rows are batched."""

from __future__ import annotations

import copy

import pytest

from pipeline.domain.tuning import Output

TEXTS = [[1, 7, 8, 9, 10, 11, 12, 13, 14], [1, 30, 31, 32], [1, 50, 51, 52, 53, 54], [1, 70]]
"""Of different lengths; the second half of each is learned."""


def rows():
    from pipeline.modeling.texts.rows import IGNORED, Row

    return [Row(ids, [IGNORED] * (len(ids) // 2) + ids[len(ids) // 2 :]) for ids in TEXTS]


@pytest.fixture(scope="module")
def base(tiny_base):
    from pipeline.modeling.loading import load_base

    return load_base(tiny_base, Output.TEXT)


def gpt2():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(3)
    return GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0)).eval()


def with_adapter(base, which):
    """The base with something on it whose weights are random, so that it changes what comes out."""
    import torch
    from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model

    kind = TaskType.CAUSAL_LM
    targets = ["q_proj", "down_proj"]
    configs = {
        "lora": LoraConfig(task_type=kind, r=4, target_modules=targets),
        "lora_on_head": LoraConfig(task_type=kind, r=4, target_modules=["q_proj", "lm_head"]),
        "dora": LoraConfig(task_type=kind, r=4, use_dora=True, target_modules=targets),
        "prompt": PromptTuningConfig(task_type=kind, num_virtual_tokens=5),
        "prefix": PrefixTuningConfig(task_type=kind, num_virtual_tokens=5),
    }
    model = copy.deepcopy(base)
    if which != "base":
        model = get_peft_model(model, configs[which])
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def reference_log_probs(model, texts):
    """Log-probabilities of the learned tokens of each text asked by itself."""
    import torch

    found = []
    for row in texts:
        ids = torch.tensor([row.input_ids])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -ids.shape[1] :]
        log_probs = logits.float().log_softmax(-1)
        found += [log_probs[at - 1, label] for at, label in enumerate(row.labels) if at and label >= 0]
    return torch.stack(found)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("which", ["base", "lora", "lora_on_head", "dora", "prompt", "prefix"])
def test_picked_logits_are_the_models_own(base, which, mask):
    import torch

    from pipeline.modeling.forward import label_log_probs, token_logits
    from pipeline.modeling.texts.rows import collate

    model, texts = with_adapter(base, which), rows()
    batch = collate(texts, 0)
    if not mask:
        del batch["attention_mask"]
    with torch.no_grad():
        logits, targets, owners = token_logits(model, batch)
        alone = reference_log_probs(model, texts)
    assert logits.shape[0] == len(targets) == len(owners) == len(alone)
    torch.testing.assert_close(label_log_probs(logits, targets), alone, atol=1e-5, rtol=1e-5)
    assert owners.tolist() == [n for n, row in enumerate(texts) for label in row.labels[1:] if label >= 0]


def test_picked_logits_of_4_bit_weights_and_of_a_half_precision_pass_are_right(tiny_base):
    import torch

    from pipeline.modeling.forward import label_log_probs, token_logits
    from pipeline.modeling.loading import load_base
    from pipeline.modeling.texts.rows import collate

    quantized = with_adapter(load_base(tiny_base, Output.TEXT, quantize=True), "lora")
    plain = with_adapter(load_base(tiny_base, Output.TEXT), "lora")
    for model, half, close in ((quantized, False, 1e-4), (plain, True, 0.05)):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits, targets, _ = token_logits(model, collate(rows(), 0))
            alone = reference_log_probs(model, rows())
        assert logits.dtype == torch.float32
        torch.testing.assert_close(label_log_probs(logits, targets), alone, atol=close, rtol=close)


@pytest.mark.parametrize(
    ("architecture", "width", "twice"),
    [("llama", 0, False), ("llama", 12, False), ("llama", 40, True), ("gpt2", 0, False), ("gpt2", 40, True)],
)
def test_packed_loss_and_gradients_are_those_of_rows_apart(base, architecture, width, twice):
    """twice: with gradient checkpointing, which computes activations again on the way back."""
    import torch

    from pipeline.modeling.forward import token_logits
    from pipeline.modeling.objectives.likelihood import token_loss
    from pipeline.modeling.texts.packing import sees_texts_apart
    from pipeline.modeling.texts.rows import collate, collate_packed

    model = gpt2() if architecture == "gpt2" else copy.deepcopy(base)
    assert sees_texts_apart(model)
    if twice:
        model.gradient_checkpointing_enable()
        for module in model.modules():
            if module.__class__.__name__ == "Dropout":
                module.p = 0.0
        model.train()
    found = []
    for batch in (collate(rows(), 0), collate_packed(rows(), 0, width=width), *(collate([row], 0) for row in rows())):
        logits, targets, _ = token_logits(model, batch)
        loss = token_loss(logits, targets)
        model.zero_grad()
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in model.parameters()]))
    padded, packed, *alone = found
    together = (sum(loss for loss, _ in alone), [sum(parts) for parts in zip(*(grads for _, grads in alone), strict=True)])
    for loss, gradients in (padded, packed):
        assert loss.item() == pytest.approx(together[0].item(), abs=1e-5, rel=1e-6)
        for one, other in zip(gradients, together[1], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_model_that_does_not_heed_positions_is_not_trusted_with_packing(base):
    from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

    from pipeline.errors import Misuse
    from pipeline.modeling.texts.packing import looks_back_only, packs, sees_texts_apart
    from pipeline.params.train import StageParams

    bloom = BloomForCausalLM(BloomConfig(vocab_size=100, hidden_size=32, n_layer=1, n_head=4)).eval()
    mamba = MambaForCausalLM(MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, state_size=4)).eval()
    for model in (bloom, mamba):
        assert not sees_texts_apart(model)
        assert looks_back_only(model)
    lengths = [2, 90] * 20
    on, auto = (StageParams(packing=packing, batch_size=4) for packing in ("on", "auto"))
    assert not packs(auto, bloom, lengths, range(40))
    for model in (bloom, with_adapter(base, "prompt")):
        with pytest.raises(Misuse, match="cannot be packed"):
            packs(on, model, lengths, range(40))
    assert packs(auto, base, lengths, range(40))
    assert not packs(auto, base, lengths, [*range(0, 40, 2), *range(1, 40, 2)])  # grouped by length there is nothing to save
    assert packs(on, base, [9] * 40, range(40))
    assert not packs(StageParams(packing="off"), base, lengths, range(40))


def test_an_encoder_is_seen_to_look_both_ways():
    from transformers import BertConfig, BertLMHeadModel

    from pipeline.modeling.texts.packing import looks_back_only

    sizes = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    assert not looks_back_only(BertLMHeadModel(BertConfig(**sizes)).eval())
    assert looks_back_only(BertLMHeadModel(BertConfig(**sizes, is_decoder=True)).eval())


@pytest.mark.parametrize("which", ["base", "lora", "prompt", "prefix"])
def test_a_decoders_score_is_read_at_the_last_token(tiny_base, which):
    """Also where the padding id is among the text's own, and where a soft prompt stands before it."""
    import torch
    from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, TaskType, get_peft_model

    from pipeline.modeling.forward import pooled_logits
    from pipeline.modeling.loading import load_base
    from pipeline.modeling.texts.rows import Row, collate, pad

    model = load_base(tiny_base, Output.SCORE)
    kind = TaskType.SEQ_CLS
    configs = {
        "lora": LoraConfig(task_type=kind, r=4, target_modules=["q_proj"]),
        "prompt": PromptTuningConfig(task_type=kind, num_virtual_tokens=5),
        "prefix": PrefixTuningConfig(task_type=kind, num_virtual_tokens=5),
    }
    if which != "base":
        model = get_peft_model(model, configs[which])
    model.eval()
    texts = [[1, 7, 8, 9, 0], [1, 30], [0, 0, 3]]
    with torch.no_grad():
        alone = torch.stack(
            [model(input_ids=torch.tensor([t]), attention_mask=torch.ones(1, len(t))).logits[0] for t in texts[1:2]]
        )
        batches = (collate([Row(text, []) for text in texts], 0), pad(texts, 0, left=True))
        found = [pooled_logits(model, batch) for batch in batches]
        single = torch.cat([pooled_logits(model, collate([Row(text, [])], 0)) for text in texts])
    assert found[0].shape == (3, 1)
    torch.testing.assert_close(found[0], single, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(single[1:2], alone, atol=1e-5, rtol=1e-4)
    if which in ("base", "lora"):  # a rotated position is a relative one, but a soft prompt's distance is not
        torch.testing.assert_close(found[1], single, atol=1e-5, rtol=1e-4)


def test_an_encoders_labels_are_its_own():
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from pipeline.modeling.forward import pooled_logits
    from pipeline.modeling.texts.rows import Row, collate

    sizes = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    model = BertForSequenceClassification(BertConfig(**sizes, num_labels=3)).eval()
    batch = collate([Row(text, [0]) for text in TEXTS], 0)
    with torch.no_grad():
        whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        torch.testing.assert_close(pooled_logits(model, batch), whole)


def test_the_head_is_asked_only_where_there_is_loss(base):
    """What makes the difference in memory: the logits of one answer token, not of a whole text."""
    from pipeline.modeling.forward import token_logits
    from pipeline.modeling.texts.rows import IGNORED, Row, collate

    seen = []
    handle = base.lm_head.register_forward_hook(lambda *given: seen.append(tuple(given[2].shape)))
    try:
        row = Row(list(range(1, 61)), [IGNORED] * 59 + [60])
        logits, _, _ = token_logits(base, collate([row, row], 0))
    finally:
        handle.remove()
    assert seen == [(2, base.config.vocab_size)] == [tuple(logits.shape)]
    assert not base.lm_head._forward_pre_hooks
