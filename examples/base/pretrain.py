"""Trains the base model's tokenizer and weights from scratch on `corpus.py`'s text, and writes them as a model folder.

Run it as `python examples/base/pretrain.py --minutes 22 --out examples/base`. Nothing of the fine-tuning pipeline may
enter: the base must not know it. Always fp32, so that a processor without bf16 units makes the same thing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from corpus import SPECIAL_TOKENS, documents
from muon import Muon
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 512
WINDOW = 256
HELD_OUT_SEED = 1_000_003
CHAT_TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""


def train_tokenizer(texts: list[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose digits stand alone, so that numbers can be copied digit by digit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
        additional_special_tokens=["</s>", "<|system|>", "<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def pack(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Windows cut from one stream of token ids, and their weights: a prompt's tokens count less than an answer's."""
    ids = np.concatenate([np.asarray(e.ids, dtype=np.int16) for e in tokenizer.backend_tokenizer.encode_batch(texts)])
    start, prompt, answer = (tokenizer.convert_tokens_to_ids(t) for t in ("<s>", "<|user|>", "<|assistant|>"))
    marks = np.where((ids == start) | (ids == prompt) | (ids == answer), np.arange(len(ids)), 0)
    weights = np.where(ids[np.maximum.accumulate(marks)] == prompt, 0.3, 1.0).astype(np.float32)
    whole = len(ids) // WINDOW * WINDOW
    return ids[:whole].reshape(-1, WINDOW), weights[:whole].reshape(-1, WINDOW)


def build_model(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, mlp: int) -> LlamaForCausalLM:
    """A Llama of about two million weights with fresh random values."""
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).float()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        eos_token_id=[end, tokenizer.convert_tokens_to_ids("</s>")],
        max_new_tokens=128,
    )
    return model


def window_loss(model: LlamaForCausalLM, ids: np.ndarray, weights: np.ndarray, device: str) -> torch.Tensor:
    """The weighted mean next-token loss of some windows."""
    tokens = torch.as_tensor(ids.astype(np.int64), device=device)
    weight = torch.as_tensor(weights, device=device)[:, 1:].reshape(-1)
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].reshape(-1, model.config.vocab_size)
    losses = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].reshape(-1), reduction="none")
    return (losses * weight).sum() / weight.sum()


def held_out_loss(model: LlamaForCausalLM, ids: np.ndarray, weights: np.ndarray, device: str) -> float:
    """The weighted loss on windows that training never sees."""
    model.eval()
    with torch.no_grad():
        losses = [float(window_loss(model, ids[i : i + 16], weights[i : i + 16], device)) for i in range(0, len(ids), 16)]
    model.train()
    return sum(losses) / len(losses)


def schedule(done: float) -> float:
    """The share of the peak learning rate: warm-up over the first fiftieth of the time, then a cosine down to 0.03."""
    if done < 0.02:
        return (done + 1e-4) / 0.02
    return 0.03 + 0.485 * (1 + math.cos(math.pi * min(1.0, (done - 0.02) / 0.98)))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model folder; a run cut short keeps its last one."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def pretrain(args: argparse.Namespace) -> None:
    """Build the text, the tokenizer and the model; train for the given minutes; write the folder."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = list(documents(args.documents, args.seed))
    tokenizer = train_tokenizer(texts[:20_000])
    ids, weights = pack(tokenizer, texts)
    held = pack(tokenizer, list(documents(600, HELD_OUT_SEED)))
    np.random.default_rng(args.seed).shuffle(order := np.arange(len(ids)))
    model = build_model(tokenizer, args.hidden, args.layers, args.mlp).to(device).train()
    print(
        f"{model.num_parameters():,} weights, {ids.size:,} tokens of text, {held[0].size:,} held out, on {device}",
        flush=True,
    )
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = (
        Muon(hidden, lr=args.lr),
        torch.optim.AdamW(others, lr=args.lr * 0.3, betas=(0.9, 0.98), weight_decay=0.0),
    )
    groups = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    began, step, seen, recent = time.monotonic(), 0, 0, []
    while (spent := time.monotonic() - began) < args.minutes * 60:
        share = schedule(spent / (args.minutes * 60))
        for group, peak in groups:
            group["lr"] = peak * share
        rows = order[[(step * args.batch + i) % len(order) for i in range(args.batch)]]
        loss = window_loss(model, ids[rows], weights[rows], device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, seen, recent = step + 1, seen + rows.size * WINDOW, [*recent[-49:], loss.item()]
        if step % 50 == 0:
            took = time.monotonic() - began
            print(
                f"step {step}  {took:.0f} s  {seen / took:.0f} tokens/s  loss {sum(recent) / len(recent):.3f}",
                flush=True,
            )
        if step % 500 == 0:
            print(f"held out {held_out_loss(model, *held, device):.3f}", flush=True)
            save(model, tokenizer, args.out)
    record = {
        "seed": args.seed,
        "seconds": round(time.monotonic() - began),
        "steps": step,
        "tokens": seen,
        "weights": model.num_parameters(),
        "final_loss": round(sum(recent) / len(recent), 3),
        "held_out_loss": round(held_out_loss(model, *held, device), 3),
    }
    print(json.dumps(record))
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Pretrain the small base model.")
    parser.add_argument("--minutes", type=float, default=22)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--documents", type=int, default=130_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--mlp", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    pretrain(parser.parse_args())
