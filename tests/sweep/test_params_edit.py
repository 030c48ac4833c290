"""Single values changed in a params file: nothing else moves, and what is written is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.backends.params_edit import difference, with_values
from pipeline.backends.params_file import parse_params
from pipeline.errors import Misuse

BLOCK = """# my project
model: {name: desk, task: generate, base: ./base}   # the base that ships

train:
  # Found by hand.
  learning_rate: 0.001  # high
  rank: 4
  dpo:
    beta: 0.2
  # what follows is a list
  target_modules:
    - q_proj
    - v_proj

  # the chain
  stages:
    - objective: sft
      epochs: 2
    - {objective: dpo, name: prefer}
# the end
gate: {min_test_rows: 20}
"""


def _lines(text: str, changed: str) -> list[str]:
    marks = [line for line in difference(text, changed, "p").splitlines() if not line.startswith(("---", "+++", "@@", " "))]
    return [line[0] + line[1:].strip() for line in marks]


@pytest.mark.parametrize(
    ("path", "value", "lines"),
    [
        (("train", "rank"), 8, ["-rank: 4", "+rank: 8"]),
        (("train", "learning_rate"), 2e-5, ["-learning_rate: 0.001  # high", "+learning_rate: 2.0e-05  # high"]),
        (("train", "dpo", "beta"), 0.1, ["-beta: 0.2", "+beta: 0.1"]),
        (("train", "kto", "beta"), 0.1, ["+kto: {beta: 0.1}"]),
        (("train", "dora"), True, ["+dora: true"]),
        (("train", "scheduler"), "cosine", ["+scheduler: cosine"]),
        (("train", "packing"), "off", ['+packing: "off"']),
        (("train", "stages", 0, "epochs"), 3.5, ["-epochs: 2", "+epochs: 3.5"]),
        (("train", "stages", 0, "rank"), 16, ["+rank: 16"]),
        (
            ("train", "stages", 1, "dpo", "beta"),
            0.05,
            ["-- {objective: dpo, name: prefer}", "+- {objective: dpo, name: prefer, dpo: {beta: 0.05}}"],
        ),
        (("gate", "min_test_rows"), 30, ["-gate: {min_test_rows: 20}", "+gate: {min_test_rows: 30}"]),
        (("sweep", "seed"), 3, ["+sweep: {seed: 3}"]),
        (("train", "target_modules"), ("k_proj",), ["-- q_proj", "-- v_proj", "+[k_proj]"]),
    ],
)
def test_one_value_is_changed_and_nothing_else(path: tuple[str | int, ...], value: object, lines: list[str]) -> None:
    assert _lines(BLOCK, with_values(BLOCK, {path: value})) == lines


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("train:\n", "train: {rank: 8}\n"),
        ("train: {}\n", "train: {rank: 8}\n"),
        ("train: {rank: 4, alpha: 8}\n", "train: {rank: 8, alpha: 8}\n"),
        ("train: {alpha: 8}", "train: {alpha: 8, rank: 8}"),
        ("train:\n  rank:\n", "train:\n  rank: 8\n"),
        ("a: 1", "a: 1\ntrain: {rank: 8}"),
        ("", "train: {rank: 8}\n"),
        ("train:\n  alpha: 8", "train:\n  alpha: 8\n  rank: 8"),
        ("train:\n  alpha: 8\n\n# end\n", "train:\n  alpha: 8\n  rank: 8\n\n# end\n"),
        ("train:\n  name: |\n    text\nb: 1\n", "train:\n  name: |\n    text\n  rank: 8\nb: 1\n"),
    ],
)
def test_sections_in_every_shape(text: str, changed: str) -> None:
    assert with_values(text, {("train", "rank"): 8}) == changed


def test_a_value_where_a_section_is_due_is_refused() -> None:
    with pytest.raises(Misuse, match="a section is due"):
        with_values("train: 3\n", {("train", "rank"): 8})


@given(st.floats(1e-12, 0.9, allow_nan=False), st.integers(1, 1024), st.sampled_from(["linear", "constant", "cosine"]))
def test_what_is_written_is_what_is_read(rate: float, rank: int, scheduler: str) -> None:
    changed = with_values(
        BLOCK,
        {("train", "learning_rate"): rate, ("train", "rank"): rank, ("train", "stages", 0, "scheduler"): scheduler},
    )
    train = parse_params(changed).train
    assert (train.stages[1].learning_rate, train.stages[0].rank, train.stages[0].scheduler) == (rate, rank, scheduler)
    assert train.stages[1].scheduler == "linear"
