"""A vLLM server as that which makes answers: adapters go to it through its own loading API, prompts as ids of our own template.

Implements serving/making.Maker. vLLM needs --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, must stand on the same base,
and must see the adapters' folders under the same paths. It is told every adapter under a name that was never used before, so that
nothing it keeps by name (prefix caches) can be another release's. No torch enters but through admission, which judges files.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from pipeline.backends.vllm_words import body_of, piece_of, refusal_of
from pipeline.domain.data import Task
from pipeline.domain.record import FileDigest, canonical_json
from pipeline.domain.serving import Ask, Full, Labelled, Piece, Release
from pipeline.errors import BadInput, Broken, Misuse, TryLater
from pipeline.params import ModelParams

_WHERE = "TUNELINE_VLLM_URL"
_LOADING_S = 120.0
_SILENCE_S = 120.0
"""How long the server may say nothing in the middle of an answer."""
_LONGEST_LINE = 1 << 20


@dataclass(eq=False, slots=True)
class _Lent:
    """An adapter that the server has. name: what it calls it, by now; limit: tokens of prompt and answer together."""

    name: str
    release: str
    folder: Path
    template: Any
    ends: tuple[int, ...]
    chat_ends: tuple[int, ...]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class VllmMaker:
    """url: of the server, as TUNELINE_VLLM_URL has it. key: sent as a bearer token. most: answers asked of it at once."""

    def __init__(
        self, url: str | None, key: SecretStr | None, base: Callable[[], Path], model: ModelParams, *, most: int = 256
    ) -> None:
        if url is None:
            raise Misuse("nobody said where vLLM is", where=_WHERE, fix="set it, or take serve.engine built_in")
        if not url.startswith(("http://", "https://")) or "@" in url:
            raise Misuse("an address begins with http:// or https:// and holds no password", where=_WHERE)
        if model.task is not Task.GENERATE:
            raise Misuse("vLLM serves models that generate; labels need the built-in engine", where="serve.engine")
        self._url, self._key, self._base, self._model, self._most = url.rstrip("/"), key, base, model, most
        self._tokenizer: Any = None
        self._ref: Any = None
        self._limit: int | None = None
        self._running = 0
        self._closed = False
        self._reading = threading.Lock()
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    def start(self) -> None:
        if self._tokenizer is None:
            from pipeline.modeling.base import base_ref
            from pipeline.modeling.loading import load_tokenizer

            path = self._base()
            self._ref = base_ref(self._model, path, None)
            config = json.loads((path / "config.json").read_text())
            self._limit = config.get("max_position_embeddings")
            self._tokenizer = load_tokenizer(path)
        if self._closed:
            raise TryLater("the server stops")

    def close(self) -> None:
        self._closed = True

    def load(self, name: str, folder: Path, files: tuple[FileDigest, ...]) -> _Lent:
        from pipeline.modeling.adapters.admission import admit
        from pipeline.modeling.texts.template import ChatTemplate

        self.start()
        admitted = admit(folder, self._ref, files=files)
        said = admitted.handshake
        if said.task is not self._model.task:
            raise Misuse(f"the adapter does the task {said.task}, not {self._model.task}", where=str(folder))
        if not said.shares_base or said.quantized or said.dora or said.head:
            raise Broken(
                "vLLM takes LoRAs on the whole base alone: no DoRA, no soft prompt, no weights in the base's place, no NF4"
            )
        template = ChatTemplate(self._tokenizer, admitted.template) if admitted.template is not None else None
        ends = tuple(i for i in [self._tokenizer.eos_token_id] if i is not None)
        chat_ends = tuple(sorted({*ends, template.end_id})) if template else ends
        lent = _Lent(self._lend(name, folder), name, folder, template, ends, chat_ends)
        try:
            self._post("/v1/completions", {"model": lent.name, "prompt": [*ends[:1], 0][:1], "max_tokens": 1, "temperature": 0.0})
        except BaseException:
            self.unload(lent)
            raise
        return lent

    def unload(self, handle: _Lent) -> None:
        try:
            self._post("/v1/unload_lora_adapter", {"lora_name": handle.name})
        except (Broken, Misuse):
            return  # it has restarted, and knows nothing of it

    async def answer(self, handle: _Lent, ask: Ask, release: Release) -> AsyncGenerator[Piece, None]:
        self._check_room()
        self._running += 1  # before anything is awaited: the bound is one
        try:
            ids = await asyncio.to_thread(self._ids, handle, ask)
            most = self._room(ids, ask.max_tokens)
            body = body_of(ask, ids, most, ends=handle.chat_ends if ask.messages is not None else handle.ends)
            made, finished = 0, False
            async with self._stream(handle, body) as lines, aclosing(lines):
                async for line in lines:
                    piece = piece_of(line, ask, len(ids), made, release)
                    if piece is None:
                        continue
                    made, finished = piece.answer_tokens, piece.finish is not None
                    yield piece
                    if finished:
                        return
            raise Broken("vLLM ended an answer in the middle", where=release.name)
        except httpx.HTTPError as error:
            raise TryLater(f"vLLM does not answer: {type(error).__name__}", fix="try again") from None
        finally:
            self._running -= 1

    async def label(self, handle: _Lent, ask: Ask, release: Release) -> Labelled:
        raise Misuse(f"this model does the task {self._model.task}, not classify", fix="ask for a chat or a completion")

    def count(self, handle: _Lent, ask: Ask) -> int:
        return len(self._ids(handle, ask))

    def load_now(self) -> tuple[int, int]:
        """What waits waits in vLLM, which does not say."""
        return 0, self._running

    def _ids(self, handle: _Lent, ask: Ask) -> list[int]:
        from pipeline.modeling.answering.plain_text import ids_of

        if (ask.messages is None) == (ask.prompt is None):
            raise BadInput("an ask has messages or a prompt, one of the two")
        with self._reading:
            if ask.prompt is not None:
                ids: list[int] = ids_of(self._tokenizer, [ask.prompt])[0]
            elif handle.template is None:
                raise BadInput("this release has no chat template", fix="ask for a completion of a prompt")
            else:
                said: Any = {"messages": ask.messages, "tools": ask.tools} if ask.tools else ask.messages
                try:
                    text = canonical_json(said)
                except (TypeError, ValueError, RecursionError) as error:
                    raise BadInput(f"the messages are no JSON: {error}", where="messages") from error
                ids = handle.template.prompts([text])[0]
        if not ids:
            raise BadInput("there is nothing to go on from", where="prompt")
        return ids

    def _room(self, ids: list[int], most: int) -> int:
        if most < 1:
            raise BadInput("an answer has one token at the least", where="max_tokens")
        if self._limit is not None and len(ids) >= self._limit:
            raise BadInput(f"the prompt has {len(ids)} tokens; the model has room for {self._limit}, the answer included")
        return most if self._limit is None else min(most, self._limit - len(ids))

    def _check_room(self) -> None:
        if self._closed:
            raise TryLater("the server stops", fix="ask another server, or try again")
        if self._running >= self._most:
            raise Full(f"{self._running} answers are under way already", fix="try again", retry_after=1.0)

    def _lend(self, release: str, folder: Path) -> str:
        """Give the server an adapter, under a name that was never used; returns that name."""
        name = f"{release}#{secrets.token_hex(8)}"
        self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder.resolve())})
        return name

    @asynccontextmanager
    async def _stream(self, handle: _Lent, body: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Lines of a streamed answer. A server that has lost the adapter (it restarted) is given it again, once."""
        client, lent = self._client(), handle.name
        for attempt in (1, 2):
            given = {**body, "model": handle.name}
            async with client.stream("POST", f"{self._url}/v1/completions", json=given, headers=self._headers()) as response:
                if response.status_code == 200:
                    yield _lines(response)
                    return
                raw = await response.aread()
            if response.status_code != 404 or attempt == 2:
                raise refusal_of(response.status_code, raw)
            async with handle.lock:
                if handle.name == lent:
                    handle.name = await asyncio.to_thread(self._lend, handle.release, handle.folder)

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients = {one: client for one, client in self._clients.items() if not one.is_closed()}
            limits = httpx.Limits(max_connections=self._most)
            timeout = httpx.Timeout(10.0, read=_SILENCE_S)
            self._clients[loop] = httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False, follow_redirects=False)
        return self._clients[loop]

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        try:
            found = httpx.post(self._url + path, json=body, headers=self._headers(), timeout=_LOADING_S, trust_env=False)
        except httpx.HTTPError as error:
            raise TryLater(
                f"vLLM does not answer: {type(error).__name__}", where=_WHERE, fix="start it, or look at its log"
            ) from None
        if found.status_code != 200:
            refusal = refusal_of(found.status_code, found.content)
            if isinstance(refusal, BadInput):  # what we asked for ourselves is no fault of whoever asks us
                raise Broken(f"vLLM refuses {path}: {refusal.what}", fix="docs/serving-engine.md says how it must be started")
            raise refusal

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {}


async def _lines(response: httpx.Response) -> AsyncGenerator[str, None]:
    """What events of a stream hold, up to [DONE]."""
    async for line in response.aiter_lines():
        if len(line) > _LONGEST_LINE:
            raise Broken("vLLM sent a line that is too long")
        if line.startswith("data:"):
            said = line[5:].strip()
            if said == "[DONE]":
                return
            yield said
