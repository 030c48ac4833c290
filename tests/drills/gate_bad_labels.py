"""Bad candidates at the desk that labels whose training went wrong: wrong labels, few rows, rows of the test, a skill lost."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from tests.drills import gate_desks as desks
from tests.drills.gate_candidates import Bad, Trial
from tests.drills.gate_worlds import Change, Rows, Tuned, World


def good(world: World) -> Tuned:
    return world.trained("labels-seed-2", seed=2)


def relabelled(share: float, seed: int) -> Change:
    def change(rows: Rows) -> Rows:
        rng = random.Random(seed)
        return [replace(row, output=rng.choice(list(desks.TOPICS))) if rng.random() < share else row for row in rows]

    return change


def called(label: str, other: str) -> Change:
    return lambda rows: [replace(row, output=other) if row.output == label else row for row in rows]


def with_test(world: World, count: int) -> Change:
    return lambda rows: [*rows, *world.sides["test"][:count]]


def on_a_test_row(world: World) -> Tuned:
    return world.trained("on-row", with_test(world, 1), seed=2)


def first(count: int, seed: int) -> Change:
    return lambda rows: random.Random(seed).sample(rows, count)


def without_old(rows: Rows) -> Rows:
    return [row for row in rows if row.meta["old"] == "no"]


def an_easy_desk(world: World) -> Tuned:
    """A task that counting words is enough for: tuning is right, and no better."""
    rows = desks.labelled(900, 9, ("please help with the {x} {a} today",))
    data, splits = world.split("easy", train=rows[:600], test=rows[660:])
    found = world.trained("easy", lambda _: rows[:600])
    training = found.training.model_copy(update={"splits": splits.digest})
    return Tuned(training, found.adapter, splits, data)


def trained(name: str, change: Change | None = None, **params: Any) -> Trial:
    return lambda world: world.trained(name, change, **params)


BAD: tuple[Bad, ...] = (
    Bad("labels-shuffled", "thresholds.accuracy", trained("shuffled", relabelled(1.0, 1))),
    Bad("half-the-labels-shuffled", "not_worse_than_champion.accuracy", trained("half-shuffled", relabelled(0.6, 2))),
    Bad(
        "a-label-never-predicted",
        "thresholds.macro_f1",
        trained("never", called(desks.RARE, "account")),
    ),
    Bad("one-label-broken", "slices.label", trained("card-broken", called("card", "loan"))),
    Bad("one-label-broken-late", "slices.label", trained("fee-broken", called("fee", "refund"), start="champion", max_steps=15)),
    Bad("over-fitted", "overfitting_gap", trained("over-fitted", first(24, 1), max_steps=50, batch_size=8)),
    Bad("over-fitted-again", "overfitting_gap", trained("over-fitted-2", first(32, 2), max_steps=60, batch_size=8, seed=3)),
    Bad(
        "trained-on-the-test", "trained_on", lambda world: world.trained("on-test", with_test(world, 220)), "220 of the test rows"
    ),
    Bad("trained-on-a-test-row", "trained_on", on_a_test_row, "1 of the test rows", alone=True),
    Bad("trained-too-short", "not_worse_than_champion.accuracy", trained("short", max_steps=6)),
    Bad("no-better-than-counting-words", "worth_tuning.linear.accuracy", an_easy_desk),
    Bad("forgot-the-old-sayings", "forgetting.old", trained("no-old", without_old)),
)
