"""How fast releases are served, beside plain transformers generation in a FastAPI app, in one run; and how soon a swap shows.

    python bench/serve.py                 both sides with one adapter and with eight, then fifty swaps; minutes on two quiet cores
    python bench/serve.py --quick         a few requests of each, to see that all sides run
    python bench/serve.py --base FOLDER   another base (default: the one in examples)

Each side is a server in a process of its own (serve_sides.py), asked over HTTP by the same clients, with the same base, adapters,
prompts and lengths, greedily, streamed. Sides take turns. `times` is the plain side's value over ours, or ours over the plain
side's for requests a second: more than 1 is better for us. A swap is timed from the return of the ledger's append to the first
answer, asked one after the other over HTTP, that names the new release.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
ADAPTERS = 8
QUIET = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
WORDS = ("order", "card", "refund", "parcel", "city", "invoice", "ticket", "login", "address", "price", "window", "letter")


@dataclass(frozen=True, slots=True)
class Load:
    """How one side is asked. clients: requests at once; tokens: of every answer at the most."""

    requests: int
    clients: int
    tokens: int


@dataclass(slots=True)
class Side:
    """A server, started."""

    process: subprocess.Popen[str]
    url: str

    def order(self, text: str) -> Any:
        """Have it do something, and wait for what it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def start(name: str, base: Path, home: Path) -> Side:
    command = [sys.executable, str(ROOT / "bench" / "serve_sides.py"), name, str(base), str(home), str(ADAPTERS)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**QUIET, **os.environ}
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return Side(process, json.loads(line)["url"])
    raise SystemExit(f"the side {name} did not start")


def question(number: int) -> str:
    return "Please tell me about " + " and ".join(WORDS[(number * 7 + n * 3) % len(WORDS)] for n in range(2 + number % 6)) + "."


async def one(client: httpx.AsyncClient, side: str, url: str, number: int, adapter: int, tokens: int) -> tuple[float, float, int]:
    """Seconds to the first text and to the end, and how many pieces came."""
    messages = [{"role": "user", "content": question(number)}]
    body: dict[str, Any] = {"messages": messages, "max_tokens": tokens, "stream": True, "temperature": 0}
    body |= {"model": f"desk@{adapter}"} if side == "ours" else {"adapter": f"a{adapter}"}
    began, first, pieces = time.perf_counter(), None, 0
    async with client.stream("POST", url + ("/v1/chat/completions" if side == "ours" else "/generate"), json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{side}: {response.status_code} {(await response.aread()).decode()[:300]}")
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            said = json.loads(line[6:])
            text = said["choices"][0]["delta"].get("content") if side == "ours" and said["choices"] else said.get("text")
            if text:
                pieces += 1
                first = first if first is not None else time.perf_counter() - began
    ended = time.perf_counter() - began
    return first if first is not None else ended, ended, pieces


async def asked(side: str, url: str, load: Load, adapters: int) -> dict[str, float]:
    """What a side gives under load."""
    numbers = iter(range(load.requests))
    found: list[tuple[float, float, int]] = []

    async def worker(client: httpx.AsyncClient) -> None:
        for number in numbers:
            found.append(await one(client, side, url, number, 1 + number % adapters, load.tokens))

    limits = httpx.Limits(max_connections=load.clients)
    async with httpx.AsyncClient(timeout=600, limits=limits, trust_env=False) as client:
        began = time.perf_counter()
        await asyncio.gather(*(worker(client) for _ in range(load.clients)))
        seconds = time.perf_counter() - began
    firsts, ends = sorted(f for f, _, _ in found), sorted(e for _, e, _ in found)
    return {
        "requests_per_s": load.requests / seconds,
        "first_ms": 1000 * statistics.median(firsts),
        "first_p99_ms": 1000 * _p99(firsts),
        "whole_p99_ms": 1000 * _p99(ends),
    }


def _p99(values: list[float]) -> float:
    return values[min(len(values) - 1, int(0.99 * len(values)))]


async def swaps(side: Side, count: int) -> dict[str, float]:
    """How long a promotion takes to be seen, and the swap itself, in milliseconds."""
    seen = []
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        for number in range(count):
            wanted = str(1 + (number + 1) % ADAPTERS)
            committed = side.order(f"promote {wanted}")["at"]
            while True:
                body = {"model": "desk", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
                answer = (await client.post(side.url + "/v1/chat/completions", json=body)).json()
                if f"@{wanted}" in json.dumps(answer):
                    break
            seen.append(1000 * (time.monotonic() - committed))
    own = [1000 * s for s in side.order("swaps")["seconds"]]
    return {
        "seen_ms": statistics.median(seen),
        "seen_most_ms": max(seen),
        "swap_ms": statistics.median(own),
        "swap_most_ms": max(own),
    }


def compared(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians of each side, and the median of the ratios within rounds."""
    told: dict[str, Any] = {}
    for key in rounds[0]["ours"]:
        ratios = [r["ours"][key] / r["plain"][key] for r in rounds]
        ratios = ratios if key == "requests_per_s" else [1 / ratio for ratio in ratios]
        told[key] = {side: round(statistics.median(r[side][key] for r in rounds), 1) for side in ("ours", "plain")}
        told[key]["times"] = round(statistics.median(ratios), 2)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description="Serving: requests a second, time to first token, swaps; beside a plain app.")
    parser.add_argument("--base", type=Path, default=ROOT / "examples" / "base")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    load = Load(12, 4, 8) if given.quick else Load(96, 16, 32)
    rounds, told = (1 if given.quick else 3), {}
    with tempfile.TemporaryDirectory() as home:
        sides = {}
        try:
            # One after the other: the first makes the adapters that both are asked for.
            for name in ("ours", "plain"):
                sides[name] = start(name, given.base, Path(home))
            for adapters in (1, ADAPTERS):
                for side, server in sides.items():
                    asyncio.run(asked(side, server.url, Load(adapters * 2, 2, 4), adapters))
                found = []
                for number in range(rounds):
                    order = ["ours", "plain"] if number % 2 == 0 else ["plain", "ours"]
                    found.append({side: asyncio.run(asked(side, sides[side].url, load, adapters)) for side in order})
                told[f"adapters_{adapters}"] = compared(found)
                print(f"adapters_{adapters}", json.dumps(told[f"adapters_{adapters}"]), flush=True)
            told["swaps"] = {
                key: round(value, 2) for key, value in asyncio.run(swaps(sides["ours"], 5 if given.quick else 50)).items()
            }
            print("swaps", json.dumps(told["swaps"]), flush=True)
        finally:
            for server in sides.values():
                server.process.stdin.close()  # type: ignore[union-attr]
                server.process.wait(60)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "serve.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
