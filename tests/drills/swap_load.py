"""Load for the swap drill: clients that stream, a person who promotes and rolls back, and a checker of who answered what.

Every adapter answers every prompt otherwise, so that an answer tells who made it, whatever release it names.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving_world import World, ask, expected, make_adapter

VERSIONS = ("1", "2", "3", "4")
CITIES = ("Oslo", "Lima", "Rome", "Cairo", "Quito", "Bern")
MOST = 6


@dataclass
class Load:
    """What was asked and what came: `wrong` has a sentence for everything that may not be."""

    answered: int = 0
    pinned: int = 0
    pieces: int = 0
    across: int = 0
    wrong: list[str] = field(default_factory=list)
    by_version: dict[str, int] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)


def make_world(root: Path, base: Path) -> tuple[World, dict[str, dict[str, str]]]:
    """Versions 1 to 4, the first in production, and what each answers to each prompt: no two of them the same."""
    world = World(root / "world", base)
    folders = {version: make_adapter(base, root / version, seed=30 + int(version), by=0.15) for version in VERSIONS}
    asked = [f"Where is {city}?{' Tell me.' * n}" for city in CITIES for n in range(3)]
    said = expected(base, folders, asked, most=MOST)
    answers = {prompt: {version: said[version][n] for version in VERSIONS} for n, prompt in enumerate(asked)}
    answers = {prompt: own for prompt, own in answers.items() if len(set(own.values())) == len(VERSIONS)}
    assert len(answers) >= 3, "the adapters are too much alike to tell who answers"
    for folder in folders.values():
        world.register(folder)
    world.promote("1")
    return world, answers


async def drill(
    engine: Any, world: World, answers: dict[str, dict[str, str]], *, requests: int, moves: int, clients: int, seed: int
) -> Load:
    """Stream `requests` answers while production is promoted and rolled back `moves` times, spread over them."""
    load, order = Load(), random.Random(seed)
    prompts = sorted(answers)
    ids = iter(range(1 << 40))
    ended = asyncio.Event()

    async def client(number: int) -> None:
        own = random.Random(seed * 1000 + number)
        while not ended.is_set():
            prompt = own.choice(prompts)
            pin = own.choice(VERSIONS) if own.random() < 0.05 else None
            held_before = now_held()
            text, names = "", set()
            try:
                async for piece in engine.ask(ask(f"ask-{next(ids)}", prompt, most=MOST, release=pin)):
                    text += piece.text
                    names.add(piece.release.version)
                    load.pieces += 1
                if piece.finish is None:
                    load.wrong.append(f"{prompt!r} was not answered to its end")
            except Exception as error:
                load.wrong.append(f"{prompt!r} failed: {error!r}")
                continue
            judge(load, answers[prompt], prompt, text, names, pin)
            load.across += now_held() != held_before

    def now_held() -> str | None:
        current = engine._follower.routes.production
        return current.release.version if current else None

    async def mover() -> None:
        depth = 1
        for number in range(moves):
            while load.answered + len(load.wrong) < requests * (number + 1) // (moves + 1):
                await asyncio.sleep(0.002)
            before = now_held()
            if depth > 1 and order.random() < 0.5:
                wanted, depth = await asyncio.to_thread(world.roll_back), depth - 1
            else:
                wanted, depth = order.choice([v for v in VERSIONS if v != before]), depth + 1
                await asyncio.to_thread(world.promote, wanted)
            committed = time.monotonic()
            while now_held() != wanted:
                await asyncio.sleep(0.002)
                if time.monotonic() - committed > 60:
                    load.wrong.append(f"{wanted} was never served; {before} still is")
                    break
            load.lags.append(time.monotonic() - committed)
        while load.answered + len(load.wrong) < requests:
            await asyncio.sleep(0.002)
        ended.set()

    await asyncio.gather(mover(), *(client(number) for number in range(clients)))
    return load


def judge(load: Load, answers: dict[str, str], prompt: str, text: str, names: set[str], pin: str | None) -> None:
    """Hold one answer against the release that it names."""
    load.answered += 1
    load.pinned += pin is not None
    if len(names) != 1:
        load.wrong.append(f"{prompt!r} was answered under the names {sorted(names)}")
        return
    (name,) = names
    load.by_version[name] = load.by_version.get(name, 0) + 1
    if pin is not None and name != pin:
        load.wrong.append(f"{prompt!r} was pinned to {pin} and answered by {name}")
    if answers[name] != text:
        by = [version for version, own in answers.items() if own == text]
        load.wrong.append(f"{prompt!r} names {name} and was answered by {' or '.join(by) or 'nobody known'}: {text!r}")
