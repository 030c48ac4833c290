"""What bench/train.py trains on: made-up token ids that can be learned, and bases to learn them with. The same in every process.

Each row follows a walk over tokens in which the next one is likely, not certain, so losses fall, and not to nothing. Rows are of
mixed length (lognormal, like questions and answers of people) or of even length. No side of the comparison enters here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAD, IGNORED = 0, -100
LABELS = 16


@dataclass(frozen=True, slots=True)
class Text:
    """prompt and answer of a row, ids; the worse answer of a pair; the label of a text. What a kind has no use for is empty."""

    prompt: list[int]
    answer: list[int]
    worse: list[int]
    label: int


@dataclass(frozen=True, slots=True)
class Shape:
    """How long rows are, in tokens: their median, the spread of the logarithm (0: all alike), the most."""

    median: int
    spread: float
    longest: int


MIXED, EVEN = Shape(72, 0.9, 448), Shape(128, 0.0, 128)
SHORT_MIXED, SHORT_EVEN = Shape(16, 0.6, 96), Shape(24, 0.0, 24)
"""Of texts to be classified."""


def texts(count: int, shape: Shape, vocabulary: int, *, seed: int) -> Iterator[Text]:
    """`count` rows over ids 3 to vocabulary - 1."""
    random = np.random.default_rng([seed, 1])
    walk = np.random.default_rng(0)
    size = min(vocabulary, 512) - 3
    following = walk.integers(0, size, (size, 4))
    for _ in range(count):
        length = int(np.clip(round(shape.median * math.exp(shape.spread * random.standard_normal())), 8, shape.longest))
        asked = max(2, int(length * (0.6 if shape.spread == 0 else random.uniform(0.3, 0.8))))
        ids = _walk(random, following, length)
        worse = _walk(random, following, max(2, length - asked), first=int(random.integers(size)))
        random.shuffle(worse)
        yield Text(ids[:asked], ids[asked:], worse, ids[0] % LABELS)


def _walk(random: np.random.Generator, following: np.ndarray[Any, Any], length: int, first: int | None = None) -> list[int]:
    ids = [int(random.integers(len(following))) if first is None else first]
    for choice in random.choice(following.shape[1], size=length - 1, p=(0.7, 0.15, 0.1, 0.05)):
        ids.append(int(following[ids[-1], choice]))
    return [3 + i for i in ids]


def tokens(rows: list[Text], objective: str) -> int:
    """Real tokens that a pass over the rows takes through the model; of pairs both sides."""
    if objective == "dpo":
        return sum(2 * len(row.prompt) + len(row.answer) + len(row.worse) for row in rows)
    return sum(len(row.prompt) + len(row.answer) for row in rows)


def feed_forward(hidden: int) -> int:
    """The inner width of a layer, as Llamas have it."""
    return int(hidden * 8 / 3 / 64) * 64


def build_llama(folder: Path, *, hidden: int, layers: int, vocabulary: int, half: bool = False) -> Path:
    """A Llama of random weights in `folder`, with a tokenizer that names its ids. half: bf16, drawn on the GPU."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = {f"<{n}>": n for n in range(vocabulary)}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="<1>")), pad_token="<0>", unk_token="<1>", eos_token="<2>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=feed_forward(hidden),
        num_hidden_layers=layers,
        num_attention_heads=hidden // (64 if hidden < 4096 else 128),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.device("cuda" if half else "cpu"):
        model = LlamaForCausalLM(config)
    (model.to(torch.bfloat16) if half else model).save_pretrained(folder)
    return folder
