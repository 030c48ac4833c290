"""The loop of a sweep with trainings that are plain functions: budget, pruning, failures, kills. The study is the real one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.optuna import OptunaStudy
from pipeline.domain.sweeping import Dimension, Trial, ranked
from pipeline.errors import Broken, CapReached, Misuse, TrainingDiverged, TryLater
from pipeline.ports import Study
from pipeline.steps import sweep as step
from pipeline.steps.sweep import Budget, Pruned, Sitting, Watched, sweep

SPACE = {
    "learning_rate": Dimension(low=1e-5, high=1e-1, log=True),
    "rank": Dimension(low=2, high=64, whole=True, log=True),
    "scheduler": Dimension(choices=("linear", "cosine")),
}
OWN = {"learning_rate": 1e-4, "rank": 8, "scheduler": "linear"}


class Silent:
    """A tracked run that remembers its numbers."""

    run_id = "run"

    def __init__(self) -> None:
        self.seen: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        self.seen.append((step, dict(metrics)))


def loss(point: Mapping[str, Any]) -> float:
    return (
        (math.log10(point["learning_rate"]) + 3) ** 2 + abs(math.log2(point["rank"]) - 4) / 4 + (point["scheduler"] == "cosine")
    )


def open_study(folder: Path, **changes: Any) -> Study:
    settings = {"least": True, "pruning": "median", "seed": 3} | changes
    return OptunaStudy(folder / "study.db", "one", SPACE, **settings)


def training(study: Study, at: Callable[[int, int], None] | None = None, steps: int = 3) -> Callable[[Sitting], float]:
    """Evaluates three times on the way down to `loss`, from the evaluation on that is not there yet. at: called before each."""

    def train(sitting: Sitting) -> float:
        watched = Watched(Silent(), study, sitting, measure="eval_loss", stage=None, prunable=sitting.trial.point != OWN)
        for done in range(len(sitting.trial.measured) + 1, steps + 1):
            if at is not None:
                at(sitting.trial.number, done)
            watched.log_metrics({"loss": 1.0}, step=10 * done)
            watched.log_metrics({"eval_loss": loss(sitting.trial.point) + 1 / done}, step=10 * done)
        return loss(sitting.trial.point)

    return train


def run(folder: Path, trials: int = 10, at: Callable[[int, int], None] | None = None, own: Any = OWN, **changes: Any) -> Study:
    study = open_study(folder, **changes)
    assert "were run" in sweep(study, training(study, at), Budget(trials), own=own, say=lambda line: None)
    return study


def untimed(study: Study) -> list[Trial]:
    return [trial.model_copy(update={"seconds": 0.0}) for trial in study.trials()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    return untimed(run(tmp_path_factory.mktemp("whole")))


def test_the_params_own_point_comes_first_and_is_trained_to_its_end(whole: list[Trial]) -> None:
    assert (whole[0].point, whole[0].state) == (OWN, "finished")
    assert len(whole) == 10


def test_bad_trials_end_early_and_the_best_is_better_than_the_params(whole: list[Trial]) -> None:
    pruned = [trial for trial in whole if trial.state == "pruned"]
    assert pruned
    assert all(len(trial.measured) < 3 and trial.value is None for trial in pruned)
    best = ranked(tuple(whole), least=True)[0]
    assert best.value is not None
    assert best.value < loss(OWN)
    assert best.value == min(trial.value for trial in whole if trial.value is not None)


def test_every_point_lies_in_the_space_is_new_and_is_as_short_as_it_is_written(whole: list[Trial]) -> None:
    for trial in whole:
        assert all(SPACE[key].holds(value) for key, value in trial.point.items())
        assert len(f"{trial.point['learning_rate']:.4g}") >= len(repr(trial.point["learning_rate"]).rstrip("0")) - 3
        assert float(f"{trial.point['learning_rate']:.4g}") == trial.point["learning_rate"]
    assert len({trial.key for trial in whole}) == len(whole)


def test_the_same_seed_tries_the_same_and_another_does_not(whole: list[Trial], tmp_path: Path) -> None:
    other = untimed(run(tmp_path, trials=3, seed=4))
    assert [trial.point for trial in whole[:3]] != [trial.point for trial in other]
    assert untimed(run(tmp_path / "same", trials=5)) == whole[:5]


@pytest.mark.parametrize("kill", [(0, 2), (2, 1), (9, 1)])
def test_a_killed_sweep_goes_on_as_if_nothing_had_been(whole: list[Trial], tmp_path: Path, kill: tuple[int, int]) -> None:
    """The plug is pulled before an evaluation of some trial; the next sitting takes that very trial up again."""
    if len(whole[kill[0]].measured) < kill[1]:
        pytest.skip("this trial was pruned before")

    def pull(number: int, evaluation: int) -> None:
        if (number, evaluation) == kill and not pulled:
            pulled.append(number)
            raise KeyboardInterrupt

    pulled: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, at=pull)
    assert untimed(run(tmp_path, at=pull)) == whole


def test_a_trial_killed_between_verdict_and_deed_is_pruned_and_not_trained(tmp_path: Path, whole: list[Trial]) -> None:
    number = next(trial.number for trial in whole if trial.state == "pruned")
    study = run(tmp_path, trials=number)
    begun = study.begin(None)
    assert begun is not None
    assert study.report(number, 10, whole[number].measured[0])

    def untouched(number: int, evaluation: int) -> None:
        raise AssertionError("it was trained")

    sweep(study, training(study, untouched), Budget(number + 1), own=OWN, say=lambda line: None)
    assert study.trials()[number].state == "pruned"


def test_an_evaluation_that_is_told_twice_counts_once(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.begin(OWN)
    for value in (3.0, 2.0):
        study.report(0, 10, value)
    study.report(0, 20, 1.5)
    assert study.trials()[0].measured == (3.0, 1.5)


def test_more_trials_go_on_from_those_there_are(whole: list[Trial], tmp_path: Path) -> None:
    run(tmp_path, trials=6)
    assert untimed(run(tmp_path, trials=10)) == whole


def test_own_params_outside_the_space_are_not_tried(tmp_path: Path) -> None:
    assert run(tmp_path, trials=2, own=None).trials()[0].point != OWN


def test_a_small_space_is_gone_through_once(tmp_path: Path) -> None:
    space = {"rank": Dimension(choices=(4, 8)), "dora": Dimension(choices=(True, False))}
    study = OptunaStudy(tmp_path / "study.db", "small", space, least=True, pruning="off", seed=1)
    ended = sweep(study, lambda sitting: float(sitting.trial.point["rank"]), Budget(50), own=None, say=lambda line: None)
    assert "no point of the space is left" in ended
    assert sorted((t.point["rank"], t.point["dora"]) for t in study.trials()) == [(4, False), (4, True), (8, False), (8, True)]


def test_what_diverges_has_failed_and_the_sweep_goes_on(tmp_path: Path) -> None:
    def diverge(number: int, evaluation: int) -> None:
        if number in (1, 3):
            raise TrainingDiverged("the loss is NaN")

    trials = run(tmp_path, trials=5, at=diverge).trials()
    assert [trial.number for trial in trials if trial.state == "failed"] == [1, 3]
    assert trials[1].note == "the loss is NaN"


def test_failures_in_a_row_end_it_with_the_reason(tmp_path: Path) -> None:
    def fail(number: int, evaluation: int) -> None:
        raise Misuse("the base has room for 64 tokens")

    with pytest.raises(Misuse, match=r"last 3 trials failed.*room for 64 tokens"):
        run(tmp_path, at=fail)


@pytest.mark.parametrize("error", [TryLater("stopped by SIGTERM"), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_trial_leaves_it_to_be_taken_up(tmp_path: Path, error: BaseException) -> None:
    def stop(number: int, evaluation: int) -> None:
        if number == 2:
            raise error

    with pytest.raises(type(error)):
        run(tmp_path, at=stop)
    assert [trial.state for trial in open_study(tmp_path).trials()] == ["finished", "finished", "running"]


def test_what_is_broken_ends_the_sweep_and_is_not_broken_on_again(tmp_path: Path) -> None:
    def break_once(number: int, evaluation: int) -> None:
        if number == 1:
            raise Broken("the disk is full")

    with pytest.raises(Broken, match="disk is full"):
        run(tmp_path, trials=3, at=break_once)
    assert [trial.state for trial in run(tmp_path, trials=3, at=break_once).trials()] == ["finished", "failed", "finished"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(step.time, "monotonic", lambda: now[0])
    return now


def test_the_budget_of_hours_ends_in_the_middle_of_a_trial_which_then_goes_on(tmp_path: Path, clock: list[float]) -> None:
    study = open_study(tmp_path, pruning="off")

    def train(sitting: Sitting) -> float:
        begun, hours[:] = clock[0], [*hours, sitting.hours]
        for _ in range(10):
            clock[0] += 100
            if sitting.trial.seconds + clock[0] - begun >= 1000:
                return 1.0
            if sitting.trial.seconds + clock[0] - begun >= sitting.hours * 3600:
                raise CapReached("the hours are over")
        raise AssertionError

    hours: list[float] = []
    ended = sweep(study, train, Budget(5, 2500), own=OWN, say=lambda line: None)
    assert "trial 2 goes on when it is raised" in ended
    assert [trial.state for trial in study.trials()] == ["finished", "finished", "running"]
    assert [round(trial.seconds) for trial in study.trials()] == [1000, 1000, 500]
    assert "is spent" in sweep(study, train, Budget(5, 2500), own=OWN, say=lambda line: None)
    assert len(hours) == 3
    sweep(study, train, Budget(3, 9000), own=OWN, say=lambda line: None)
    assert [round(trial.seconds) for trial in study.trials()] == [1000, 1000, 1000]
    # A cap on a training counts all its sittings, so what the trial had taken is added to what is left.
    assert [round(found * 3600) for found in hours] == [2500, 1500, 500, 500 + 6500]


def test_a_cap_of_trains_own_fails_the_trial_alone(tmp_path: Path) -> None:
    def slow(number: int, evaluation: int) -> None:
        if number == 1:
            raise CapReached("train.max_hours is reached")

    assert [t.state for t in run(tmp_path, trials=3, at=slow, pruning="off").trials()] == ["finished", "failed", "finished"]


def test_of_a_chain_the_last_stage_is_watched(tmp_path: Path) -> None:
    study, tracker = open_study(tmp_path), Silent()
    trial = study.begin(OWN)
    assert trial is not None
    watched = Watched(tracker, study, Sitting(study, trial, math.inf), measure="eval_loss", stage="dpo", prunable=True)
    watched.log_metrics({"sft.eval_loss": 9.0}, step=5)
    watched.log_metrics({"dpo.eval_loss": 1.0}, step=5)
    watched.log_metrics({"dpo.final_eval_loss": 0.5})
    assert study.trials()[0].measured == (1.0,)
    assert len(tracker.seen) == 3
    assert watched.run_id == "run"


def test_a_measure_that_the_objective_does_not_have_is_named(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    trial = study.begin(OWN)
    assert trial is not None
    watched = Watched(Silent(), study, Sitting(study, trial, math.inf), measure="eval_accuracy", stage=None, prunable=True)
    with pytest.raises(Misuse, match="does not measure"):
        watched.log_metrics({"eval_loss": 1.0, "eval_token_accuracy": 0.5}, step=5)


def test_more_can_be_better_and_halving_prunes(tmp_path: Path) -> None:
    study = OptunaStudy(tmp_path / "study.db", "one", SPACE, least=False, pruning="halving", seed=3)

    def train(sitting: Sitting) -> float:
        for done in range(1, 4):
            value = -loss(sitting.trial.point)
            if study.report(sitting.trial.number, done, value) and sitting.trial.point != OWN:
                raise Pruned
        return value

    sweep(study, train, Budget(10), own=OWN, say=lambda line: None)
    trials = study.trials()
    assert {trial.state for trial in trials} == {"finished", "pruned"}
    assert ranked(trials, least=False)[0].value == max(trial.value for trial in trials if trial.value is not None)


def test_trials_under_way_together_are_all_run_once_within_the_budget(tmp_path: Path) -> None:
    study, meeting = open_study(tmp_path, pruning="off"), threading.Barrier(3, timeout=60)
    most, now, lock = [0], [0], threading.Lock()

    def train(sitting: Sitting) -> float:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        if sitting.trial.number < 3:
            meeting.wait()  # which none would leave, were they one after the other
        value = training(study)(sitting)
        with lock:
            now[0] -= 1
        return value

    said = sweep(study, train, Budget(7), own=OWN, say=lambda line: None, at_once=3)
    assert said == "all 7 trials were run"
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(7))
    assert {trial.state for trial in trials} == {"finished"}
    assert trials[0].point == OWN
    assert len({trial.key for trial in trials}) == 7
    assert most == [3]


def test_what_breaks_one_trial_stops_those_beside_it_and_they_are_taken_up_again(tmp_path: Path) -> None:
    study, broken = open_study(tmp_path, pruning="off"), threading.Event()

    def train(sitting: Sitting) -> float:
        if sitting.trial.number == 0 and not broken.is_set():
            broken.set()
            raise TryLater("the cluster is gone")
        watched = Watched(Silent(), study, sitting, measure="eval_loss", stage=None, prunable=False)
        deadline = time.monotonic() + 60
        while not done.is_set() and time.monotonic() < deadline:
            watched.log_metrics({"loss": 1.0}, step=1)
            time.sleep(0.01)
        return loss(sitting.trial.point)

    done = threading.Event()
    with pytest.raises(TryLater, match="the cluster is gone"):
        sweep(study, train, Budget(2), own=OWN, say=lambda line: None, at_once=2)
    assert {trial.state for trial in study.trials()} == {"running"}
    done.set()
    assert sweep(study, train, Budget(2), own=OWN, say=lambda line: None, at_once=2) == "all 2 trials were run"
    assert [trial.state for trial in study.trials()] == ["finished", "finished"]
