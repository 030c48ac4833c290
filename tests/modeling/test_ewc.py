"""Elastic weight consolidation: the Fisher information against its definition, the penalty, and its place in a training."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from loop_kit import TinyLearner, loop, stage, weights
from modeling_kit import Pulled, Remembering, pull_at

from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import Objective
from pipeline.errors import Broken, Misuse, TrainingDiverged
from pipeline.modeling.continual.ewc import Anchor, anchor, diagonal
from pipeline.modeling.loop.trained import trainable
from pipeline.modeling.texts.rows import Encoded, Row, of_items
from pipeline.params.train import MachineParams, StageParams

REF = BaseModelRef(id="./base", weights="a" * 64, tokenizer="b" * 64)


def job(cache: Path, params: StageParams, objective: Objective = Objective.SFT) -> Any:
    """The parts of a Job that an anchor asks for."""
    said = {"stage": params, "cache": cache, "ref": REF, "start_digest": "d" * 64, "machine": MachineParams()}
    return SimpleNamespace(**said, objective=objective)


def held(weight: float = 1.0, rows: int = 256, **more: Any) -> StageParams:
    return stage(**more).model_copy(update={"ewc": stage(ewc={"weight": weight, "rows": rows}).ewc})


def items(learner: TinyLearner, old: int = 10) -> Encoded:
    """The rows of a TinyLearner as Encoded, the first of them old."""
    encoded = of_items([[Row(text.tolist(), [])] for text in learner.texts])
    encoded.old = np.arange(len(learner.texts)) < old
    return encoded


def by_hand(learner: TinyLearner, places: range) -> dict[str, torch.Tensor]:
    """Mean over rows of the squared gradient of each row's loss, by backward and nothing else."""
    learner.model.eval()
    total = {name: torch.zeros_like(weight) for name, weight in trainable(learner.model).items()}
    for at in places:
        learner.model.zero_grad()
        learner.losses(learner.batch([at])).total.backward()
        for name, weight in trainable(learner.model).items():
            total[name] += weight.grad**2
    learner.model.zero_grad()
    return {name: value / len(places) for name, value in total.items()}


def test_the_fisher_information_is_the_mean_squared_gradient_of_each_rows_loss() -> None:
    learner = TinyLearner()
    expected = by_hand(learner, range(10))
    found = diagonal(learner, range(10))
    assert found.keys() == expected.keys() == trainable(learner.model).keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])
    assert all(weight.grad is None for weight in learner.model.parameters())


def test_it_is_a_units_so_that_long_rows_do_not_weigh_more_than_their_tokens() -> None:
    learner = TinyLearner(dropout=0.0)
    once = diagonal(learner, [0])
    learner.units = lambda places: 3.0 * len(places)  # type: ignore[method-assign]
    thrice = diagonal(learner, [0])
    for name, tensor in once.items():
        torch.testing.assert_close(thrice[name] * 3, tensor)


def test_it_approximates_the_curvature_of_the_loss_where_the_model_is_right_about_its_doubts() -> None:
    """For labels drawn from the model's own distribution the Fisher information is the expected Hessian (its diagonal)."""
    torch.manual_seed(1)
    learner = TinyLearner(rows=1500, dropout=0.0)
    learner.model.eval()
    with torch.no_grad():
        batch = learner.batch(range(1500))
        logits = learner.model(batch["input_ids"], attention_mask=batch["attention_mask"])
        learner.kinds = torch.distributions.Categorical(logits=logits).sample().tolist()
    found = diagonal(learner, range(1500))["out.bias"]
    chances = logits.softmax(-1)
    hessian = (chances * (1 - chances)).mean(0)
    torch.testing.assert_close(found, hessian, rtol=0.1, atol=0.0)


def test_looking_at_what_mattered_leaves_no_trace() -> None:
    learner = TinyLearner()
    learner.model.train()
    before, random = weights(learner), torch.random.get_rng_state()
    diagonal(learner, range(5))
    assert weights(learner) == before
    assert learner.model.training
    assert torch.equal(torch.random.get_rng_state(), random)


def test_the_penalty_is_zero_at_the_start_and_quadratic_away_from_it(tmp_path: Path) -> None:
    learner = TinyLearner()
    made = anchor(job(tmp_path, held(weight=3.0)), learner, items(learner))
    assert made is not None
    assert float(made(learner.model).detach()) == 0.0
    expected = 0.0
    with torch.no_grad():
        for name, weight in trainable(learner.model).items():
            weight += 0.5
            expected += float(by_hand_sum(made, name) * 0.25)
    penalty = made(learner.model)
    assert float(penalty.detach()) == pytest.approx(1.5 * expected, rel=1e-5)
    penalty.backward()
    for name, weight in trainable(learner.model).items():
        torch.testing.assert_close(weight.grad, 3.0 * made.fisher[name] * 0.5)


def by_hand_sum(made: Anchor, name: str) -> torch.Tensor:
    return made.fisher[name].sum()


def test_only_weights_that_learn_are_held(tmp_path: Path) -> None:
    learner = TinyLearner()
    made = anchor(job(tmp_path, held()), learner, items(learner))
    assert made is not None
    assert not [name for name in made.fisher if name.startswith("frozen")]


def test_a_stage_that_asks_for_none_gets_none_and_nothing_is_looked_at(tmp_path: Path) -> None:
    learner = TinyLearner()
    assert anchor(job(tmp_path, stage()), learner, items(learner)) is None
    assert not learner.sizes


def test_it_is_kept_by_content_and_made_again_when_torn(tmp_path: Path) -> None:
    def made(params: StageParams | None = None, *, old: int = 10, start: str = "d" * 64) -> tuple[dict[str, torch.Tensor], int]:
        learner = TinyLearner()
        asked = job(tmp_path, params or held())
        asked.start_digest = start
        found = anchor(asked, learner, items(learner, old=old))
        assert found is not None
        return dict(found.fisher), len(learner.sizes)

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    first, looked = made()
    assert looked == 10
    again, looked = made(held(weight=7.0, learning_rate=0.001))
    assert looked == 0, "neither the weight nor the learning rate changes what mattered"
    assert same(first, again)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for harmed in (whole[:-7], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        file.write_bytes(harmed)
        again, looked = made()
        assert (looked, file.read_bytes()) == (10, whole)
        assert same(first, again)
    for more in ({"old": 11}, {"start": "e" * 64}, {"params": held(label_smoothing=0.1)}):
        assert made(**more)[1] > 0  # type: ignore[arg-type]


def test_rows_are_drawn_from_the_old_ones_and_from_all_where_none_is_old(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner = TinyLearner()
    seen: list[int] = []
    batch = learner.batch
    learner.batch = lambda places: (seen.extend(places), batch(places))[1]  # type: ignore[method-assign]
    anchor(job(tmp_path, held(rows=6)), learner, items(learner, old=10))
    assert len(seen) == len(set(seen)) == 6
    assert max(seen) < 10
    seen.clear()
    with caplog.at_level(logging.WARNING):
        anchor(job(tmp_path, held()), learner, items(learner, old=0))
    assert sorted(seen) == list(range(22))
    assert "none of the rows is known to be old" in caplog.text


def test_held_weights_stay_nearer_and_the_penalty_is_in_the_curves(tmp_path: Path) -> None:
    tracker = Remembering()

    def trained(weight: float) -> float:
        """How far the weights went, by what the old rows make of it."""
        learner = TinyLearner()
        params = held(weight=weight)
        made = anchor(job(tmp_path, held()), learner, items(learner))
        penalty = anchor(job(tmp_path, params), learner, items(learner))
        loop(learner, tmp_path / str(weight), params, penalty=penalty, tracker=tracker).run()
        assert made is not None
        return float(made(learner.model).detach())

    free = trained(0.0)
    assert not tracker.curve("penalty")
    bound = trained(200.0)
    assert bound < free / 4
    steps = [value for _, value in tracker.curve("penalty")]
    assert steps[0] == 0.0
    assert max(steps) > 0.0


@pytest.mark.parametrize("cut", [1, 3, 6])
@pytest.mark.parametrize("cache", ["kept", "gone"])
def test_a_resumed_training_is_held_to_the_same_bits(tmp_path: Path, cut: int, cache: str) -> None:
    params = held(weight=5.0)

    def attempt(name: str, kept: Path, **more: Any) -> bytes:
        learner = TinyLearner()
        loop(learner, tmp_path / name, params, penalty=anchor(job(kept, params), learner, items(learner)), **more).run()
        return weights(learner)

    whole = attempt("whole", tmp_path / "a")
    with pytest.raises(Pulled):
        attempt("cut", tmp_path / "b", progress=pull_at(cut))
    assert attempt("cut", tmp_path / ("b" if cache == "kept" else "c")) == whole


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    learner = TinyLearner()
    with pytest.raises(Misuse, match="ppo has no loss of old rows"):
        anchor(job(tmp_path, held(), Objective.PPO), learner, items(learner))
    learner.most_rows = 0
    with pytest.raises(Broken, match="memory ran out over a single row"):
        anchor(job(tmp_path, held()), learner, items(learner))
    learner.most_rows = 1000
    with torch.no_grad():
        learner.model.out.bias[0] = float("nan")
    with pytest.raises(TrainingDiverged, match="loss of an old row became NaN"):
        anchor(job(tmp_path, held()), learner, items(learner))


def test_weights_that_mattered_to_nothing_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner = TinyLearner()
    with torch.no_grad():
        learner.model.out.bias[:] = torch.tensor([100.0, -100.0, -100.0])
        learner.model.out.weight.zero_()
    learner.kinds = [0] * len(learner.kinds)
    with caplog.at_level(logging.WARNING):
        anchor(job(tmp_path, held()), learner, items(learner))
    assert "no weight that learns mattered to the 10 rows" in caplog.text
