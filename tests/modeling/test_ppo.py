"""PPO at work: what steps learn from, that nothing hangs on memory or a resume, that rewards rise, that hacked ones stop it."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import ppo_kit
import pytest
import torch
from modeling_kit import Remembering

from pipeline.errors import Misuse, RewardHacked
from pipeline.modeling.adapters.handshake import NAME
from pipeline.modeling.learning.learner import Learner, OwnRates
from pipeline.modeling.learning.ppo import learner as learner_module
from pipeline.modeling.learning.ppo.cast import VALUE, Cast
from pipeline.modeling.learning.ppo.hacking import check_answers
from pipeline.modeling.learning.ppo.rollouts import PassOrder, PromptOrder, Shuffled
from pipeline.modeling.loop.curves import Curves
from pipeline.modeling.loop.loop import Loop
from pipeline.params.learning import PpoParams
from pipeline.ports import silent

LANDS = ("It is in Norway.", "It is in Peru.", "It is in Italy.", "It is in Egypt.")


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory) -> Path:
    return ppo_kit.build_loud_base(tiny_base, tmp_path_factory.mktemp("loud") / "base")


@pytest.fixture(scope="module")
def taught(base):
    return ppo_kit.taught(base, LANDS)


@pytest.fixture
def policy(taught):
    return copy.deepcopy(taught)


def test_a_rollout_is_what_its_answers_say_one_by_one(base, policy):
    """Every number of a rollout again, from whole forward passes of each text by itself, by the formulas as they stand."""
    how = ppo_kit.stage(learning_rate=0.002, ppo={"kl": 0.1, "gamma": 0.9, "gae_lambda": 0.8, "temperature": 0.7})
    learner = ppo_kit.learner(base, how, tuned=policy)
    steps = ppo_kit.Steps(learner)
    steps.take(5)  # the second rollout: policy, reference and value differ
    cast = learner.model.eval()
    learner._now = None
    learner.begin_step(5, range(4))
    now, raw = learner._now, []
    assert now.number == 1
    for n, (text, answer) in enumerate(zip(learner._texts, now.answers, strict=True)):
        ids, size = torch.tensor([text.input_ids]), len(answer)
        with torch.no_grad():
            parts = []
            for part in (NAME, cast.reference):
                with cast.playing(part) as model:
                    logits = model(input_ids=ids).logits[0, -size - 1 : -1] / 0.7
                parts.append(torch.log_softmax(logits, -1)[range(size), answer])
            with cast.playing(VALUE) as model:
                hidden = model.get_base_model().model(input_ids=ids).last_hidden_state[0, -size - 1 : -1]
            values = cast.value_head(hidden).squeeze(-1)
        assert now.log_probs[n, :size].tolist() == pytest.approx(parts[0].tolist(), abs=1e-4)
        assert now.values[n, :size].tolist() == pytest.approx(values.tolist(), abs=1e-4)
        words = len(learner._asking.read(answer).split())
        rewards = (-0.1 * (parts[0] - parts[1])).tolist()
        rewards[-1] += max(0.0, 1 - abs(words - 2) / 2)
        ahead = [*values[1:].tolist(), 0.0]
        surprise = [r + 0.9 * later - v for r, later, v in zip(rewards, ahead, values.tolist(), strict=True)]
        found = [sum((0.9 * 0.8) ** (k - t) * surprise[k] for k in range(t, size)) for t in range(size)]
        assert now.returns[n, :size].tolist() == pytest.approx(
            [a + v for a, v in zip(found, values.tolist(), strict=True)], abs=1e-4
        )
        raw += found
    white = torch.cat([now.advantages[n, : len(answer)] for n, answer in enumerate(now.answers)])
    raw = torch.tensor(raw)
    assert white.tolist() == pytest.approx(((raw - raw.mean()) / raw.std(unbiased=False)).tolist(), abs=1e-3)


def test_before_the_first_update_nothing_has_moved(base, policy):
    learner = ppo_kit.learner(base, ppo_kit.stage(), tuned=policy)
    first = ppo_kit.Steps(learner).take(1)[0]
    assert first["kl"] == 0.0, "the policy is its own reference"
    assert first["clipped"] == 0.0
    assert first["update_kl"] == pytest.approx(0.0, abs=1e-9)
    assert first["kl_coefficient"] == learner.ppo.kl
    assert {"reward", "length", "repetition", "unended", "entropy", "value_loss"} <= first.keys()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_step_is_the_same_however_it_is_cut(base, policy, rows):
    learner = ppo_kit.learner(base, ppo_kit.stage(learning_rate=0.002, ppo={"entropy_weight": 0.01}), tuned=policy)
    ppo_kit.Steps(learner).take(2)  # by now the policy is not what answered
    whole, cut = ppo_kit.gradients(learner, 3, range(4), rows=4), ppo_kit.gradients(learner, 3, range(4), rows=rows)
    assert whole[0] == pytest.approx(cut[0], rel=1e-4, abs=1e-5)
    assert whole[1].keys() == ppo_kit.weights(learner.model).keys()
    for name, gradient in whole[1].items():
        assert float((gradient - cut[1][name]).norm()) <= 1e-4 * float(gradient.norm()) + 1e-7, name


def test_a_step_that_is_begun_again_finds_its_rollout(base, policy):
    learner = ppo_kit.learner(base, ppo_kit.stage(), tuned=policy)
    learner.begin_step(1, range(4))
    made = learner._now
    learner.begin_step(1, range(4))
    learner.begin_step(4, range(4))
    assert learner._now is made
    learner.begin_step(5, range(4))
    assert learner._now.number == 1


def run(base: Path, tuned, folder: Path, how, tracker=None) -> tuple[Loop, bytes]:
    """The real loop over a fresh learner in `folder`, and all weights that it trained, bit by bit."""
    torch.manual_seed(how.seed)
    held = ppo_kit.prompts(base, ["Where is Oslo", "Where is 99?"])
    learner = ppo_kit.learner(base, how, tuned=Cast(copy.deepcopy(tuned)), held=held)
    assert isinstance(learner, OwnRates)
    checked: Learner = learner
    drawn = Curves(tracker or Remembering(), folder, every=1)
    loop = Loop(checked, how, folder=folder, curves=drawn, progress=silent)
    loop.run()
    state = ppo_kit.weights(learner.model)
    return loop, b"".join(name.encode() + weight.numpy().tobytes() for name, weight in sorted(state.items()))


STEPS = 9
RESUMED = ppo_kit.stage(
    max_steps=STEPS,
    save_steps=1,
    keep_checkpoints=STEPS,
    eval_steps=3,
    learning_rate=0.003,
    dropout=0.0,
    ppo={"kl_target": 1.0, "value_learning_rate": 0.01},
)


@pytest.fixture(scope="module")
def uninterrupted(base, taught, tmp_path_factory):
    folder, tracker = tmp_path_factory.mktemp("whole"), Remembering()
    loop, weights = run(base, taught, folder, RESUMED, tracker)
    return folder, loop, weights, tracker


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_resume_at_any_step_ends_in_the_same_bytes(base, taught, uninterrupted, tmp_path, step):
    """Four steps learn from a rollout, so most resumes are in the middle of one."""
    whole, loop, weights, _ = uninterrupted
    shutil.copytree(whole / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    again, found = run(base, taught, tmp_path, RESUMED)
    assert again.curves.points == loop.curves.points
    assert again.measures == loop.measures
    assert found == weights


def test_curves_and_closing_measures_tell_what_became_of_the_reward(uninterrupted):
    _, loop, _, tracker = uninterrupted
    for name in ("reward", "kl", "entropy", "length", "repetition", "clipped", "value_loss", "kl_coefficient", "update_kl"):
        assert [step for step, _ in tracker.curve(name)] == list(range(1, STEPS + 1)), name
    evaluated = dict(tracker.curve("eval_loss"))
    assert sorted(evaluated) == [3, 6, 9]
    rewards, divergences = dict(tracker.curve("eval_reward")), dict(tracker.curve("eval_kl"))
    assert evaluated == pytest.approx({step: RESUMED.ppo.kl * divergences[step] - rewards[step] for step in rewards})
    assert tracker.curve("kl_coefficient")[0][1] == RESUMED.ppo.kl
    assert tracker.curve("kl_coefficient")[-1][1] != RESUMED.ppo.kl
    assert {"reward", "kl", "length", "start_reward"} <= loop.measures.keys()


def test_value_and_policy_have_rates_of_their_own(uninterrupted):
    _, loop, _, _ = uninterrupted
    names = {id(weight): name for name, weight in loop.learner.model.named_parameters()}
    rates = {names[id(w)]: group["initial_lr"] for group in loop.optimizer.param_groups for w in group["params"]}
    assert {rate for name, rate in rates.items() if f".{VALUE}." in name or name.startswith("value_head")} == {0.01}
    assert {rate for name, rate in rates.items() if f".{NAME}." in name} == {0.003}


def test_measuring_is_always_the_same_and_draws_nothing(base, policy):
    learner = ppo_kit.learner(base, ppo_kit.stage(), tuned=policy, held=ppo_kit.prompts(base, ["Where is Rome", "hello there"]))
    state = torch.random.get_rng_state()
    found = [learner.evaluate(rows) for rows in (1, 2, 2)]
    assert found[1] == found[2]
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert ppo_kit.learner(base, ppo_kit.stage(), tuned=learner.model).evaluate(4) == {}


def test_the_reward_rises_and_the_divergence_stays_in_its_bound(base, policy):
    ppo = {"rewards": ({"rule": "length", "words": 2},), "rollouts": 32, "epochs": 3, "max_new_tokens": 12, "kl": 0.02}
    how = ppo_kit.stage(batch_size=16, learning_rate=0.0015, ppo=ppo | {"kl_bound": 15.0})
    learner = ppo_kit.learner(base, how, tuned=policy)
    found = ppo_kit.Steps(learner).take(8 * 6)[::6]
    first, last = (sum(step["reward"] for step in some) / len(some) for some in (found[:2], found[-3:]))
    assert last > first + 0.12
    assert 0.5 < max(step["kl"] for step in found) < 15.0
    measures, alarms = learner.closing()
    assert measures["reward"] > measures["start_reward"]
    assert alarms == ()


GREEDY = {"rollouts": 32, "epochs": 2, "kl": 0.0}
"""Nothing holds the policy back."""
LONG = {"rewards": ({"rule": "length", "words": 1000, "weight": 50.0},), "max_new_tokens": 40, "longest_growth": 1.5}
REPEATED = {"rewards": ({"rule": "not_repeating", "weight": -1.0},), "max_new_tokens": 24, "most_repetition": 0.45}
FAR = {"rewards": ({"rule": "length", "words": 1},), "max_new_tokens": 12, "kl_bound": 4.0}
HACKABLE = [
    (None, LONG, "times as long as at the start"),
    (("no no no no no no no no", "It is in Peru."), REPEATED, "of what its answers say repeats"),
    (None, FAR, r"divergence from the start is [\d.]+ nats an answer, above ppo.kl_bound \(4\)"),
]


@pytest.mark.parametrize(("answers", "ppo", "said"), HACKABLE)
def test_a_reward_that_is_hacked_stops_the_run(base, policy, answers, ppo, said):
    """The reward is one that a model can earn without doing what is wanted, and it does."""
    how = ppo_kit.stage(batch_size=16, learning_rate=0.004, ppo=GREEDY | ppo)
    steps = ppo_kit.Steps(ppo_kit.learner(base, how, tuned=ppo_kit.taught(base, answers) if answers else policy))
    with pytest.raises(RewardHacked, match=said) as caught:
        steps.take(80)
    assert "before step" in str(caught.value)
    assert "raise ppo.kl" in str(caught.value)
    before, after = re.search(r"the reward went from (-?[\d.]+) to (-?[\d.]+)", str(caught.value)).groups()
    assert float(after) > float(before)


def test_what_the_last_steps_made_is_looked_at_too(base, policy):
    how = ppo_kit.stage(batch_size=16, learning_rate=0.05, ppo=GREEDY | FAR)
    learner = ppo_kit.learner(base, how, tuned=policy)
    ppo_kit.Steps(learner).take(4)
    with pytest.raises(RewardHacked, match=r"in a rollout after the last step, 4, .*kl_bound"):
        learner.closing()


def test_a_hacked_run_leaves_its_checkpoints_and_says_the_same_when_run_again(base, taught, tmp_path):
    how = ppo_kit.stage(batch_size=16, learning_rate=0.05, max_steps=12, save_steps=2, eval_steps=100, ppo=GREEDY | FAR)
    said = []
    for _ in range(2):
        with pytest.raises(RewardHacked, match=r"in rollout 2, before step 5, .*kl_bound") as caught:
            run(base, taught, tmp_path, how)
        said.append(str(caught.value))
        assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    assert said[0] == said[1]


CALM = {"reward": 0.5, "kl": 1.0, "length": 20.0, "repetition": 0.1}
JUDGED = [
    ({}, None),
    ({"kl": 20.0, "length": 60.0, "repetition": 0.6}, None),  # at the bounds, not above
    ({"kl": 20.1}, "20.10 nats an answer, above ppo.kl_bound"),
    ({"kl": float("nan")}, "kl_bound"),
    ({"length": 60.5}, "3.0 times as long as at the start, 60.5 tokens"),
    ({"repetition": 0.61}, "61% of what its answers say repeats, 10% at the start"),
    ({"kl": 30.0, "length": 90.0}, "kl_bound.*longest_growth"),
]


@pytest.mark.parametrize(("changes", "said"), JUDGED)
def test_answers_are_judged_by_their_bounds(changes, said):
    if said is None:
        check_answers(CALM | changes, CALM, PpoParams(), when="now")
    else:
        with pytest.raises(RewardHacked, match=said):
            check_answers(CALM | changes, CALM, PpoParams(), when="now")


def test_a_start_that_repeats_itself_may_go_on_to():
    start = CALM | {"repetition": 0.8}
    check_answers(start | {"repetition": 0.78}, start, PpoParams(), when="now")


def test_every_prompt_is_asked_once_before_any_is_asked_again():
    prompts = PromptOrder(Shuffled(10, seed=3), 4)
    asked = [item for number in range(5) for item in prompts.of(number)]
    assert sorted(asked[:10]) == sorted(asked[10:]) == list(range(10))
    assert asked[:10] != asked[10:]
    assert [prompts.of(number) for number in (3, 0, 4)] == [asked[12:16], asked[:4], asked[16:]], (
        "in whatever order they are asked"
    )
    few = PromptOrder(Shuffled(3, seed=3), 8).of(0)
    assert sorted(few[:6]) == [0, 0, 1, 1, 2, 2]


def test_each_pass_goes_over_all_answers_of_one_rollout():
    order = PassOrder(rollouts=2, size=6, passes=3, seed=7)
    places = list(order)
    assert len(places) == len(order) == 36
    passes = [places[start : start + 6] for start in range(0, 36, 6)]
    assert all(sorted(some) == list(range(6)) for some in passes)
    assert len({tuple(some) for some in passes}) > 1
    order.epoch = 1
    assert list(order) != places


def test_a_rollout_that_does_not_divide_into_steps_is_refused(base, policy):
    with pytest.raises(Misuse, match="8 answers of a rollout do not divide into optimizer steps of 3"):
        ppo_kit.learner(base, ppo_kit.stage(batch_size=3), tuned=policy)


def test_no_more_answers_are_in_memory_at_once_than_the_loop_allows(base, policy, monkeypatch):
    """Answers are drawn again with fewer rows when memory ran out, and are the same."""
    asked = []

    def answer(*args, rows, **more):
        asked.append(rows)
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, rows=rows, **more)

    real = learner_module.answer
    plenty = ppo_kit.learner(base, ppo_kit.stage(), tuned=copy.deepcopy(policy))
    plenty.begin_step(1, range(4))
    monkeypatch.setattr(learner_module, "answer", answer)
    learner = ppo_kit.learner(base, ppo_kit.stage(), tuned=policy)
    with pytest.raises(torch.OutOfMemoryError):
        learner.begin_step(1, range(4))
    learner.rows = 2
    learner.begin_step(1, range(4))
    assert asked == [4, 2]
    assert learner._now.answers == plenty._now.answers
