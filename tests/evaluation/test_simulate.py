"""Candidates whose truth is known before the real measure() and decide(): few pass by luck, and those that are better do."""

from __future__ import annotations

import json

import pytest

from pipeline.commands.gate import foresight_lines, simulation_lines
from pipeline.domain.gating import HoldoutPolicy
from pipeline.domain.simulation import NullShare, Simulation
from pipeline.errors import Misuse
from pipeline.evaluation.playing import Job, Scene, play
from pipeline.params import EvaluateParams, GateParams
from pipeline.steps.simulate import foresee, simulate

MEASURED = EvaluateParams(metrics=("exact_match",), resamples=400)
POLICY = GateParams(min_test_rows=60, better_than_base={"exact_match": 0.05})


TOO_MANY = NullShare(
    rule="thresholds",
    truth="no better",
    bound=0.5,
    rows=100,
    looks=1,
    spending="harmonic",
    families=100,
    passed=10,
    share=0.1,
    low=0.05,
    high=0.18,
    alpha=0.025,
)


@pytest.fixture(scope="module")
def found() -> Simulation:
    return simulate(MEASURED, POLICY, trials=60, workers=1, discordance=0.15, looks=8)


def test_luck_is_kept_within_what_is_allowed(found: Simulation) -> None:
    rules = {"better_than_champion", "not_worse_than_champion", "better_than_base", "thresholds"}
    assert {null.rule for null in found.nulls} == rules
    assert {(null.looks, null.spending) for null in found.nulls} == {(n, s) for n in (1, 8) for s in ("off", "harmonic")}
    assert found.sound
    assert {null.rows for null in found.nulls} == {60}
    counted = {(null.rule, null.looks, null.spending): null.passed for null in found.nulls}
    for rule in rules:
        assert counted[rule, 1, "harmonic"] <= counted[rule, 1, "off"]
        assert counted[rule, 8, "harmonic"] <= counted[rule, 8, "off"]
    late = [sum(n.passed for n in found.nulls if (n.looks, n.spending) == (8, s)) for s in ("harmonic", "off")]
    assert late[0] < late[1]  # reuse without spending is what passes noise


def test_better_candidates_pass_the_more_the_better_they_are(found: Simulation) -> None:
    for rule in ("better_than_champion", "not_worse_than_champion", "better_than_base"):
        curve = [point.share for point in found.power if point.rule == rule]
        assert len(curve) == 6
        assert curve[0] < 0.35
        assert curve[-1] > 0.9


def test_people_read_it_as_tables(found: Simulation) -> None:
    said = "\n".join(simulation_lines(found))
    assert "candidates that must not pass" in said
    assert "8 looks  harmonic" in said
    assert "more pass by luck" not in said
    assert "more pass by luck" in "\n".join(simulation_lines(found.model_copy(update={"nulls": (TOO_MANY,)})))
    told = foresee(MEASURED, POLICY, (100,), last={"exact_match": 0.052}, last_run="desk-0003")
    assert "desk-0003: exact_match could show 5.2 points" in foresight_lines(told)


def test_it_is_the_same_again_however_many_workers() -> None:
    once, again = (simulate(MEASURED, POLICY, trials=24, looks=2, workers=n, power=False, seed=3) for n in (1, 2))
    assert once.nulls == again.nulls


def test_a_test_below_what_params_ask_for_passes_nobody() -> None:
    job = Job(Scene("better_than_champion", 0.0, "champion", 0.4, 0.5, 0.4, 59), 0, 5, 1, 60, 200, 0.95, 7, HoldoutPolicy())
    assert play(job) == (0, 0, 0, 0)


def test_shares_that_cannot_be_are_refused() -> None:
    with pytest.raises(Misuse, match="no candidate differs"):
        simulate(MEASURED, GateParams(not_worse_than_champion={"exact_match": 0.2}), trials=10, workers=1)
    with pytest.raises(Misuse, match="no candidate differs"):
        simulate(MEASURED, POLICY, trials=10, workers=1, rate=1.0)


def test_a_share_is_judged_by_its_whole_interval() -> None:
    def share(low: float, high: float) -> NullShare:
        values = {"rule": "r", "truth": "", "bound": 0.0, "rows": 9, "looks": 1, "spending": "off", "families": 9, "passed": 1}
        return NullShare(**values, share=low, low=low, high=high, alpha=0.025)

    assert [share(0.01, 0.02).within, share(0.01, 0.03).within, share(0.03, 0.04).within] == ["yes", "unclear", "no"]


def test_what_can_be_seen_before_a_run() -> None:
    told = foresee(MEASURED, GateParams(not_worse_than_champion={"exact_match": 0.03}), (100, 400), last={}, last_run=None)
    seen = {(s.rows, s.discordance): s for s in told.sights}
    assert seen[400, 0.1].least < seen[100, 0.1].least < seen[100, 0.1].tenth
    assert 800 < (told.equal["not_worse_than_champion.exact_match"] or 0) < 1500
    json.dumps(told.model_dump(mode="json"))
    never = foresee(MEASURED, GateParams(not_worse_than_champion={"exact_match": 0.0}), (100,), last={}, last_run=None)
    assert never.equal == {"not_worse_than_champion.exact_match": None}
