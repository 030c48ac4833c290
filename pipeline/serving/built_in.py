"""Answers made in this process: one thread owns the models, takes what waits, and lets all rows go on a token at a time.

Asks come from event loops; between them and the thread lies a bounded queue. Implements making.Maker.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pipeline.domain.data import Task
from pipeline.domain.record import FileDigest
from pipeline.domain.serving import Ask, Labelled, Piece, Release
from pipeline.errors import BadInput, Broken, Misuse, TryLater
from pipeline.modeling.answering.sampling import Choice
from pipeline.modeling.answering.together import Together, Voice
from pipeline.modeling.answering.under_way import Row, Said
from pipeline.params import ModelParams
from pipeline.serving.tickets import Ticket, Waiting
from pipeline.serving.worker import Worker

_INLINE = 4096
"""Characters of a prompt up to which it is tokenised where it arrives; a thread for it would cost more."""


class BuiltIn:
    """base: finds the base's folder, when it is started. rows: answers under way at once; queue: how many more may wait."""

    def __init__(
        self, base: Callable[[], Path], model: ModelParams, *, rows: int = 8, queue: int = 64, prefix_tokens: int = 4096
    ) -> None:
        self._base, self._model, self._prefix_tokens = base, model, prefix_tokens
        self._waiting = Waiting(rows=rows, queue=queue)
        self._together: Together | None = None
        self._worker: Worker | None = None
        self._starting = threading.Lock()
        self._closed = False

    def start(self) -> None:
        with self._starting:
            if self._worker is None:
                self._together = Together(self._base(), self._model, prefix_tokens=self._prefix_tokens)
                self._worker = Worker(self._together, self._waiting)
                self._worker.start()
            elif not self._worker.alive and not self._closed:
                raise Broken("the thread that owns the models has ended", fix="start the server anew; the log says why")

    def close(self) -> None:
        with self._starting:
            self._closed = True
            self._waiting.close()
            if self._worker is not None:
                self._worker.join()

    def load(self, name: str, folder: Path, files: tuple[FileDigest, ...]) -> Voice:
        together = self._ready()
        admitted = together.judge(folder, files)
        if admitted.handshake.shares_base:
            voice: Voice = self._do(lambda: together.put(admitted, files)).result()
        else:  # it brings a model of its own, which may take minutes and is nobody else's matter
            voice = together.put(admitted, files)
        try:
            self._do(lambda: _warm(together, voice)).result()
        except BaseException:
            self.unload(voice)
            raise
        return voice

    def unload(self, handle: Voice) -> None:
        together = self._ready()
        self._do(lambda: together.take_off(handle)).result()

    async def answer(self, handle: Voice, ask: Ask, release: Release) -> AsyncGenerator[Piece, None]:
        self._check_task(Task.GENERATE)
        self._waiting.check_room()
        size = len(ask.prompt or "") + sum(len(str(message.get("content", ""))) for message in ask.messages or ())
        if size <= _INLINE and ask.schema is None and not ask.json_object:
            row = self._row(handle, ask)
        else:
            row = await asyncio.to_thread(self._row, handle, ask)
        ticket = Ticket(handle, asyncio.get_running_loop(), row=row)
        row.tag = ticket
        self._waiting.put(ticket)
        try:
            while True:
                said: Said = await ticket.next()
                yield Piece(said.text, said.chances, said.finish, len(row.prompt), ticket.made, release)
                if said.finish is not None:
                    return
        finally:
            self._waiting.cancel(ticket)

    async def label(self, handle: Voice, ask: Ask, release: Release) -> Labelled:
        self._check_task(Task.CLASSIFY)
        self._waiting.check_room()
        if ask.text is None:
            raise BadInput("there is no text to label", where="text")
        ids = await asyncio.to_thread(self._ready().text_ids, handle, ask.text)
        ticket = Ticket(handle, asyncio.get_running_loop(), text=ids)
        self._waiting.put(ticket)
        try:
            return Labelled(tuple(await ticket.next()), len(ids), release)
        finally:
            self._waiting.cancel(ticket)

    def count(self, handle: Voice, ask: Ask) -> int:
        if ask.text is not None:
            return len(self._ready().text_ids(handle, ask.text))
        return len(self._ready().prompt_ids(handle, ask.messages, ask.prompt, ask.tools))

    def load_now(self) -> tuple[int, int]:
        return self._waiting.load_now()

    def _row(self, voice: Voice, ask: Ask) -> Row:
        together = self._ready()
        return together.row(
            voice,
            together.prompt_ids(voice, ask.messages, ask.prompt, ask.tools),
            chat=ask.messages is not None,
            most=ask.max_tokens,
            choice=Choice(ask.temperature, ask.top_p, ask.drawn_by),
            stop=ask.stop,
            logprobs=ask.logprobs,
            schema=ask.schema,
            json_object=ask.json_object,
        )

    def _do(self, what: Callable[[], Any]) -> Future[Any]:
        if self._worker is None:
            raise TryLater("the engine has not started", fix="try again")
        return self._worker.do(what)

    def _ready(self) -> Together:
        if self._together is None:
            raise TryLater("the engine has not started", fix="try again")
        return self._together

    def _check_task(self, task: Task) -> None:
        if self._model.task is not task:
            fix = "ask for labels" if self._model.task is Task.CLASSIFY else "ask for a chat or a completion"
            raise Misuse(f"this model does the task {self._model.task}, not {task}", fix=fix)


def _warm(together: Together, voice: Voice) -> None:
    """Let it answer once, unheard: what a first call costs is paid before anybody waits for it."""
    if voice.lane is None:
        together.label(voice, [together.text_ids(voice, "warm up")])
        return
    chat = voice.template is not None
    asked = together.prompt_ids(voice, [{"role": "user", "content": "warm up"}] if chat else None, None if chat else "warm up")
    row = together.row(voice, asked, chat=chat, most=2, choice=Choice())
    try:
        moved = voice.lane.join([row])
        if voice.lane.rows == [row]:
            moved += voice.lane.step()
    finally:
        voice.lane.leave(row)
    for _, what in moved:
        if isinstance(what, Exception):
            raise Broken(f"the adapter gives no answer: {what}")
