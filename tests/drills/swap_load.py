"""Load for the swap drill: clients that stream over HTTP, a person who promotes and rolls back, and a checker of who answered.

Every adapter answers every prompt otherwise, so that an answer's text tells who made it, whatever release it names.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving_world import MODEL, World, expected, make_adapter

from pipeline.deeds import move_back, move_to
from pipeline.params import Params

VERSIONS = ("1", "2", "3", "4")
CITIES = ("Oslo", "Lima", "Rome", "Cairo", "Quito", "Bern")
MOST = 6
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Right:
    """What each version answers to each prompt, and its digest."""

    answers: dict[str, dict[str, str]]
    digests: dict[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """All that one answer says. models and prints: of its events."""

    text: str
    models: frozenset[str]
    prints: frozenset[str]
    header: str
    role: str
    finish: str | None


@dataclass
class Load:
    """What was asked and what came: `wrong` has a sentence for everything that may not be."""

    answered: int = 0
    pinned: int = 0
    events: int = 0
    across: int = 0
    moves: int = 0
    held: str | None = None  # who must answer; None while a move is under way
    wrong: list[str] = field(default_factory=list)
    by_version: dict[str, int] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return self.answered + len(self.wrong)


def make_world(root: Path, base: Path) -> tuple[World, Right]:
    """Versions 1 to 4, the first in production, and what each answers to each prompt: no two of them the same."""
    world = World(root / "world", base)
    folders = {version: make_adapter(base, root / version, seed=30 + int(version), by=0.15) for version in VERSIONS}
    asked = [f"Where is {city}?{' Tell me.' * n}" for city in CITIES for n in range(2)]
    said = expected(base, folders, asked, most=MOST)
    answers = {prompt: {version: said[version][n] for version in VERSIONS} for n, prompt in enumerate(asked)}
    answers = {prompt: own for prompt, own in answers.items() if len(set(own.values())) == len(VERSIONS)}
    assert len(answers) >= 3, "the adapters are too much alike to tell who answers"
    for folder in folders.values():
        world.register(folder)
    world.promote("1")
    return world, Right(answers, {version: world.subject(version) for version in VERSIONS})


class Client:
    """One connection, kept open, that streams chats."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: dict[str, Any]) -> tuple[Told, int]:
        """An answer to its end, and how many events it came in. Raises whatever goes wrong."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            data = json.dumps(body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n"
            writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + data)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if " 200 " not in first:
                raise RuntimeError(f"{first}: {await reader.readexactly(int(headers['content-length']))!r}")
            whole = b""
            while size := int(await reader.readline(), 16):
                whole += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        except BaseException:
            self.close()
            raise
        return _read(headers, whole)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _read(headers: dict[str, str], whole: bytes) -> tuple[Told, int]:
    *lines, done, end = whole.decode().split("\n\n")
    if (done, end) != ("data: [DONE]", ""):
        raise RuntimeError(f"the stream ended by {lines[-1:]} {done!r}")
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    choices = [choice for event in events for choice in event["choices"]]
    finish = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    told = Told(
        text="".join(choice["delta"].get("content", "") for choice in choices),
        models=frozenset(event["model"] for event in events),
        prints=frozenset(event["system_fingerprint"] for event in events),
        header=headers["x-tuneline-release"],
        role=headers["x-tuneline-role"],
        finish=finish[0] if len(finish) == 1 else None,
    )
    return told, len(events)


async def drill(
    port: int,
    world: Any,
    params: Params,
    right: Right,
    *,
    requests: int,
    moves: int,
    clients: int,
    seed: int,
    first: bool = False,
) -> Load:
    """Stream `requests` answers while production is promoted and rolled back `moves` times, spread over them.

    world: the project's stores, opened here; the server has its own. first: end with the first thing that is wrong.
    """
    load, seen = Load(held=world.ledger.holder(MODEL, "production")), _Seen()
    ended = asyncio.Event()
    mover = asyncio.create_task(_move(load, seen, world, params, requests, moves, random.Random(seed), ended))
    streams = [_stream(load, seen, port, right, random.Random(seed * 1000 + number), ended) for number in range(clients)]
    watching = asyncio.create_task(_end_when_wrong(load, ended)) if first else None
    await asyncio.gather(*streams)
    if watching is not None:
        watching.cancel()
        mover.cancel()
    await asyncio.gather(mover, return_exceptions=first)
    return load


async def _end_when_wrong(load: Load, ended: asyncio.Event) -> None:
    while not load.wrong:
        await asyncio.sleep(0.01)
    ended.set()


class _Seen:
    """Waits for the first answer, asked for after a move, by the release that was moved to."""

    def __init__(self) -> None:
        self.wanted: str | None = None
        self.since = 0.0
        self.happened = asyncio.Event()

    def after(self, version: str) -> None:
        self.wanted, self.since = version, time.monotonic()
        self.happened.clear()

    def note(self, version: str, began: float) -> None:
        if version == self.wanted and began >= self.since:
            self.happened.set()


async def _stream(load: Load, seen: _Seen, port: int, right: Right, own: random.Random, ended: asyncio.Event) -> None:
    prompts, client = sorted(right.answers), Client(port)
    while not ended.is_set():
        prompt = own.choice(prompts)
        pin = own.choice(VERSIONS) if own.random() < 0.05 else None
        messages = [{"role": "user", "content": prompt}]
        body = {"model": f"{MODEL}@{pin}" if pin else MODEL, "messages": messages, "max_tokens": MOST, "stream": True}
        began, moves, held = time.monotonic(), load.moves, load.held
        try:
            told, events = await client.ask(body)
        except Exception as error:
            load.wrong.append(f"{prompt!r} failed: {error!r}")
            await asyncio.sleep(0.01)
            continue
        load.events += events
        same = held is not None and (load.moves, load.held) == (moves, held)
        name = judge(load, right, prompt, told, pin, held if same else None)
        load.across += not same
        if name is not None and pin is None:
            seen.note(name, began)
    client.close()


async def _move(
    load: Load, seen: _Seen, world: Any, params: Params, requests: int, moves: int, order: random.Random, ended: asyncio.Event
) -> None:
    """The person who moves: the deeds of `tuneline promote` and `tuneline rollback`, each seen in answers before the next."""
    stack = [str(load.held)]
    for number in range(moves):
        while load.asked < requests * (number + 1) // (moves + 1):
            await asyncio.sleep(0.002)
        before, load.held = load.held, None
        if len(stack) > 1 and order.random() < 0.5:
            stack.pop()
            record = await asyncio.to_thread(move_back, world, params, "production", by="ada", reason="drill", leaving=before)
        else:
            stack.append(order.choice([version for version in VERSIONS if version != before]))
            record = await asyncio.to_thread(move_to, world, params, stack[-1], "production", by="ada", reason="drill")
        seen.after(record.version)
        load.moves += 1
        if record.version != stack[-1] or not record.changed:
            load.wrong.append(f"the move to {stack[-1]} came to {record.to_json()}")
        try:
            await asyncio.wait_for(seen.happened.wait(), _PATIENCE)
        except TimeoutError:
            load.wrong.append(f"{record.version} was never served, {before} was before")
        load.lags.append(time.monotonic() - seen.since)
        load.held = record.version
    while load.asked < requests:
        await asyncio.sleep(0.002)
    ended.set()


def judge(load: Load, right: Right, prompt: str, told: Told, pin: str | None, held: str | None) -> str | None:
    """Hold one answer against the release that it names, in all the places where it does; that release's version.

    pin: the version that was asked for. held: who held production all the while; None where that changed.
    """
    load.answered += 1
    load.pinned += pin is not None
    if told.finish is None:
        load.wrong.append(f"{prompt!r} was not answered to its end")
    named = [version for version, digest in right.digests.items() if told.header == f"{MODEL}@{version}#{digest}"]
    if len(named) != 1:
        load.wrong.append(f"{prompt!r} has the header {told.header!r}, which is no release")
        return None
    (name,) = named
    load.by_version[name] = load.by_version.get(name, 0) + 1
    short = f"{MODEL}@{name}"
    if told.models != {short} or told.prints != {f"{short}#{right.digests[name][:12]}"}:
        load.wrong.append(f"{prompt!r} is {told.header!r} by its header, {sorted(told.models | told.prints)} by its events")
    if told.role != ("pinned" if pin else "production"):
        load.wrong.append(f"{prompt!r} was answered as {told.role}")
    if (pin or held or name) != name:
        load.wrong.append(f"{prompt!r} was answered by {name}, and {f'pinned to {pin}' if pin else f'{held} held production'}")
    own = right.answers[prompt]
    if own[name] != told.text:
        by = [version for version, text in own.items() if text == told.text]
        load.wrong.append(f"{prompt!r} names {name} and was answered by {' or '.join(by) or 'nobody known'}: {told.text!r}")
    return name
