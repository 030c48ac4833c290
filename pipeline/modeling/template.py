"""From messages to token ids, the one way that training, evaluation and serving share.

A chat template turns messages into text; the tokenizer turns that text into ids without adding anything of its own, so a
start token appears once or not at all, as the template says. What the model is asked when serving is, id for id, the
beginning of what it was trained on. Nothing here loads a model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from pipeline.domain.record import digest_bytes
from pipeline.errors import BadInput, Misuse

Messages = list[dict[str, str]]

_PROBE_ANSWER = "ok"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One training text in ids: `prompt`, then `answer`, whose last id is the end token."""

    prompt: list[int]
    answer: list[int]


class ChatTemplate:
    """A chat template in Jinja, bound to a tokenizer.

    text: its source. digest: SHA-256 of it. end_id: the token that closes an answer: the first special token that the template
    writes after one, or the tokenizer's end token where the template writes none.
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        self.tokenizer = tokenizer
        self.text = text
        self.digest = digest_bytes(text.encode())
        self._special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special |= set(tokenizer.all_special_ids)
        # By length, so that a token that holds another is taken apart first.
        names = {str(t) for t in tokenizer.convert_ids_to_tokens(sorted(self._special))} - {""}
        self._reserved = sorted(names, key=lambda name: (-len(name), name))
        self.end_id, self._writes_end = self._find_end()

    def prompts(self, inputs: Sequence[str]) -> list[list[int]]:
        """Ids that ask for an answer, for each input (canonical JSON of its messages; see domain/data.py)."""
        texts = [self._prompt(parse_messages(text)) for text in inputs]
        return self._ids(texts)

    def pairs(self, inputs: Sequence[str], outputs: Sequence[str]) -> list[Rendered | None]:
        """Ids to train on. None for a row whose prompt is no prefix of the whole in ids (the answer's first characters melt
        into the template's last token): it would be asked otherwise than it was taught."""
        messages = [parse_messages(text) for text in inputs]
        prompts = [self._prompt(m) for m in messages]
        wholes = [self._whole(m, answer) for m, answer in zip(messages, outputs, strict=True)]
        for prompt, whole in zip(prompts, wholes, strict=True):
            if not whole.startswith(prompt):
                raise _not_a_prefix(prompt, whole)
        rendered: list[Rendered | None] = []
        for prompt_ids, whole_ids in zip(self._ids(prompts), self._ids(wholes), strict=True):
            answer = self._close(whole_ids[len(prompt_ids) :])
            fits = whole_ids[: len(prompt_ids)] == prompt_ids and len(answer) > 1
            rendered.append(Rendered(prompt_ids, answer) if fits else None)
        return rendered

    def answer_text(self, ids: Sequence[int], ends: Sequence[int] = ()) -> str:
        """The text of generated ids, up to the first end token."""
        stop = next((n for n, i in enumerate(ids) if i == self.end_id or i in ends), len(ids))
        return str(self.tokenizer.decode(list(ids[:stop]), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _find_end(self) -> tuple[int, bool]:
        probe = [{"role": "user", "content": "hello"}]
        prompt, whole = self._prompt(probe), self._whole(probe, _PROBE_ANSWER)
        if not whole.startswith(prompt):
            raise _not_a_prefix(prompt, whole)
        if _PROBE_ANSWER not in whole[len(prompt) :]:
            raise Misuse(
                "the chat template does not write the assistant's answer behind the generation prompt",
                where="chat template",
                fix="messages of the role assistant must be rendered with their content",
            )
        rest = whole[len(prompt) :].split(_PROBE_ANSWER, 1)[1]
        written = next((i for i in self._ids([rest])[0] if i in self._special), None)
        if written is not None:
            return written, True
        if self.tokenizer.eos_token_id is None:
            raise Misuse(
                "neither the chat template nor the tokenizer has a token that ends an answer",
                where="chat template",
                fix="write the tokenizer's end token after the assistant's content, e.g. {{ eos_token }}",
            )
        return int(self.tokenizer.eos_token_id), False

    def _close(self, tail: list[int]) -> list[int]:
        """The answer's ids with exactly one end token; what a template writes after that is nobody's to learn."""
        if not self._writes_end:
            return [*tail, self.end_id]
        last = max((n for n, i in enumerate(tail) if i == self.end_id), default=len(tail) - 1)
        return tail[: last + 1]

    def _prompt(self, messages: Messages) -> str:
        return self._render(messages, add_generation_prompt=True)

    def _whole(self, messages: Messages, answer: str) -> str:
        return self._render([*messages, {"role": "assistant", "content": answer}], add_generation_prompt=False)

    def _render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        shielded = [{"role": m["role"], "content": self._shield(m["content"])} for m in messages]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    shielded, chat_template=self.text, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except (TemplateError, TypeError) as error:
            raise BadInput(f"the chat template refuses these messages: {error}", where="chat template") from error

    def _shield(self, content: str) -> str:
        """Text that spells a special token stays text: a zero-width space keeps a ticket from forging a turn."""
        for token in self._reserved:
            if token in content:
                content = content.replace(token, f"{token[0]}\u200b{token[1:]}")
        return content

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=False, padding=False, truncation=False, return_attention_mask=False)
        return list(encoded["input_ids"])


def parse_messages(text: str) -> Messages:
    """Messages from an example's input. Raises BadInput when it is not a JSON list of objects with role and content."""
    messages: Messages
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"an input is not the JSON of its messages: {error}", where=text[:80]) from error
    whole = isinstance(messages, list) and messages
    if not whole or not all(
        isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("role", "content")) for m in messages
    ):
        raise BadInput("an input must be a list of messages with the texts role and content", where=text[:80])
    return messages


def _not_a_prefix(prompt: str, whole: str) -> Misuse:
    return Misuse(
        f"the chat template writes the prompt otherwise when an answer follows: {prompt[-60:]!r} does not begin {whole[:200]!r}",
        where="chat template",
        fix="add_generation_prompt must add exactly what an assistant message begins with",
    )
