"""Fixtures of the modeling tests: a two-layer Llama with a byte-level tokenizer, and split files for both tasks."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from modeling_kit import CITIES, Pulled, Remembering, build_tiny_base, pull_at, run, write_splits

from pipeline.domain.curated import Splits
from pipeline.domain.data import messages_to_input

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def chat_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Splits]:
    """Split files and their record for the task generate: 60 questions to train on, 6 to watch, of very different lengths."""
    random_ = random.Random(3)
    rows = []
    for n in range(66):
        city, land = random_.choice(sorted(CITIES.items()))
        question = f"Where is {city}" + "?" * random_.randint(1, 5) + " please" * random_.randint(0, 3)
        rows.append((messages_to_input([{"role": "user", "content": f"{question} {n}"}]), f"It is in {land}."))
    return write_splits(tmp_path_factory.mktemp("chat"), rows[:60], rows[60:], task="generate")


@pytest.fixture(scope="session")
def label_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Splits]:
    """Split files for the task classify: three labels that a word gives away."""
    random_ = random.Random(5)
    words = {"colour": ["red", "blue"], "animal": ["cat", "dog"], "number": ["one", "two"]}
    rows = []
    for n in range(72):
        label = sorted(words)[n % 3]
        rows.append((f"about {random_.choice(words[label])} {n}", label))
    return write_splits(tmp_path_factory.mktemp("labels"), rows[:60], rows[60:], task="classify", labels=tuple(sorted(words)))


@pytest.fixture(scope="session")
def whole(chat_data, tiny_base, tmp_path_factory):
    """An uninterrupted training of 16 steps: its home, record and tracker."""
    home, tracker = tmp_path_factory.mktemp("whole"), Remembering()
    return home, run(chat_data, tiny_base, home, tracker=tracker), tracker


@pytest.fixture(scope="session")
def interrupted(chat_data, tiny_base, tmp_path_factory):
    home = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Pulled):
        run(chat_data, tiny_base, home, progress=pull_at(10))
    return home
