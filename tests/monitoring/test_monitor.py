"""The monitor: windows of a release's requests are judged once, noted, and told when enough of them have fired."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watched_world import MODEL, RELEASE, START, Watching

from pipeline.curation.canary_prompts import read_canary_prompts
from pipeline.domain.data import Task
from pipeline.domain.monitoring import CanaryPrompt, alarm_states, hour_of
from pipeline.domain.notices import NoticeKind
from pipeline.domain.signals import SignalKind
from pipeline.errors import BadInput, TryLater
from pipeline.evaluation.monitoring import canary_answer, cost, latency, share

TOPICS = {"card": "card pin lost new chip stolen order replace", "loan": "loan rate month pay back sum credit house"}
SMALL = {"window": {"requests": 60}, "reference_rows": 100}


def rows(count: int, seed: int, topics: str = "card loan") -> list[tuple[str, str]]:
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        topic = dice.choice(topics.split())
        words = dice.sample(TOPICS[topic].split(), 3) + dice.sample("abcdefghij", 3)
        dice.shuffle(words)
        made.append((" ".join(words), topic))
    return made


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    return Watching(tmp_path, rows(400, 1), **SMALL)


def fired(watching: Watching, what: SignalKind) -> list[bool]:
    return [signal.fired for signal in watching.world.run_book.recent(MODEL, what, count=100)]


def test_a_window_is_judged_once_when_it_is_full(watching: Watching) -> None:
    watching.asked(rows(150, 2))
    seen = watching.look()
    assert [report.requests for report in seen.reports] == [60, 60]
    assert [report.snapshot for report in seen.reports] == [watching.snapshot.digest] * 2
    assert watching.look().reports == ()
    watching.asked(rows(30, 3))
    [third] = watching.look().reports
    assert third.begin == START + timedelta(seconds=121)
    assert fired(watching, SignalKind.DRIFT) == [False] * 3
    page = seen.page.read_text()
    assert "Nothing stands after 3 windows" in page
    assert watching.told.notices == []


def odd(seed: int) -> list[tuple[str, str]]:
    """Questions about one topic only, answered as mixed ones are."""
    return [(text, answer) for (text, _), (_, answer) in zip(rows(60, seed, "card"), rows(60, seed), strict=True)]


def test_drift_is_told_once_enough_windows_have_fired_and_once_it_is_over(watching: Watching) -> None:
    watching.asked(rows(60, 2))
    watching.asked(odd(3))
    assert watching.look().alarms == (), "one odd window is no alarm"
    assert watching.told.notices == []
    watching.asked(odd(4))
    [alarm] = watching.look().alarms
    assert (alarm.what, alarm.release, alarm.began) == (SignalKind.DRIFT, RELEASE, True)
    [notice] = watching.told.notices
    assert notice.kind is NoticeKind.DRIFT
    assert "what is asked has drifted: " in notice.title
    watching.asked(odd(5))
    assert [alarm.began for alarm in watching.look().alarms] == [False]
    assert len(watching.told.notices) == 1, "it stands, and was told"
    watching.asked(rows(120, 6))
    assert watching.look().alarms == ()
    assert "as it should be again" in watching.told.notices[-1].title
    assert fired(watching, SignalKind.DRIFT) == [False, True, True, True, False, False]


def test_answers_are_compared_with_the_release_s_own_first_ones(watching: Watching) -> None:
    watching.asked(rows(120, 2))
    watching.asked([(text, "card") for text, _ in rows(120, 3)])
    seen = watching.look().reports
    judged = [report.measure(SignalKind.ANSWERS) for report in seen]
    assert [(m.judged, m.fired) for m in judged if m] == [(False, False), (False, False), (True, True), (True, True)]
    assert [alarm.what for alarm in watching.look().alarms] == [SignalKind.ANSWERS]
    kept = (watching.world.project.monitor / MODEL / "000001" / "first-answers.json").read_text()
    assert "pin" not in kept, "no text is kept of what was answered"


def test_failures_json_times_and_cost_are_held_to_params(tmp_path: Path) -> None:
    asked = {"p95_seconds": 0.5, "price": {"prompt": 10.0, "answer": 100.0}, "cost_per_thousand": 1.0, "text": "off"}
    watching = Watching(tmp_path, rows(200, 1), Task.GENERATE, **SMALL, **asked)
    good = {"endpoint": "chat", "json_wanted": True, "json_valid": (True,), "finish": ("stop",), "answer_tokens": 2}
    watching.asked(rows(60, 2), **good)
    watching.asked(rows(50, 3), **good)
    watching.asked(rows(5, 3), **(good | {"json_valid": (False,)}))
    watching.asked(rows(5, 3), **(good | {"answered": (), "json_valid": (), "finish": (), "error": "internal_error"}))
    watching.asked(rows(60, 4), **(good | {"seconds": 0.9, "answer_tokens": 2000}))
    fine, broken, slow = watching.look().reports
    assert fine.fired == ()
    assert [(m.what, m.amount) for m in broken.fired] == [(SignalKind.FORMAT, 10 / 60)]
    assert (broken.errors, broken.answers) == (5, 55)
    assert {m.what for m in slow.fired} == {SignalKind.LATENCY, SignalKind.COST}
    assert slow.p95 == 0.9
    assert slow.cost == pytest.approx(60 * 2000 * 100 / 1e6, rel=0.01)


def test_windows_by_the_hour_close_when_their_hour_is_over(tmp_path: Path) -> None:
    watching = Watching(tmp_path, rows(200, 1), window={"hours": 0.01}, reference_rows=100)
    watching.asked(rows(100, 2))
    assert [report.requests for report in watching.look().reports] == [35, 36, 29], "36 seconds each, from the full hour on"
    begin, end = hour_of(START + timedelta(seconds=40), 0.01)
    assert (begin, end) == (START + timedelta(seconds=36), START + timedelta(seconds=72))


def test_lines_that_are_none_are_counted_and_others_releases_kept_apart(watching: Watching) -> None:
    watching.asked(rows(30, 2))
    watching.asked(rows(60, 2), release=f"{MODEL}@2")
    [file] = watching.world.project.requests.iterdir()
    with file.open("a") as log:
        log.write('{"at": "now"}\nno json\n{"half": ')
    seen = watching.look()
    assert [report.release for report in seen.reports] == [f"{MODEL}@2"]
    assert seen.reports[0].snapshot is None, "the ledger knows no version 2, and the monitor says what it can"
    assert seen.refused == 2


def test_canary_prompts_are_asked_and_their_answers_left_out_of_windows(watching: Watching, tmp_path: Path) -> None:
    prompts = tmp_path / "canaries.jsonl"
    prompts.write_text(
        '{"name": "lost", "text": "card lost", "expect": "card"}\n{"name": "rate", "text": "loan rate", "pattern": "^lo"}\n'
    )
    watching.params = watching.params.model_copy(
        update={"monitor": watching.params.monitor.model_copy(update={"canary_prompts": "canaries.jsonl"})}
    )
    answers = {"card lost": "card", "loan rate": "card"}

    def answerer(prompt: CanaryPrompt) -> tuple[str, str, str]:
        if prompt.name == "rate" and len(watching.told.notices) > 5:
            raise TryLater("gone")
        watching.asked([(str(prompt.asked), answers[str(prompt.asked)])])
        return f"classify-{watching._number:09d}", RELEASE, answers[str(prompt.asked)]

    watching.asked(rows(59, 2))
    first = watching.look(answerer=answerer)
    assert first.reports == (), "59 and two of our own are no 60"
    assert [(answer.name, answer.passed) for answer in first.canaries] == [("lost", True), ("rate", False)]
    assert first.alarms == ()
    from pipeline.monitoring import watch

    again = watch(watching.world, watching.params, notifier=watching.told, answerer=answerer, now=START + timedelta(days=3))
    assert [alarm.what for alarm in again.alarms] == [SignalKind.CANARY]
    [notice] = watching.told.notices
    assert (notice.kind, "rate" in notice.title) == (NoticeKind.UNHEALTHY, True)


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "x"}',
        '{"prompt": "x", "expect": "y", "pattern": "z"}',
        '{"expect": "y"}',
        '{"prompt": "x", "pattern": "("}',
        '{"prompt": "x", "expect": "y", "more": 1}',
        "[1]",
        '{"prompt": "x", "expect": "y", "expect": "z"}',
        "",
    ],
)
def test_files_that_hold_no_canary_prompts_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "canaries.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(BadInput):
        read_canary_prompts(path)


def test_a_canary_answer_holds_or_says_why_not() -> None:
    def why(answer: str, **wanted: object) -> str:
        return canary_answer(CanaryPrompt(name="n", asked="q", **wanted), answer).why  # type: ignore[arg-type]

    assert why(" nine \n", expect="nine") == ""
    assert why("ten", expect="nine") == "not what is expected"
    assert why("at nine", pattern="nine|9") == ""
    assert why("x" * 40 + "!", pattern="(x+x+)+y") in ("the pattern took more than 1 s", "the pattern is not in it")
    assert why('{"a": 1, "b": 2}', fields={"a": 1}) == ""
    assert why('{"a": 2}', fields={"a": 1, "c": 3}) == "differs in a, c"
    assert why("a", fields={"a": 1}) == "no JSON"


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4), st.integers(0, 3))
def test_an_alarm_needs_enough_of_the_last_windows_and_the_newest_to_begin(seen: list[bool], least: int, more: int) -> None:
    of = least + more
    states = alarm_states(seen, least=least, of=of)
    for at, stands in enumerate(states):
        enough = sum(seen[max(0, at + 1 - of) : at + 1]) >= least
        assert not stands or enough
        if enough and seen[at]:
            assert stands
        if stands and (at == 0 or not states[at - 1]):
            assert seen[at]


def test_shares_times_and_costs_fire_beyond_chance_only() -> None:
    def bad(count: int, of: int) -> bool:
        return share(SignalKind.FORMAT, count, of, allowed=0.02, false_alarms=0.01, said="rows").fired

    assert not bad(2, 30), "two of thirty may well be chance"
    assert bad(4, 30)
    assert not bad(0, 0)
    assert not latency([0.1] * 95 + [9.0] * 5, p95=1.0, false_alarms=0.01).fired
    assert latency([0.1] * 85 + [9.0] * 15, p95=1.0, false_alarms=0.01).fired
    assert not latency([9.0] * 100, p95=None, false_alarms=0.01).fired
    assert not cost([0.001, 0.0011] * 50, per_thousand=1.05, false_alarms=0.01).fired
    assert cost([0.001, 0.0012] * 50, per_thousand=1.05, false_alarms=0.01).fired


def test_two_monitors_of_a_model_do_not_run_at_once(watching: Watching) -> None:
    from pipeline.backends.run_locks import one_run_at_a_time

    with one_run_at_a_time(watching.world.project, f"{MODEL}.monitor"), pytest.raises(TryLater):
        watching.look()
