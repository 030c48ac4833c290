"""How answers look: OpenAI's objects of chats, completions, their streams and models, and vLLM's of classifications. Pure.

Each names the release: `model` is name@version, `system_fingerprint` adds the digest's first digits, and HEADERS hold all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipeline.serving.asked import Labelled, Piece, Release, TokenChance
from pipeline.serving.http.wanted import Wanted

DONE = b"data: [DONE]\n\n"


def release_headers(release: Release) -> dict[str, str]:
    """What every answer's headers say of who made it."""
    return {"x-tuneline-release": f"{release.name}#{release.digest}", "x-tuneline-role": release.role}


def fingerprint(release: Release) -> str:
    return f"{release.name}#{release.digest[:12]}"


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


@dataclass(slots=True)
class Choice:
    """One answer as it grows."""

    text: list[str] = field(default_factory=list)
    chances: list[TokenChance] = field(default_factory=list)
    finish: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    length: int = 0

    def add(self, piece: Piece) -> None:
        self.text.append(piece.text)
        self.chances += piece.chances
        self.finish = piece.finish or self.finish
        self.prompt_tokens, self.answer_tokens = piece.prompt_tokens, piece.answer_tokens
        self.length += len(piece.text)


class Shape:
    """The objects of one request's answer."""

    def __init__(self, wanted: Wanted, release: Release, created: int) -> None:
        self.wanted = wanted
        self.choices = [Choice() for _ in wanted.asks]
        self._head = {"id": wanted.id, "created": created, "model": release.name, "system_fingerprint": fingerprint(release)}

    def whole(self) -> dict[str, Any]:
        """The answer in one."""
        make = self._chat_choice if self.wanted.chat else self._text_choice
        kind = "chat.completion" if self.wanted.chat else "text_completion"
        choices = [make(number, choice) for number, choice in enumerate(self.choices)]
        return {**self._head, "object": kind, "choices": choices, "usage": self.usage()}

    def opening(self) -> list[dict[str, Any]]:
        """What a stream begins with."""
        if not self.wanted.chat:
            return []
        return [self._chunk(number, {"role": "assistant", "content": ""}, None, None) for number in range(len(self.choices))]

    def chunks(self, number: int, piece: Piece) -> list[dict[str, Any]]:
        """What a stream says of one more piece, which is counted."""
        choice = self.choices[number]
        before = choice.length
        choice.add(piece)
        wants = self.wanted.asks[number].logprobs is not None
        if not self.wanted.chat:
            chances = _text_chances(piece.chances, before) if wants else None
            if not (piece.text or piece.finish or piece.chances):
                return []
            return [self._text_chunk(number, piece.text, piece.finish, chances)]
        said = []
        if piece.text or piece.chances:
            said.append(self._chunk(number, {"content": piece.text}, None, _chat_chances(piece.chances) if wants else None))
        if piece.finish:
            said.append(self._chunk(number, {}, piece.finish, None))
        return said

    def closing(self) -> list[dict[str, Any]]:
        """What a stream ends with, before DONE."""
        if not self.wanted.usage:
            return []
        kind = "chat.completion.chunk" if self.wanted.chat else "text_completion"
        return [{**self._head, "object": kind, "choices": [], "usage": self.usage()}]

    def usage(self) -> dict[str, int]:
        prompt = sum(choice.prompt_tokens for choice in self.choices[:: self.wanted.per_prompt])
        answer = sum(choice.answer_tokens for choice in self.choices)
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}

    def _chat_choice(self, number: int, choice: Choice) -> dict[str, Any]:
        chances = _chat_chances(choice.chances) if self.wanted.asks[number].logprobs is not None else None
        message = {"role": "assistant", "content": "".join(choice.text), "refusal": None}
        return {"index": number, "message": message, "logprobs": chances, "finish_reason": choice.finish}

    def _text_choice(self, number: int, choice: Choice) -> dict[str, Any]:
        chances = _text_chances(choice.chances, 0) if self.wanted.asks[number].logprobs is not None else None
        return {"index": number, "text": "".join(choice.text), "logprobs": chances, "finish_reason": choice.finish}

    def _chunk(self, number: int, delta: dict[str, Any], finish: str | None, chances: Any) -> dict[str, Any]:
        choice = {"index": number, "delta": delta, "logprobs": chances, "finish_reason": finish}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **self._no_usage()}

    def _text_chunk(self, number: int, text: str, finish: str | None, chances: Any) -> dict[str, Any]:
        choice = {"index": number, "text": text, "logprobs": chances, "finish_reason": finish}
        return {**self._head, "object": "text_completion", "choices": [choice], **self._no_usage()}

    def _no_usage(self) -> dict[str, None]:
        return {"usage": None} if self.wanted.usage else {}


def _chat_chances(chances: Sequence[TokenChance]) -> dict[str, Any]:
    return {
        "content": [
            {
                "token": chance.token,
                "logprob": chance.logprob,
                "bytes": list(chance.bytes),
                "top_logprobs": [
                    {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}
                    for token, logprob in chance.top
                ],
            }
            for chance in chances
        ],
        "refusal": None,
    }


def _text_chances(chances: Sequence[TokenChance], before: int) -> dict[str, Any]:
    """before: how many characters of the answer came earlier, since offsets count from its start."""
    offsets, at = [], before
    for chance in chances:
        offsets.append(at)
        at += len(chance.token)
    return {
        "tokens": [chance.token for chance in chances],
        "token_logprobs": [chance.logprob for chance in chances],
        "top_logprobs": [dict(chance.top) for chance in chances],
        "text_offset": offsets,
    }


def classified(wanted: Wanted, labelled: Sequence[Labelled], created: int) -> dict[str, Any]:
    """The object of a classification; `probs` are in the order of `labels`, which is the same for every entry."""
    names = sorted(label for label, _ in labelled[0].labels)
    data = []
    for number, found in enumerate(labelled):
        chances = dict(found.labels)
        label, score = found.labels[0]
        probs = [chances.get(name, 0.0) for name in names]
        data.append({"index": number, "label": label, "score": score, "probs": probs, "num_classes": len(names)})
    release, tokens = labelled[0].release, sum(found.prompt_tokens for found in labelled)
    return {
        "id": wanted.id,
        "object": "list",
        "created": created,
        "model": release.name,
        "system_fingerprint": fingerprint(release),
        "labels": names,
        "data": data,
        "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
    }


def model_card(name: str, release: Release, created: int) -> dict[str, Any]:
    """One entry of /v1/models. `release` and `digest` say who would answer."""
    said = {"release": release.name, "digest": release.digest, "role": release.role}
    return {"id": name, "object": "model", "created": created, "owned_by": "tuneline", **said}
