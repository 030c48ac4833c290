"""From messages to token ids, the one way that training, evaluation and serving share.

A chat template turns messages into text; the tokenizer turns that text into ids without adding anything of its own, so a
start token appears once or not at all, as the template says. What the model is asked when serving is, id for id, the
beginning of what it was trained on. Nothing here loads a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from pipeline.domain.data import ExampleKind
from pipeline.domain.record import digest_bytes
from pipeline.errors import BadInput, Misuse
from pipeline.modeling.texts.conversation import (
    CALLED,
    OFFERED,
    RESULT,
    Conversation,
    Message,
    answer_message,
    parse_conversation,
)
from pipeline.modeling.texts.rows import IGNORED

_PROBE: Message = {"role": "user", "content": "hello"}
_PROBE_ANSWER = "ok"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One training text in ids: `prompt`, then `answer`, whose last id is the end token. labels: what of the answer is learned,
    an id each, IGNORED where others speak in between."""

    prompt: list[int]
    answer: list[int]
    labels: list[int]


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
        self._knows_tools = False
        self.end_id, self._writes_end = self._find_end()

    def prompts(self, inputs: Sequence[str]) -> list[list[int]]:
        """Ids that ask for an answer, for each input (canonical JSON of its conversation; see domain/data.py)."""
        texts = [self._prompt(said) for said in self._parsed(inputs)]
        return self._ids(texts)

    def pairs(self, inputs: Sequence[str], outputs: Sequence[str], kinds: Sequence[str] | None = None) -> list[Rendered | None]:
        """Ids to train on. None for a row whose prompt is no prefix of the whole in ids (the answer's first characters melt
        into the template's last token): it would be asked otherwise than it was taught.

        kinds: answer or call, a row each; default: all are answers. Raises Misuse when tools are called or offered, and the
        template does not write them.
        """
        answers = [answer_message(*row) for row in (zip(outputs, kinds, strict=True) if kinds else zip(outputs))]
        return self.continued(inputs, [[answer] for answer in answers])

    def continued(self, inputs: Sequence[str], continuations: Sequence[Sequence[Message]]) -> list[Rendered | None]:
        """The same for conversations that go on with several messages each, the last of them the assistant's. All that the
        assistant says in them is learned; what others say in between is not."""
        if any("tool_calls" in message for messages in continuations for message in messages):
            self._check_tools()
        said = self._parsed(inputs)
        texts: list[str] = []
        for one, messages in zip(said, continuations, strict=True):
            for turn in _assistant_turns(messages):
                before = Conversation([*one.messages, *messages[:turn]], one.tools)
                prompt, whole = self._prompt(before), self._whole(before, messages[turn])
                if not whole.startswith(prompt):
                    raise _not_a_prefix(prompt, whole)
                texts += [prompt, whole]
        ids = iter(self._ids(texts))
        return [self._joined([(next(ids), next(ids)) for _ in _assistant_turns(messages)]) for messages in continuations]

    def whole_texts(self, inputs: Sequence[str], outputs: Sequence[str], kinds: Sequence[str]) -> list[list[int]]:
        """Ids of whole conversations with their answers, as the template writes them, up to the end token of the last."""
        answers = [answer_message(*row) for row in zip(outputs, kinds, strict=True)]
        whole = self._ids([self._whole(one, answer) for one, answer in zip(self._parsed(inputs), answers, strict=True)])
        return [self._close(ids) for ids in whole]

    def answer_text(self, ids: Sequence[int], ends: Sequence[int] = ()) -> str:
        """The text of generated ids, up to the first end token."""
        stop = next((n for n, i in enumerate(ids) if i == self.end_id or i in ends), len(ids))
        return str(self.tokenizer.decode(list(ids[:stop]), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def spelled(self, inputs: Sequence[str], outputs: Sequence[str], kinds: Sequence[str]) -> list[str]:
        """What a model that answers each input as it should says, letter for letter: a call is spelled as the template has it."""
        said = list(outputs)
        calls = [at for at, kind in enumerate(kinds) if kind == ExampleKind.CALL]
        rendered = self.pairs([inputs[at] for at in calls], [outputs[at] for at in calls], [kinds[at] for at in calls])
        for at, pair in zip(calls, rendered, strict=True):
            said[at] = self.answer_text(pair.answer) if pair is not None else said[at]
        return said

    def _joined(self, turns: list[tuple[list[int], list[int]]]) -> Rendered | None:
        """One text, of the ids that ask for each turn and those with its answer; None where the first do not begin the others."""
        *earlier, (asked, answered) = turns
        answer, start = self._close(answered[len(asked) :]), len(turns[0][0])
        if answered[: len(asked)] != asked or len(answer) < 2:
            return None
        labels = [IGNORED] * (len(asked) - start)
        for prompt, whole in earlier:
            said = whole[len(prompt) :]
            said = self._close(said) if self._writes_end else said
            if asked[: len(prompt) + len(said)] != prompt + said:
                return None
            labels[len(prompt) - start : len(prompt) - start + len(said)] = said
        return Rendered(asked[:start], asked[start:] + answer, labels + answer)

    def _find_end(self) -> tuple[int, bool]:
        probe = Conversation([_PROBE], [])
        prompt, whole = self._prompt(probe), self._whole(probe, answer_message(_PROBE_ANSWER))
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

    def _parsed(self, inputs: Sequence[str]) -> list[Conversation]:
        said = [parse_conversation(text) for text in inputs]
        if any(one.has_tools for one in said):
            self._check_tools()
        return said

    def _check_tools(self) -> None:
        """Raise Misuse unless the template writes tools that are offered, calls with arguments as JSON, and results: many have
        no word for them, and what is left out in silence would be missing from every example."""
        if self._knows_tools:
            return
        try:
            offered = self._render(Conversation([_PROBE], [OFFERED]), add_generation_prompt=True)
            called = self._render(Conversation([_PROBE, CALLED], [OFFERED]), add_generation_prompt=False)
            answered = self._render(Conversation([_PROBE, CALLED, RESULT], [OFFERED]), add_generation_prompt=True)
        except BadInput as error:
            missing: str | None = f"tools ({error})"
        else:
            name = OFFERED["function"]["name"]
            checks = {
                "the tools that are offered": name in offered,
                "calls of tools": called.count(name) > offered.count(name),
                "the arguments of calls as JSON": re.search(r'"flag"\s*:\s*true', called),
                "the results of tools": RESULT["content"] in answered,
            }
            missing = next((what for what, holds in checks.items() if not holds), None)
        if missing is not None:
            raise Misuse(
                f"the data has tools, and the chat template does not write {missing}",
                where="chat template",
                fix="take a base whose template knows tools, give one by model.chat_template, or leave rows with tools out",
            )
        self._knows_tools = True

    def _prompt(self, said: Conversation) -> str:
        return self._render(said, add_generation_prompt=True)

    def _whole(self, said: Conversation, answer: Message) -> str:
        return self._render(Conversation([*said.messages, answer], said.tools), add_generation_prompt=False)

    def _render(self, said: Conversation, *, add_generation_prompt: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    self._shielded(said.messages),
                    tools=self._shielded(said.tools) or None,
                    chat_template=self.text,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
            )
        except (TemplateError, TypeError) as error:
            raise BadInput(f"the chat template refuses these messages: {error}", where="chat template") from error

    def _shielded(self, value: Any) -> Any:
        """The same with every text within shielded; roles are ours, and no token is called as one."""
        if isinstance(value, str):
            return self._shield(value)
        if isinstance(value, list):
            return [self._shielded(inner) for inner in value]
        if isinstance(value, dict):
            return {self._shield(key): self._shielded(inner) for key, inner in value.items()}
        return value

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


def _assistant_turns(messages: Sequence[Message]) -> list[int]:
    return [at for at, message in enumerate(messages) if message["role"] == "assistant"]


def _not_a_prefix(prompt: str, whole: str) -> Misuse:
    return Misuse(
        f"the chat template writes the prompt otherwise when an answer follows: {prompt[-60:]!r} does not begin {whole[:200]!r}",
        where="chat template",
        fix="add_generation_prompt must add exactly what an assistant message begins with",
    )
