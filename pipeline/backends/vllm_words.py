"""What is said to a vLLM server and what it says, in values of domain/serving.py. No network here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pipeline.domain.serving import Ask, Full, Piece, Release, TokenChance
from pipeline.errors import BadInput, Broken, TryLater, TunelineError

_SHOWN = 300


def body_of(ask: Ask, ids: Sequence[int], most: int, *, ends: Sequence[int]) -> dict[str, Any]:
    """A streamed completion of ids: the prompt is ours to the id, the end tokens are those of our template."""
    body: dict[str, Any] = {
        "prompt": list(ids),
        "max_tokens": most,
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        "seed": ask.drawn_by,
        "stop_token_ids": list(ends),
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if stop := [one for one in ask.stop if one]:
        body["stop"] = stop
    if ask.logprobs is not None:
        body["logprobs"] = ask.logprobs
    if ask.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(ask.schema)}}
    elif ask.json_object:
        body["response_format"] = {"type": "json_object"}
    return body


def piece_of(line: str, ask: Ask, prompt_tokens: int, made: int, release: Release) -> Piece | None:
    """What one event adds; None for an event without an answer. made: tokens by then, where the event does not say."""
    try:
        said = json.loads(line)
        if "error" in said:
            raise refusal_of(int(said["error"].get("code", 500)), line.encode())
        if not said.get("choices"):
            return None
        choice = said["choices"][0]
        reason = choice.get("finish_reason")
        tokens = int((said.get("usage") or {}).get("completion_tokens", made + bool(choice["text"])))
        chances = _chances(choice.get("logprobs"), ask.logprobs)
        finish: Literal["stop", "length"] | None = None if reason is None else "length" if reason == "length" else "stop"
        if reason not in (None, "stop", "length"):
            raise Broken(f"vLLM ended an answer for another reason: {str(reason)[:50]}", where=release.name)
        return Piece(str(choice["text"]), chances, finish, prompt_tokens, tokens, release)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(f"vLLM says what is no completion: {error}", where=line[:_SHOWN]) from None


def refusal_of(status: int, raw: bytes) -> TunelineError:
    """What a status that is not 200 means for whoever asked."""
    text = _message(raw)
    if status == 429:
        return Full(f"vLLM is full: {text}", retry_after=1.0)
    if status in (400, 413, 422):
        return BadInput(f"vLLM refuses: {text}")
    if status in (404, 408, 502, 503, 504):
        return TryLater(f"vLLM cannot answer now ({status}): {text}", fix="try again")
    return Broken(f"vLLM answers {status}: {text}")


def _chances(said: Any, wanted: int | None) -> tuple[TokenChance, ...]:
    if wanted is None or not said:
        return ()
    tops = said.get("top_logprobs") or [None] * len(said["tokens"])
    found = []
    for token, value, top in zip(said["tokens"], said["token_logprobs"], tops, strict=True):
        best = sorted((top or {}).items(), key=lambda one: -one[1])[:wanted]
        found.append(
            TokenChance(str(token), float(value), tuple(str(token).encode()), tuple((str(k), float(v)) for k, v in best))
        )
    return tuple(found)


def _message(raw: bytes) -> str:
    try:
        said = json.loads(raw)
        text = said.get("error", said) if isinstance(said, dict) else said
        text = text.get("message", text) if isinstance(text, dict) else text
        return str(text)[:_SHOWN]
    except ValueError:
        return raw[:_SHOWN].decode(errors="replace")
