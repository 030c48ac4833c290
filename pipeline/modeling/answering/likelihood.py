"""How likely a model finds texts that are there: the log-probability of answers after their conversations, or of whole documents.

A text is tokenised as it would be learned from. No loss enters here, and nothing is generated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pipeline.domain.data import ExampleKind
from pipeline.domain.tuning import Objective
from pipeline.modeling.forward import label_log_probs, row_sums, token_logits
from pipeline.modeling.loading import device, inference
from pipeline.modeling.texts.items import Maker
from pipeline.modeling.texts.rows import IGNORED, Row, by_length, collate
from pipeline.modeling.texts.template import ChatTemplate


def rows_of(
    tokenizer: Any, template: Callable[[], ChatTemplate], inputs: Sequence[str], outputs: Sequence[str], *, room: int
) -> list[list[Row]]:
    """The rows that each text comes to: an answer one, a document (its input is empty) as many as its pieces of `room` tokens.

    An answer that calls tools comes as its message, which is what a row of the kind call holds. A prompt loses its start for
    want of room, and an answer longer than that its end: it is measured all the same.
    """
    found: list[list[Row]] = [[] for _ in outputs]
    documents = [n for n, text in enumerate(inputs) if not text]
    asked = [n for n, text in enumerate(inputs) if text]
    if documents:
        texts, kinds = [outputs[n] for n in documents], [ExampleKind.TEXT.value] * len(documents)
        made = Maker(Objective.PRETRAIN, tokenizer, None, (), room=room).make([""] * len(documents), texts, kinds)
        for n, one in zip(documents, made, strict=True):
            found[n] = [row for item in one.items for row in item]
    if asked:
        chat = template()
        said = ([inputs[n] for n in asked], [outputs[n] for n in asked])
        pairs = chat.pairs(*said, [_kind(output) for output in said[1]])
        for n, prompt, pair in zip(asked, chat.prompts(said[0]), pairs, strict=True):
            # Where prompt and answer melt together in ids, the answer is taken by itself.
            answer = pair.answer if pair is not None else _by_itself(tokenizer, outputs[n], chat.end_id)
            answer = answer[: room - 1]
            kept = prompt[-(room - len(answer)) :]
            found[n] = [Row(kept + answer, [IGNORED] * len(kept) + answer)]
    return found


def log_probs(
    model: Any, texts: Sequence[Sequence[Row]], *, pad_id: int, batch_size: int, told: Callable[[int], None] = lambda _: None
) -> tuple[list[float], list[int]]:
    """For each text, of one row or several: the sum of its labelled tokens' log-probabilities, in nats, and how many they are.

    told: called with the number of rows that are done.
    """
    rows = [row for text in texts for row in text]
    owner = [n for n, text in enumerate(texts) for _ in text]
    sums, tokens, done = [0.0] * len(texts), [0] * len(texts), 0
    with inference():
        for places in by_length([len(row.input_ids) for row in rows], batch_size):
            batch = {k: v.to(device()) for k, v in collate([rows[n] for n in places], pad_id).items()}
            logits, targets, owners = token_logits(model, batch)
            found = row_sums(label_log_probs(logits, targets).double(), owners, len(places))
            counted = torch.bincount(owners, minlength=len(places))
            for n, value, count in zip(places, found.tolist(), counted.tolist(), strict=True):
                sums[owner[n]] += value
                tokens[owner[n]] += count
            done += len(places)
            told(done)
    return sums, tokens


def _kind(output: str) -> str:
    try:
        said = json.loads(output) if output.startswith("{") else None
    except (ValueError, RecursionError):
        said = None
    calls = isinstance(said, dict) and said.keys() == {"content", "tool_calls"}
    return (ExampleKind.CALL if calls else ExampleKind.ANSWER).value


def _by_itself(tokenizer: Any, output: str, end: int) -> list[int]:
    return [*tokenizer(output, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"], end]
