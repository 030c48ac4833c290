"""Drift of what is asked: 150 questions a window of another assistant are told at once; fresh questions of the same kind are not,
over hundreds of windows. Slow; `make drill-monitor`. The rows are real: BANKING77 and CLINC150."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from scipy.stats import beta

from pipeline.domain.monitoring import alarm_states
from pipeline.domain.signals import SignalKind

sys.path.append(str(Path(__file__).parents[1] / "monitoring"))

from watched_world import MODEL, Watching, banking77, clinc150

WINDOW = 150
READ = 2500
"""Rows that the training read; the 7,503 others are 50 windows."""
SEEDS = 4
PARAMS = {"window": {"requests": WINDOW}, "reference_rows": 1000}


def interval(hits: int, of: int) -> str:
    """Clopper and Pearson's, 95 %."""
    low = float(beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return f"{hits} of {of}, {hits / of:.2%} ({low:.2%} to {high:.2%})"


def seen(watching: Watching, what: SignalKind = SignalKind.DRIFT) -> list[bool]:
    return [signal.fired for signal in watching.world.run_book.recent(MODEL, what, count=10_000)]


def alarms(fired: Sequence[bool]) -> int:
    states = alarm_states(fired, least=2, of=3)
    return sum(state and not (at and states[at - 1]) for at, state in enumerate(states))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(7200)
def test_fresh_questions_stay_silent_and_another_assistant_s_do_not(real_data: Path, tmp_path: Path) -> None:
    quiet: list[bool] = []
    told = 0
    for seed in range(SEEDS):
        rows = banking77(real_data, seed)
        watching = Watching(tmp_path / f"fresh-{seed}", rows[:READ], **PARAMS)
        watching.asked(rows[READ : READ + 50 * WINDOW])
        watched = watching.look()
        fired = seen(watching)
        assert len(fired) == len(watched.reports) == 50
        assert watched.alarms == ()
        assert watching.told.notices == [], f"seed {seed}: an alarm in vain"
        quiet += fired
        told += alarms(fired)
    rows, strange = banking77(real_data, 0), clinc150(real_data, 0)
    watching = Watching(tmp_path / "strange", rows[:READ], **PARAMS)
    watching.asked([(text, rows[0][1]) for text, _ in strange[: 50 * WINDOW]])
    watched = watching.look()
    others = seen(watching)
    print(
        f"\nfresh BANKING77: windows that fired {interval(sum(quiet), len(quiet))}; alarms {interval(alarms(quiet), len(quiet))}"
    )
    print(f"CLINC150 asked of it: windows that fired {interval(sum(others), len(others))}")
    assert sum(quiet) <= 0.05 * len(quiet), "beyond five times the rate that is promised"
    assert others == [True] * 50
    assert [alarm.what for alarm in watched.alarms] == [SignalKind.DRIFT]
    assert watching.told.notices[0].title.startswith(f"{MODEL}@1: what is asked has drifted")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", [0.1, 0.25, 0.5])
def test_how_much_of_a_shift_is_seen(real_data: Path, tmp_path: Path, part: float) -> None:
    """Not asserted but for the half: what a window of 150 can show."""
    rows, strange = banking77(real_data, 1), clinc150(real_data, 1)
    watching = Watching(tmp_path / "mixed", rows[:READ], **PARAMS)
    odd = int(part * WINDOW)
    for number in range(20):
        mine = rows[READ + number * WINDOW : READ + (number + 1) * WINDOW - odd]
        watching.asked([*mine, *((text, rows[0][1]) for text, _ in strange[number * odd : (number + 1) * odd])])
    watching.look()
    fired = seen(watching)
    print(f"\n{part:.0%} of a window from CLINC150: windows that fired {interval(sum(fired), len(fired))}")
    assert len(fired) == 20
    if part == 0.5:
        assert all(fired)


@pytest.mark.slow
@pytest.mark.real
def test_a_monitor_that_looked_at_nothing_would_be_found_out(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: windows are compared with the traffic itself, as a monitor whose reference moves along would do."""
    import pipeline.steps.monitor as step

    rows, strange = banking77(real_data, 0), clinc150(real_data, 0)
    watching = Watching(tmp_path / "strange", rows[:READ], **PARAMS)
    watching.asked([(text, rows[0][1]) for text, _ in strange[: 3 * WINDOW]])
    before = step._inputs

    def moving(requests, params, snapshot, reference, drawn):  # type: ignore[no-untyped-def]
        from pipeline.comparing import Side

        texts = step.asked_texts(requests)
        return before(requests[::2], params, snapshot, Side("snapshot", len(texts), {"text": texts[1::2]}), drawn)

    monkeypatch.setattr(step, "_inputs", moving)
    watching.look()
    assert not any(seen(watching)), "so the assertion that every window fires does tell"
