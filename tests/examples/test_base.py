"""The base model's folder loads, is small, and was made from text that knows nothing of the support desk."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(base_folder)


def test_the_folder_is_small_and_loads(base_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype="float32")
    assert 1_000_000 < model.num_parameters() < 3_000_000
    assert model.config.max_position_embeddings == 512
    assert sum(path.stat().st_size for path in base_folder.iterdir() if path.is_file()) < 12_000_000


def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(3)
    usable = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    texts = [
        "",
        " a  b\t\n",
        "naïve café",
        "注文 A-48213",
        "🙂🏽‍🚀",
        "a\u0301 \u200d",
        *("".join(map(chr, rng.choices(usable, k=40))) for _ in range(50)),
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [token for token in tokenizer.tokenize("A-48213") if token.isdigit()] == list("48213")


def test_the_mask_covers_the_answers_and_their_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Yes: 42."},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Bye"},
    ]
    made = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    pairs = list(zip(made["input_ids"], made["assistant_masks"], strict=True))
    assert tokenizer.decode([token for token, kept in pairs if kept]) == "Yes: 42.<|end|>Bye<|end|>"
    assert tokenizer.decode(made["input_ids"]) == (
        "<s><|system|>Be short.<|end|><|user|>Hello?<|end|><|assistant|>Yes: 42.<|end|><|user|>Bye<|end|><|assistant|>Bye<|end|>"
    )
    prompt = tokenizer.apply_chat_template(chat[1:2], add_generation_prompt=True, tokenize=False)
    assert prompt == "<s><|user|>Hello?<|end|><|assistant|>"


def test_generation_stops_at_the_end_token(base_folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype="float32")
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert tokenizer.eos_token_id == end
    assert end in model.generation_config.eos_token_id
    assert tokenizer.pad_token_id == model.config.pad_token_id != end
    chat = [{"role": "user", "content": "Repeat: KX-4821 B-730"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert made[-1] == end
    assert tokenizer.decode(made, skip_special_tokens=True) == "KX-4821 B-730"


def test_the_corpus_is_repeatable_and_holds_no_ticket(corpus: ModuleType, desk: ModuleType) -> None:
    texts = list(corpus.documents(3000, seed=4))
    assert texts == list(corpus.documents(3000, seed=4))
    text = "\n".join(texts).lower()
    assert '"intent"' not in text
    assert '"urgency"' not in text
    for intent in desk.INTENTS.values():
        for saying in intent["sayings"]:
            for product in desk.PHRASES["products"]:
                assert saying.format(product=product).lower() not in text
