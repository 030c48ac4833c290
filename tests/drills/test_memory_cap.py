"""A training that would die of its batch under a cap of memory ends with the loss curve that it has without one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.data import messages_to_input
from tests.modeling.modeling_kit import build_tiny_base, write_splits

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("Oslo", "Lima", "Rome", "Cairo", "Quito", "Bern", "Norway", "Peru", "Italy", "Egypt", "Ecuador", "Switzerland")


def drill(home: Path, base: Path, stage: dict[str, Any], *, rows: int, words: int, mib: int) -> dict[str, dict[str, Any]]:
    """What became of each attempt of capped.py, which has `mib` MiB beside the loaded model."""
    random_ = random.Random(5)
    made = []
    for n in range(rows):
        answer = " ".join(random_.choices(WORDS, k=random_.randint(words // 4, words)))
        made.append((messages_to_input([{"role": "user", "content": f"Where is {random_.choice(WORDS)}? {n}"}]), answer))
    data, _ = write_splits(home, made[8:], made[:8], task="generate")
    asked = {"home": str(home), "base": str(base), "data": str(data), "stage": stage, "mib": mib}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "drills" / "capped.py"), json.dumps(asked)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=3000)
    return {path.stem: json.loads(path.read_text()) for path in home.glob("*.json")}


def check(found: dict[str, dict[str, Any]], stage: dict[str, Any]) -> None:
    free = found["free"]
    assert free["machine"]["micro_rows"] == str(stage["batch_size"]), "with room enough nothing is cut"
    assert "can't allocate memory" in found["fixed"]["error"], "the whole batch does not fit under the cap"
    for name in ("predicted", "halved"):
        capped = found[name]
        assert "error" not in capped, capped.get("trace", capped)
        assert int(capped["machine"]["micro_rows"]) < stage["batch_size"]
        assert capped["steps"] == free["steps"]
        assert capped["losses"] == pytest.approx(free["losses"], rel=1e-5), name
    assert found["predicted"]["peak"] < free["peak"]


def test_a_capped_training_that_would_have_died_has_the_same_curve(tmp_path: Path) -> None:
    stage = {"batch_size": 512, "max_steps": 3, "max_length": 128, "learning_rate": 0.01, "rank": 4, "packing": "off"}
    found = drill(tmp_path, build_tiny_base(tmp_path / "base"), stage, rows=520, words=30, mib=400)
    check(found, stage)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_the_base_that_ships_is_tuned_under_a_cap(tmp_path: Path, tuner: str) -> None:
    stage = {"batch_size": 64, "max_steps": 4, "max_length": 256, "learning_rate": 0.001, "tuner": tuner}
    found = drill(tmp_path, ROOT / "examples" / "base", stage, rows=300, words=120, mib=600)
    check(found, stage)
