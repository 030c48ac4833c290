"""What a request of OpenAI's protocol asks for: bodies of chat, completion and classification read into Asks. Pure.

What is taken, ignored and refused is told in docs/serving.md. Limits that need no tokenizer are held here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.params import ServeParams
from pipeline.params.serve import LimitParams
from pipeline.serving.asked import Ask, Release
from pipeline.serving.http.fields import Fields
from pipeline.serving.http.problems import bad, no_such_model

CHARS_PER_TOKEN = 64
"""A prompt with more characters than this times the limit is refused before it is tokenised."""
_STOPS, _STOP_LENGTH, _TOP = 4, 256, 20
_COMPLETION_TOKENS = 16
_ROLES = ("system", "user", "assistant", "tool")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(?:@[1-9][0-9]{0,17})?")
_IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "prediction",
    "verbosity",
    "reasoning_effort",
)
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request asks for: asks[i] is choice i of the answer, and every `per_prompt` of them have one prompt."""

    id: str
    asks: tuple[Ask, ...]
    per_prompt: int = 1
    chat: bool = False
    stream: bool = False
    usage: bool = False

    @property
    def prompts(self) -> tuple[Ask, ...]:
        """One Ask of each prompt."""
        return self.asks[:: self.per_prompt]


def chat(body: Mapping[str, Any], model: str, params: ServeParams) -> Wanted:
    """Of POST /v1/chat/completions."""
    fields = Fields(body)
    release = _release(fields, model)
    messages = tuple(_message(number, entry) for number, entry in enumerate(_entries(fields, params.limits)))
    _check_length((message["content"] for message in messages), params.limits, "messages")
    most = params.limits.answer_tokens
    long, short = fields.whole("max_completion_tokens", None, 1, most), fields.whole("max_tokens", None, 1, most)
    top = fields.whole("top_logprobs", None, 0, _TOP)
    if not fields.flag("logprobs"):
        if top:
            raise bad("top_logprobs needs logprobs: true", "top_logprobs")
        top = None
    else:
        top = top or 0
    ask = Ask(id="", release=release, messages=messages, max_tokens=long or short or most, logprobs=top)
    return _finish(fields, ask, [ask], params, chat=True)


def completion(body: Mapping[str, Any], model: str, params: ServeParams) -> Wanted:
    """Of POST /v1/completions."""
    fields = Fields(body)
    release = _release(fields, model)
    given = fields.take("prompt")
    prompts = [given] if isinstance(given, str) else given
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise bad("prompt must be a text or a list of texts; lists of tokens are not taken", "prompt")
    if len(prompts) > params.limits.answers:
        raise bad(f"prompt may hold no more than {params.limits.answers} texts", "prompt", "too_many")
    _check_length(prompts, params.limits, "prompt", each=True)
    tokens = fields.whole("max_tokens", min(_COMPLETION_TOKENS, params.limits.answer_tokens), 1, params.limits.answer_tokens)
    ask = Ask(id="", release=release, max_tokens=tokens or 1, logprobs=fields.whole("logprobs", None, 0, _TOP))
    return _finish(fields, ask, [replace(ask, prompt=prompt) for prompt in prompts], params, chat=False)


def classification(body: Mapping[str, Any], model: str, params: ServeParams) -> Wanted:
    """Of POST /v1/classify."""
    fields = Fields(body)
    release = _release(fields, model)
    given = fields.take("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise bad("input must be a text or a list of texts", "input")
    if len(texts) > params.limits.texts:
        raise bad(f"input may hold no more than {params.limits.texts} texts", "input", "too_many")
    _check_length(texts, params.limits, "input", each=True)
    fields.ignore("user", "metadata")
    fields.done()
    name = new_id("classify")
    asks = [Ask(id=_numbered(name, number, len(texts)), release=release, text=text) for number, text in enumerate(texts)]
    return Wanted(id=name, asks=tuple(asks))


def pinned(ask: Ask, release: Release) -> Ask:
    """The same, asked of one release."""
    return replace(ask, release=release.version)


def new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(12)}"


def _finish(fields: Fields, ask: Ask, prompts: list[Ask], params: ServeParams, *, chat: bool) -> Wanted:
    """Take what both kinds share, and make the asks."""
    most = params.limits.answers // len(prompts)
    per_prompt = fields.whole("n", 1, 1, max(most, 1)) or 1
    seed = fields.whole("seed", None, -(2**63), 2**63 - 1)
    schema, json_object = _format(fields)
    stream = fields.flag("stream")
    options = Fields(fields.object("stream_options") or {}, "stream_options.")
    usage = options.flag("include_usage")
    options.ignore("include_obfuscation")
    options.done()
    if usage and not stream:
        raise bad("stream_options is only for stream: true", "stream_options")
    shared: dict[str, Any] = {
        "temperature": fields.number("temperature", params.temperature, 0, 2),
        "top_p": fields.number("top_p", 1.0, 0, 1),
        "stop": _stops(fields),
        "schema": schema,
        "json_object": json_object,
    }
    fields.ignore(*_IGNORED)
    fields.refuse(_REFUSED)
    fields.done()
    name, count = new_id("chatcmpl" if chat else "cmpl"), len(prompts) * per_prompt
    asks = []
    for number in range(count):
        own = None if seed is None else (seed + number % per_prompt) % 2**63
        asks.append(replace(prompts[number // per_prompt], id=_numbered(name, number, count), seed=own, **shared))
    return Wanted(name, tuple(asks), per_prompt, chat=chat, stream=stream, usage=usage)


def _numbered(name: str, number: int, count: int) -> str:
    """The id of one answer, which feedback names: that of the response, with the choice's number where there are several."""
    return name if count == 1 else f"{name}-{number}"


def _release(fields: Fields, model: str) -> str | None:
    """The version that `model` pins, None for none. Names are compared, never looked up anywhere."""
    name = fields.text("model")
    known, _, version = name.partition("@")
    if not _NAME.fullmatch(name) or known != model:
        raise no_such_model(name)
    return version or None


def _entries(fields: Fields, limits: LimitParams) -> list[Any]:
    found = fields.list("messages", limits.messages)
    if found is None:
        raise bad("messages is missing", "messages", "missing_required_parameter")
    return found


def _message(number: int, entry: Any) -> dict[str, Any]:
    where = f"messages[{number}]"
    if not isinstance(entry, dict):
        raise bad(f"{where} must be an object", where)
    fields = Fields(entry, f"{where}.")
    role = fields.text("role")
    role = "system" if role == "developer" else role
    if role not in _ROLES:
        raise bad(f"{where}.role must be one of system, developer, user, assistant, tool", f"{where}.role")
    content = fields.take("content")
    if isinstance(content, list):
        content = "".join(_part(f"{where}.content[{place}]", part) for place, part in enumerate(content))
    if not isinstance(content, str):
        raise bad(f"{where}.content must be a text, or a list of parts of type text", f"{where}.content")
    fields.ignore("name", "refusal", "annotations", "tool_call_id")
    fields.refuse({"tool_calls": ([],), "function_call": (), "audio": ()})
    fields.done()
    return {"role": role, "content": content}


def _part(where: str, part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise bad(f"{where} must be of type text: only texts are understood", where, "unsupported_content")
    return str(part["text"])


def _stops(fields: Fields) -> tuple[str, ...]:
    given = fields.take("stop")
    stops = [given] if isinstance(given, str) else ([] if given is None else given)
    fine = isinstance(stops, list) and len(stops) <= _STOPS and all(isinstance(s, str) and s for s in stops)
    if not fine or any(len(stop) > _STOP_LENGTH for stop in stops):
        raise bad(f"stop must be a text, or up to {_STOPS} of them, each of 1 to {_STOP_LENGTH} characters", "stop")
    return tuple(stops)


def _format(fields: Fields) -> tuple[dict[str, Any] | None, bool]:
    """(schema, json_object) that response_format asks for."""
    given = fields.object("response_format")
    if given is None:
        return None, False
    asked = Fields(given, "response_format.")
    kind = asked.text("type")
    if kind == "json_schema":
        named = Fields(asked.object("json_schema") or {}, "response_format.json_schema.")
        schema = named.object("schema")
        if schema is None:
            raise bad("response_format.json_schema.schema is missing", "response_format", "missing_required_parameter")
        named.ignore("name", "description", "strict")
        named.done()
        asked.done()
        return schema, False
    asked.done()
    if kind not in ("text", "json_object"):
        raise bad("response_format.type must be text, json_object or json_schema", "response_format.type")
    return None, kind == "json_object"


def _check_length(texts: Iterable[str], limits: LimitParams, param: str, *, each: bool = False) -> None:
    lengths = [len(text) for text in texts]
    if (max(lengths, default=0) if each else sum(lengths)) > CHARS_PER_TOKEN * limits.prompt_tokens:
        raise bad(f"{param}: certainly more than {limits.prompt_tokens} tokens", param, "context_length_exceeded")
