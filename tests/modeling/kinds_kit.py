"""Rows of every kind, as a split file holds them, and what a learner needs to take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.domain.data import EXAMPLE_COLUMNS, example_id, messages_to_input
from pipeline.domain.record import canonical_json
from pipeline.domain.tuning import LEARNS_FROM, Objective
from pipeline.params.train import StageParams

Rows = list[tuple[str, str, str]]
"""input, output, kind."""


def ask(text: str) -> str:
    return messages_to_input([{"role": "user", "content": text}])


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def answer(question: str, text: str) -> tuple[str, str, str]:
    return ask(question), text, "answer"


def preference(question: str, chosen: Any, rejected: Any) -> tuple[str, str, str]:
    sides = {"chosen": chosen, "rejected": rejected}
    whole = {name: say(side) if isinstance(side, str) else side for name, side in sides.items()}
    return ask(question), canonical_json(whole), "preference"


def ranking(question: str, *answers: str) -> tuple[str, str, str]:
    return ask(question), canonical_json({"answers": list(answers)}), "ranking"


def feedback(question: str, text: str, *, good: bool) -> tuple[str, str, str]:
    return ask(question), canonical_json({"answer": text, "good": good}), "feedback"


def document(text: str) -> tuple[str, str, str]:
    return "", text, "text"


def prompt(question: str) -> tuple[str, str, str]:
    return ask(question), "", "prompt"


def label(text: str, name: str) -> tuple[str, str, str]:
    return text, name, "label"


def write_rows(path: Path, rows: Rows, *, meta: dict[str, str] | None = None, sources: tuple[str, ...] = ("a.jsonl",)) -> Path:
    """A split file of these rows."""
    columns: dict[str, list[Any]] = {name: [] for name in EXAMPLE_COLUMNS}
    for n, (text, output, kind) in enumerate(rows):
        values = (example_id(text, output), example_id(text, ""), text, output, json.dumps(meta or {}))
        for column, value in zip(EXAMPLE_COLUMNS, (*values, sources[n % len(sources)], n + 1, kind), strict=True):
            columns[column].append(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def rows_for(objective: Objective, count: int = 12) -> Rows:
    """Rows of all kinds that an objective learns from by default, of different lengths, in turn."""
    makers: dict[str, Any] = {
        "answer": lambda n: answer(f"Where is {n}" + "?" * (n % 5), "It is in Peru." * (1 + n % 3)),
        "call": lambda n: answer(f"Where is {n}", "It is in Peru."),
        "label": lambda n: label(f"about {['cat', 'dog'][n % 2]} {n}", ("animal", "other")[n % 2]),
        "preference": lambda n: preference(f"Where is {n}", "It is in Peru." * (1 + n % 3), "I do not know" + "." * (n % 4)),
        "feedback": lambda n: feedback(f"Where is {n}", ("It is in Peru.", "No.")[n % 2] * (1 + n % 3), good=n % 2 == 0),
        "ranking": lambda n: ranking(f"Where is {n}", "It is in Peru.", f"In Peru{'!' * n}", "No."),
        "text": lambda n: document(f"Lima is in Peru. {n} " * (1 + n % 4)),
        "prompt": lambda n: prompt(f"Where is {n}"),
    }
    kinds = LEARNS_FROM[objective]
    return [makers[kinds[n % len(kinds)]](n) for n in range(count)]


def stage_for(objective: Objective, **changes: Any) -> StageParams:
    """A stage of small numbers that learns `objective`."""
    usual: dict[str, Any] = {"objective": objective, "rank": 4, "alpha": 8, "batch_size": 4, "max_length": 96, "max_steps": 3}
    if objective is Objective.PPO:
        usual["ppo"] = {"rewards": [{"rule": "not_repeating"}], "rollouts": 4, "max_new_tokens": 8, "epochs": 1}
    return StageParams.model_validate(usual | changes)
