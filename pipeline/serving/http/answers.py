"""The endpoints that ask the engine: chat, completions, classification, models, feedback; and those that say how it stands.

Each takes a request through the same gates in the same order: key and rate (app.py), body, what is wanted, the prompt's tokens,
the key's tokens, the engine's queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from pipeline.domain.data import Task
from pipeline.params import ServeParams
from pipeline.serving.asked import Ask, Engine, Release
from pipeline.serving.http import wanted as asked_for
from pipeline.serving.http.access import Access, Caller
from pipeline.serving.http.answering import Answering, together
from pipeline.serving.http.app import Endpoint
from pipeline.serving.http.bodies import Gone, read_object
from pipeline.serving.http.calls import Call
from pipeline.serving.http.counted import CONTENT_TYPE, Counted
from pipeline.serving.http.feedback import FeedbackDesk
from pipeline.serving.http.problems import Problem, bad, no_such_model, problem_of
from pipeline.serving.http.request_log import RequestLog, Went
from pipeline.serving.http.shapes import DONE, Shape, classified, event, model_card, release_headers
from pipeline.serving.http.wanted import Wanted

_INLINE = 4096
"""Characters of a prompt up to which it is tokenised at once; longer ones would hold others up."""
Reader = Callable[[Mapping[str, Any], str, ServeParams], Wanted]


class Answers:
    """The endpoints of one engine, which serves versions of `model`, a model of `task`."""

    def __init__(
        self,
        engine: Engine,
        access: Access,
        counted: Counted,
        *,
        model: str,
        task: Task,
        params: ServeParams,
        log: RequestLog | None = None,
        feedback: FeedbackDesk | None = None,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._access = access
        self._counted = counted
        self._model = model
        self._task = task
        self._params = params
        self._log = log
        self._desk = feedback or FeedbackDesk(model, engine, params.feedback)
        self._draining = draining
        self._since = int(time.time())
        # Threads of its own: those of the loop may all wait for releases that are being loaded.
        self._counting = ThreadPoolExecutor(2, thread_name_prefix="tuneline-count")

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("chat", "POST", "/v1/chat/completions", self._chat, ("infer",)),
            Endpoint("completions", "POST", "/v1/completions", self._completions, ("infer",)),
            Endpoint("classify", "POST", "/v1/classify", self._classify, ("infer",)),
            Endpoint("feedback", "POST", "/v1/feedback", self._feedback, ("infer",)),
            Endpoint("models", "GET", "/v1/models", self._models, ("infer", "read")),
            Endpoint("model", "GET", "/v1/models/", self._one_model, ("infer", "read"), rest=True),
            Endpoint("healthz", "GET", "/healthz", self._alive),
            Endpoint("readyz", "GET", "/readyz", self._ready),
            Endpoint("metrics", "GET", "/metrics", self._metrics, ("read",)),
        )

    async def _chat(self, call: Call, caller: Caller) -> None:
        await self._answer(call, caller, asked_for.chat)

    async def _completions(self, call: Call, caller: Caller) -> None:
        await self._answer(call, caller, asked_for.completion)

    async def _answer(self, call: Call, caller: Caller, reader: Reader) -> None:
        wanted = await self._read(call, reader, Task.GENERATE)
        prompt_tokens = await self._count(wanted)
        most = prompt_tokens + sum(ask.max_tokens for ask in wanted.asks)
        taken, headers = self._access.reserve(caller, most)
        call.headers |= headers
        answering, used = Answering(self._engine, wanted), Used()
        try:
            await call.attended(self._give(call, caller, wanted, answering, used))
        except BaseException as error:
            self._note_failure(call, wanted, used, error)
            raise
        finally:
            await answering.close()
            self._access.settle(taken, used.tokens)

    async def _give(self, call: Call, caller: Caller, wanted: Wanted, answering: Answering, used: Used) -> None:
        await answering.open()
        release, used.first = answering.release, call.seconds
        self._counted.first_piece(used.first)
        self._name(call, release)
        shape = Shape(wanted, release, int(time.time()))
        used.release, used.shape = release, shape
        if wanted.stream:
            await call.start_stream()
            await call.write(b"".join(map(event, shape.opening())))
        async with aclosing(answering.pieces()) as pieces:
            async for number, piece in pieces:
                said = shape.chunks(number, piece)
                used.tokens = shape.usage()["total_tokens"]
                if wanted.stream and said:
                    await call.write(b"".join(map(event, said)))
        usage = shape.usage()
        self._counted.answered(release, len(wanted.asks), usage["prompt_tokens"], usage["completion_tokens"])
        call.said["tokens"] = f"{usage['prompt_tokens']}+{usage['completion_tokens']}"
        self._desk.answered(caller, wanted, shape, release)
        if self._log is not None and self._log.wants(wanted.id):
            self._log.answered(wanted, shape, release, Went(_kind(wanted), call.seconds, used.first))
        used.noted = True
        if wanted.stream:
            await call.end_stream(b"".join([*map(event, shape.closing()), DONE]))
        else:
            await call.reply(shape.whole())

    async def _classify(self, call: Call, caller: Caller) -> None:
        wanted = await self._read(call, asked_for.classification, Task.CLASSIFY)
        taken, headers = self._access.reserve(caller, await self._count(wanted))
        call.headers |= headers
        used = Used()
        try:
            await call.attended(self._label(call, caller, wanted, used))
        except BaseException as error:
            self._note_failure(call, wanted, used, error)
            raise
        finally:
            self._access.settle(taken, used.tokens)

    async def _label(self, call: Call, caller: Caller, wanted: Wanted, used: Used) -> None:
        head, *others = wanted.asks
        found = [await self._engine.classify(head)]
        release = used.release = found[0].release
        pinned = [asked_for.pinned(ask, release) for ask in others]
        found += await together([self._engine.classify(ask) for ask in pinned])
        used.tokens = sum(one.prompt_tokens for one in found)
        self._name(call, release)
        self._counted.answered(release, len(found), used.tokens, 0)
        self._desk.labelled(caller, wanted, found, release)
        if self._log is not None and self._log.wants(wanted.id):
            self._log.labelled(wanted, found, release, Went("classify", call.seconds))
        used.noted = True
        await call.reply(classified(wanted, found, int(time.time())))

    async def _feedback(self, call: Call, caller: Caller) -> None:
        await call.reply(await self._desk.take(await read_object(call.request, self._params.limits), caller))

    def _note_failure(self, call: Call, wanted: Wanted, used: Used, error: BaseException) -> None:
        """Have it written down that an answer failed. What is at fault in the request, or in the load, is no failure."""
        if self._log is None or used.noted or isinstance(error, Gone) or not self._log.wants(wanted.id):
            return
        if isinstance(error, Exception):
            problem = problem_of(error)
            code = problem.code if problem.status >= 500 and problem.status != 503 else ""
        else:
            code = "answer_timeout" if call.seconds >= self._params.timeouts.answer else ""
        if not code:
            return
        went = Went(_kind(wanted), call.seconds, used.first, code)
        if used.shape is not None and used.release is not None:
            self._log.answered(wanted, used.shape, used.release, went)
        else:
            self._log.failed(wanted, used.release, went)

    async def _models(self, call: Call, caller: Caller) -> None:
        releases = self._engine.releases()
        cards = [model_card(self._model, release, self._since) for release in releases if release.role == "production"][:1]
        cards += [model_card(release.name, release, self._since) for release in releases]
        await call.reply({"object": "list", "data": cards})

    async def _one_model(self, call: Call, caller: Caller) -> None:
        name = call.request.url.path.rpartition("/")[2]
        releases = self._engine.releases()
        for release in releases:
            if name == release.name or (name == self._model and release.role == "production"):
                await call.reply(model_card(name, release, self._since))
                return
        raise no_such_model(name)

    async def _alive(self, call: Call, caller: Caller) -> None:
        await call.reply({"status": "ok"})

    async def _ready(self, call: Call, caller: Caller) -> None:
        ready = self._engine.health().ready and not self._draining()
        await call.reply({"ready": ready}, 200 if ready else 503)

    async def _metrics(self, call: Call, caller: Caller) -> None:
        await call.reply_bytes(self._counted.page(), CONTENT_TYPE)

    async def _read(self, call: Call, reader: Reader, task: Task) -> Wanted:
        body = await read_object(call.request, self._params.limits)
        wanted = reader(body, self._model, self._params)
        if self._task is not task:
            other = "/v1/classify" if self._task is Task.CLASSIFY else "/v1/chat/completions"
            raise Problem(400, "wrong_task", f"{self._model} is a model of the task {self._task}; ask {other}", param="model")
        return wanted

    async def _count(self, wanted: Wanted) -> int:
        """Tokens of all prompts, each held against the limit before anything is queued."""
        most, total = self._params.limits.prompt_tokens, 0
        for ask in wanted.prompts:
            if _size(ask) <= _INLINE:
                tokens = self._engine.count(ask)
            else:
                tokens = await asyncio.get_running_loop().run_in_executor(self._counting, self._engine.count, ask)
            if tokens > most:
                param = "messages" if ask.messages is not None else "prompt" if ask.prompt is not None else "input"
                raise bad(f"{tokens} tokens of prompt; at most {most} are taken", param, "context_length_exceeded")
            total += tokens
        return total

    def _name(self, call: Call, release: Release) -> None:
        call.headers |= release_headers(release)
        call.said["release"] = release.name


def _size(ask: Ask) -> int:
    return len(ask.prompt or ask.text or "") + sum(len(message["content"]) for message in ask.messages or ())


def _kind(wanted: Wanted) -> str:
    return "chat" if wanted.chat else "classify" if wanted.asks[0].text is not None else "completions"


class Used:
    """How far a request has come: the tokens it used, who answers, what was said. noted: it stands in the log."""

    tokens = 0
    first: float | None = None
    release: Release | None = None
    shape: Shape | None = None
    noted = False
