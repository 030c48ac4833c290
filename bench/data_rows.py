"""Made-up rows for bench/data.py: short prompt/completion lines, some of them repeated and some nearly so."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprstvz" for b in "aeiou" for c in "lmnrst"]
REPEATED = 0.01
"""Of all rows, how many are a row again, byte for byte, and how many a row with one word changed."""


def generate(path: Path, count: int, *, seed: int = 0) -> int:
    """Write `count` rows, the same for the same seed, and return the file's size in bytes."""
    rng = random.Random(f"{seed} {count}")
    path.parent.mkdir(parents=True, exist_ok=True)
    recent: list[tuple[list[str], list[str]]] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            prompt, completion = [*rng.choices(WORDS, k=16), f"{seed}-{number}"], rng.choices(WORDS, k=12)
            drawn = rng.random()
            if recent and drawn < 2 * REPEATED:
                prompt, completion = (list(words) for words in rng.choice(recent))
                if drawn < REPEATED:
                    prompt[rng.randrange(16)] = rng.choice(WORDS)
            elif len(recent) < 10_000:
                recent.append((prompt, completion))
            else:
                recent[rng.randrange(10_000)] = (prompt, completion)
            row = {"prompt": " ".join(prompt), "completion": " ".join(completion), "week": number % 52}
            file.write(json.dumps(row) + "\n")
    return path.stat().st_size
