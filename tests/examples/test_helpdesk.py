"""The support-desk batches are repeatable and hold what each week promises."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest


def rows(desk: ModuleType, week: int) -> list[dict]:
    """The lines of a week that are JSON objects."""
    kept = []
    for line in desk.make_batch(week).split(b"\n"):
        try:
            kept.append(json.loads(line))
        except ValueError:
            continue
    return kept


def test_the_command_writes_the_same_bytes_whatever_the_hash_seed(desk: ModuleType, tmp_path: Path) -> None:
    for hash_seed in ("1", "2"):
        command = [sys.executable, desk.__file__, "--week", "3", "--seed", "7", "--out", tmp_path / hash_seed]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": hash_seed})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == desk.make_batch(3, seed=7)
    assert desk.make_batch(1, seed=7) != desk.make_batch(1, seed=8)


def test_weeks_have_their_intents(desk: ModuleType) -> None:
    first, second = (Counter(row["intent"] for row in rows(desk, week)) for week in (1, 2))
    assert set(first) == set(desk.WEEK_ONE)
    assert set(second) == set(desk.WEEK_ONE + desk.NEW_IN_WEEK_TWO)
    assert sum(second[intent] for intent in desk.NEW_IN_WEEK_TWO) > 700
    assert sum(first.values()) == sum(second.values()) == 1200


@pytest.mark.parametrize("week", [1, 2])
def test_good_weeks_say_what_their_answers_say(desk: ModuleType, week: int) -> None:
    for row in rows(desk, week):
        question, answer = (message["content"] for message in row["messages"])
        parsed = json.loads(answer)
        assert list(parsed) == ["intent", "product", "urgency", "order", "reply"]
        assert parsed["intent"] == row["intent"]
        assert row["source"] == f"week{week}"
        assert parsed["product"] in question
        assert len(question.split()) <= 60
        assert parsed["order"] is None or parsed["order"] in question


def test_week_three_has_every_defect_twice(desk: ModuleType) -> None:
    lines = desk.make_batch(3).split(b"\n")[:-1]
    assert len(lines) == 1200
    unreadable = 0
    for line in lines:
        try:
            json.loads(line.decode("utf-8"))
        except ValueError:
            unreadable += 1
    assert unreadable == 6  # cut short, plain text, not UTF-8
    assert lines.count(lines[0]) == 3
    text = b"\n".join(lines)
    for mark in (
        b"\\u0000",
        b"\\ud83d",
        b"caf\xe9",
        b'"content": ""',
        b'"content": "  \\n "',
        b'"customer"',
        b'"source": "unknown"',
    ):
        assert text.count(mark) == 2, mark


def test_week_three_has_a_block_of_other_rows_labels(desk: ModuleType) -> None:
    wrong = []
    for at, line in enumerate(desk.make_batch(3).split(b"\n")):
        try:
            question, answer = json.loads(line)["messages"]
            if question["content"].strip() and json.loads(answer["content"])["product"] not in question["content"]:
                wrong.append(at)
        except (ValueError, KeyError):  # a broken line
            continue
    assert wrong == list(range(300, 1020))
