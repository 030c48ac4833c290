"""What the losses of a training say: the best step, when to stop, over-fitting; and what the loop does about it."""

from __future__ import annotations

import shutil

import pytest
import torch
from loop_kit import TinyLearner, loop, stage, weights
from modeling_kit import Remembering

from pipeline.errors import Broken
from pipeline.modeling.loop.noise import noisy_embeddings, tokens_of_texts
from pipeline.modeling.loop.watch import Watch
from pipeline.params import StageParams
from pipeline.params.learning import EarlyStoppingParams, OverfittingParams


def watched(held: list[float], train: list[float] | None = None, *, patience=None, min_change=0.0, policy="warn", evaluations=3):
    """(step, verdict) of evaluations after steps 10, 20, …; train: the mean training loss before each, by default falling."""
    watch = Watch(
        EarlyStoppingParams(patience=patience, min_change=min_change), OverfittingParams(policy=policy, evaluations=evaluations)
    )
    found = []
    for n, loss in enumerate(held):
        mean = train[n] if train is not None else 1.0 / (n + 1)
        watch.stepped(mean - 0.01)
        watch.stepped(mean + 0.01)
        watch.restore(watch.state())  # as a resume does it
        found.append((10 * (n + 1), watch.evaluated(10 * (n + 1), loss)))
    return watch, found


def test_the_best_is_the_first_of_the_lowest():
    watch, found = watched([3.0, 2.0, 2.0, 2.5, 1.99])
    assert [step for step, verdict in found if verdict.best] == [10, 20, 50]
    assert (watch.best_step, watch.best_loss) == (50, 1.99)


@pytest.mark.parametrize(
    ("held", "patience", "min_change", "stops_at"),
    [
        ([3, 2, 2.1, 2.2, 2.3], None, 0.0, None),
        ([3, 2, 2.1, 2.2, 2.3], 2, 0.0, 40),
        ([3, 2, 2.1, 1.9, 2.3, 2.4], 2, 0.0, 60),
        ([3, 2, 2, 2], 1, 0.0, 30),
        ([3, 2.9, 2.8, 2.7], 2, 0.5, 30),
        ([3, 2.8, 2.6, 2.4, 2.2, 2.0], 3, 0.5, None),  # slow, but it adds up
    ],
)
def test_patience_ends_with_evaluations_that_are_no_better(held, patience, min_change, stops_at):
    _, found = watched(held, patience=patience, min_change=min_change, policy="off")
    stopping = [step for step, verdict in found if verdict.stop is not None]
    assert stopping[:1] == ([stops_at] if stops_at else [])


def test_overfitting_is_named_with_the_step_it_began_at():
    watch, found = watched([2.0, 1.5, 1.6, 1.7, 1.8, 1.9], [9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
    [(step, verdict)] = [(step, verdict) for step, verdict in found if verdict.alarm is not None]
    assert step == 50
    assert verdict.stop is None
    assert watch.alarms == [verdict.alarm]
    assert verdict.alarm == (
        "over-fitting since step 20: until step 50 the loss on the eval split rose 3 times in a row, from 1.5 to 1.8, "
        "while the training loss fell from 8 to 5"
    )


@pytest.mark.parametrize(
    ("held", "train"),
    [
        ([1, 2, 3, 2.9, 3, 4], [9, 8, 7, 6, 5, 4]),  # not in a row
        ([1, 2, 3, 4, 5], [9, 8, 8, 7, 6]),  # the training loss did not fall each time
        ([5, 4, 3, 2, 1], [9, 8, 7, 6, 5]),
        ([1, 2, 3], [9, 8, 7]),  # too few
    ],
)
def test_what_is_no_overfitting(held, train):
    _, found = watched(held, train)
    assert not any(verdict.alarm for _, verdict in found)


def test_overfitting_alarms_again_only_after_it_has_been_over():
    _, found = watched([1, 2, 3, 4, 5, 1, 2, 3, 4])
    assert [step for step, verdict in found if verdict.alarm] == [40, 90]


@pytest.mark.parametrize(("policy", "taken", "alarms"), [("off", 9, 0), ("warn", 9, 1), ("stop", 6, 1)])
def test_the_policy_decides_what_overfitting_does(policy, taken, alarms, tmp_path, monkeypatch):
    falling = iter(range(100, 0, -1))
    monkeypatch.setattr(Watch, "stepped", lambda self, loss: (setattr(self, "_sum", next(falling)), setattr(self, "_steps", 1)))
    tracker = Remembering()
    overfitting = {"policy": policy, "evaluations": 2}
    made = loop(
        TinyLearner(held=[1.0, 2.0, 3.0, 2.5, 2.0]), tmp_path, stage(overfitting=overfitting, max_steps=9), tracker=tracker
    )
    made.run()
    assert made.taken == taken
    assert made.alarms[-1] == "a sentence"
    assert len(made.alarms) == 1 + alarms
    assert (made.stopped_early or "").startswith("over-fitting since step 2") == (policy == "stop")
    assert tracker.curve("overfitting") == [(6, 1.0)] * alarms
    assert tracker.tags.get("tuneline.alarm.overfitting", "").startswith("over-fitting since step 2: until step 6") == bool(
        alarms
    )


HELD = [2.0, 1.0, 1.5, 1.2, 1.1]
"""After steps 2, 4, 6, 8 and 9."""


def test_the_best_weights_are_those_of_their_step(tmp_path):
    kept, until_best = TinyLearner(held=HELD), TinyLearner(held=HELD)
    made = loop(kept, tmp_path / "kept", stage(keep="best"))
    made.run()
    assert (made.kept_step, made.taken, made.curves.eval_loss) == (4, 9, 1.0)
    shorter = loop(until_best, tmp_path / "until", stage(scheduler="constant", keep="last", max_steps=4))
    shorter.run()
    assert (shorter.kept_step, shorter.taken) == (4, 4)
    same_rate = TinyLearner(held=HELD)
    loop(same_rate, tmp_path / "same", stage(scheduler="constant", keep="best")).run()
    assert weights(same_rate) == weights(until_best) != weights(kept)


@pytest.mark.parametrize("step", [3, 4, 5, 6])
def test_stopping_early_with_the_best_is_resumed_exactly(step, tmp_path):
    """Before the best step, at it, after it, and after the stop itself."""
    settings = stage(keep="best", early_stopping={"patience": 1}, save_steps=1, logging_steps=4)
    first = TinyLearner(held=HELD)
    made = loop(first, tmp_path / "first", settings)
    made.run()
    assert (made.taken, made.kept_step, made.curves.eval_loss) == (6, 4, 1.0)
    assert made.stopped_early == "the loss on the eval split did not get better than 1, once"
    assert [p["step"] for p in made.curves.points if "loss" in p] == [4, 6]
    shutil.copytree(tmp_path / "first" / f"checkpoint-{step}", tmp_path / "again" / f"checkpoint-{step}")
    second = TinyLearner(held=HELD[step // 2 :])
    again = loop(second, tmp_path / "again", settings)
    again.run()
    assert weights(second) == weights(first)
    assert (again.taken, again.kept_step, again.stopped_early) == (6, 4, made.stopped_early)
    assert again.curves.points == made.curves.points


def test_without_an_eval_split_the_last_weights_are_kept(tmp_path):
    learner = TinyLearner()
    learner.evaluate = lambda rows: {}
    made = loop(learner, tmp_path, stage(keep="best", early_stopping={"patience": 1}))
    made.run()
    assert (made.kept_step, made.taken, made.curves.eval_loss) == (9, 9, None)


@pytest.mark.parametrize("step", [8, 9])
def test_best_weights_with_a_bad_byte_are_not_kept(step, tmp_path):
    """Before the last checkpoint, which would take it over, and after it."""
    settings = stage(keep="best", save_steps=5)
    learner = TinyLearner(held=HELD)
    made = loop(learner, tmp_path, settings)
    real = made._best.put_back if step == 9 else made._best.copy_into

    def spoil(*args) -> None:
        if made.taken == 9:
            path = tmp_path / "best.safetensors"
            path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        real(*args)

    setattr(made._best, "put_back" if step == 9 else "copy_into", spoil)
    with pytest.raises(Broken, match=r"best.safetensors: the best weights are not what was written"):
        made.run()
    assert (tmp_path / "checkpoint-9").exists() == (step == 9)
    again = TinyLearner(held=HELD[2:])
    loop(again, tmp_path, settings).run()
    good = TinyLearner(held=HELD)
    loop(good, tmp_path / "good", stage(keep="best")).run()
    assert weights(again) == weights(good)


def test_noise_is_as_strong_as_the_text_is_long_whatever_it_is_batched_with():
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    assert tokens_of_texts((2, 6), mask, None).tolist() == [[3] * 6, [6] * 6]
    packed = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 0, 0]])
    assert tokens_of_texts((2, 6), None, packed).tolist() == [[3, 3, 3, 2, 2, 1], [4, 4, 4, 4, 1, 1]]
    padded = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    assert tokens_of_texts((2, 6), padded, packed).tolist() == [[3, 3, 3, 2, 2, 1], [4, 4, 4, 4, 1, 1]]
    assert tokens_of_texts((2, 6), None, None).tolist() == [[6] * 6] * 2


def test_noise_is_put_on_while_training_and_never_else():
    model = TinyLearner().model
    rows = {"input_ids": torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]]), "attention_mask": torch.tensor([[1, 1, 1, 0], [1] * 4])}
    seen: list[torch.Tensor] = []
    with noisy_embeddings(model, 5.0):
        handle = model.embedding.register_forward_hook(lambda module, _, out: seen.append(out.detach()))
        model.train()
        model(**rows)
        with torch.no_grad():
            model(**rows)
        model.eval()
        model(**rows)
    model.train()
    model(**rows)
    handle.remove()
    plain = model.embedding(rows["input_ids"])
    noise = (seen[0] - plain).abs()
    for row, tokens in ((0, 3), (1, 4)):
        bound = 5.0 / (tokens * 8) ** 0.5
        assert 0.8 * bound < noise[row].max().item() <= bound * 1.0001
    assert all(torch.equal(each, plain) for each in seen[1:])


def test_neftune_changes_what_is_learned_and_repeats_itself(tmp_path):
    made = []
    for name, alpha in (("plain", None), ("noisy", 5.0), ("again", 5.0)):
        learner = TinyLearner()
        loop(learner, tmp_path / name, stage(neftune_alpha=alpha)).run()
        made.append(weights(learner))
    assert made[0] != made[1] == made[2]


def test_defaults_stop_nothing():
    assert (StageParams().early_stopping.patience, StageParams().overfitting.policy, StageParams().keep) == (None, "warn", "last")
