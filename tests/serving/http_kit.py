"""What the tests of the HTTP app are made of: a small engine over a real tiny model, and a server in a thread of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.domain.data import Task
from pipeline.params import ServeParams
from pipeline.serving.asked import Ask, Full, Health, Labelled, NotServed, Piece, Release, TokenChance
from pipeline.serving.http.access import Access
from pipeline.serving.http.admin import Admin, Deeds
from pipeline.serving.http.answers import Answers
from pipeline.serving.http.app import App
from pipeline.serving.http.counted import Counted
from pipeline.serving.http.feedback import FeedbackDesk
from pipeline.serving.http.keys import KeyFile
from pipeline.serving.http.request_log import RequestLog
from pipeline.serving.http.server import Server, Tls, address_of, bind

SEVEN = Release("desk", "7", "7" * 64, "production")
SIX = Release("desk", "6", "6" * 64, "pinned")


class TinyEngine:
    """An engine in its smallest form: a tiny model, answers made token by token, `slots` at once, `queue` waiting."""

    def __init__(self, base: Path, *, slots: int = 4, queue: int = 4) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.model = AutoModelForCausalLM.from_pretrained(base).eval()
        self.production = SEVEN
        self.running, self.waiting, self.most, self.ready = 0, 0, 0, True
        self.good: dict[str, bool | None] = {}
        self.counted = 0
        self._places = slots + queue
        self._slots = asyncio.Semaphore(slots)

    def start(self) -> None: ...

    def close(self) -> None: ...

    def releases(self) -> tuple[Release, ...]:
        return (self.production, SIX)

    def health(self) -> Health:
        return Health(self.ready, self.releases(), self.waiting, self.running, counts={"answered": len(self.good)})

    def feedback(self, ask_id: str, good: bool) -> None:
        if ask_id not in self.good:
            raise NotServed("no such answer is remembered")
        self.good[ask_id] = good

    def count(self, ask: Ask) -> int:
        self.counted += 1
        return len(self._ids(ask))

    async def classify(self, ask: Ask) -> Labelled:
        ids, release = self._ids(ask), self._release(ask)
        chances = (await asyncio.to_thread(self._chances, ids))[[70, 71, 72]].softmax(-1).tolist()
        named = sorted(zip(("city", "land", "other"), chances, strict=True), key=lambda pair: -pair[1])
        return Labelled(tuple(named), len(ids), release)

    async def ask(self, ask: Ask) -> AsyncIterator[Piece]:
        release, ids = self._release(ask), self._ids(ask)
        if self.running + self.waiting >= self._places:
            raise Full("the queue is full", retry_after=0.2)
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.good[ask.id] = None
            dice, made, said = torch.Generator().manual_seed(ask.seed or 0), [], ""
            for number in range(1, ask.max_tokens + 1):
                chances = (await asyncio.to_thread(self._chances, ids + made)).log_softmax(-1)
                drawn = torch.multinomial((chances / ask.temperature).softmax(-1), 1, generator=dice) if ask.temperature else None
                made.append(int(drawn if drawn is not None else chances.argmax()))
                text = self.tokenizer.decode(made).rstrip("�")
                halts = [text.find(stop) for stop in ask.stop if stop in text]
                text = text[: min(halts)] if halts else text
                finish = "stop" if halts else "length" if number == ask.max_tokens else None
                chance = () if ask.logprobs is None else (self._chance(chances, made[-1], ask.logprobs),)
                yield Piece(text[len(said) :], chance, finish, len(ids), number, release)
                said = text
                if finish:
                    return
        finally:
            self.running -= 1
            self._slots.release()

    def _release(self, ask: Ask) -> Release:
        if ask.release is None:
            return self.production
        for release in self.releases():
            if release.version == ask.release:
                return replace(release, role="pinned")
        raise NotServed(f"version {ask.release} is not served here")

    def _ids(self, ask: Ask) -> list[int]:
        if ask.messages is not None:
            return self.tokenizer.apply_chat_template(list(ask.messages), add_generation_prompt=True)["input_ids"]
        return self.tokenizer.encode(ask.prompt if ask.prompt is not None else ask.text or "")

    @torch.no_grad()
    def _chances(self, ids: list[int]) -> torch.Tensor:
        return self.model(torch.tensor([ids[-100:]])).logits[0, -1].float()

    def _chance(self, chances: torch.Tensor, token: int, top: int) -> TokenChance:
        best = chances.topk(top) if top else None
        beside = [] if best is None else zip(best.indices.tolist(), best.values.tolist(), strict=True)
        text = self.tokenizer.decode([token])
        named = tuple((self.tokenizer.decode([i]), value) for i, value in beside)
        return TokenChance(text, float(chances[token]), tuple(text.encode()), named)


@dataclass
class Running:
    """A server that runs, and what it was made of."""

    url: str
    port: int
    engine: Any
    keys: KeyFile
    server: Server

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """One request by hand: POST where there is a body, GET where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"content-type": "application/json"} if body is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request("GET" if body is None else "POST", path, data, sent)
            got = connection.getresponse()
            text = got.read()
        finally:
            connection.close()
        named = {name.lower(): value for name, value in got.getheaders()}
        return got.status, named, json.loads(text) if named.get("content-type") == "application/json" else text.decode()

    def socket(self, first: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        made.sendall(first)
        return made


@contextmanager
def serving(
    engine: Any,
    home: Path,
    params: ServeParams | None = None,
    *,
    task: Task = Task.GENERATE,
    needs_keys: bool = False,
    deeds: Deeds | None = None,
    log: RequestLog | None = None,
    feedback: FeedbackDesk | None = None,
    tls: Tls | None = None,
) -> Iterator[Running]:
    """The app over an engine, at a free port of its own, in a thread."""
    params = params or ServeParams()
    keys = KeyFile(home / "keys.json")
    access = Access(keys, params.rates, needs_keys=needs_keys)
    counted = Counted(engine, lambda: server.guard.closed)
    kept = {"log": log, "feedback": feedback}
    answers = Answers(engine, access, counted, model="desk", task=task, params=params, draining=lambda: server.draining, **kept)
    endpoints = answers.endpoints()
    if deeds is not None:
        endpoints += Admin(deeds, engine, params.limits).endpoints()
    server = Server(App(endpoints, params, access, counted), params, tls)
    bound = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=(bound,))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield Running(address_of(bound, tls), bound.getsockname()[1], engine, keys, server)
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()


def wait_until(holds: Any, seconds: float = 60) -> None:
    """Wait for what happens in another thread; fail when it does not."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def chat(**changes: Any) -> dict[str, Any]:
    """The body of a chat request."""
    body = {"model": "desk", "messages": [{"role": "user", "content": "Where is Oslo?"}], "max_tokens": 6}
    return {key: value for key, value in (body | changes).items() if value is not ...}
