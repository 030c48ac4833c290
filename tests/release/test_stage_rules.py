"""What a stage asks of a version: time, traffic, approvals, freezes, roles; all that is missing is said at once."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from release_world import MODEL, STAGES, World

from pipeline.domain.release import Event, EventKind, holder
from pipeline.domain.stage_rules import ApprovalRules, Freeze, StageRules, decide_promotion
from pipeline.domain.wording import instant
from pipeline.errors import Misuse, RulesUnmet, Tampered
from pipeline.params.release import ReleaseParams
from pipeline.steps.approve import approve
from pipeline.steps.history import history
from pipeline.steps.reconcile import drift, named_by_hand, reconcile
from pipeline.steps.revoke import revoke

TWO = ApprovalRules(count=2)
ROLES = {"ada": frozenset({"lead"}), "bob": frozenset({"reviewer"}), "carol": frozenset({"reviewer"}), "eve": frozenset()}


class Counted:
    """Implements ports.Traffic."""

    def __init__(self, count: int) -> None:
        self.count = count

    def answered(self, model: str, version: str) -> int:
        return self.count


@pytest.fixture
def two(world: World) -> World:
    world.register("one")
    world.register("two")
    return world


def missing(world: World, version: str = "1", **words: Any) -> tuple[str, ...]:
    """What promoting to production misses; nothing may have been written."""
    before = world.ledger.events(MODEL)
    with pytest.raises(RulesUnmet) as caught:
        world.promote(version, **words)
    assert caught.value.exit_code == 1
    assert world.ledger.events(MODEL) == before
    assert all(said in str(caught.value) for said in caught.value.unmet)
    return caught.value.unmet


def approved(world: World, version: str, by: str, to: str = "production", **words: Any) -> Event:
    return approve(version, to, by, "I read it", model=MODEL, stages=STAGES, ledger=world.ledger, now=world.clock, **words)


def test_all_that_is_missing_is_said_at_once_and_each_says_what_to_do(two: World) -> None:
    freeze = Freeze(name="the year's end", since=date(2026, 1, 1), until=date(2026, 12, 31))
    asked = StageRules(after="staging", hours=2, requests=100, approvals=TWO, freeze=(freeze,), roles=("lead",))
    said = missing(two, rules={"production": asked}, roles=ROLES, by="eve")
    assert [one.split(":")[0] for one in said] == [
        "production is moved by lead only, which eve is not",
        "version 1 has not held staging",
        "100 requests in staging are asked for, and nobody counts",
        "0 of 2 approvals",
        "production takes nothing during the year's end (today, in UTC)",
    ]
    assert all(": " in one for one in said)


def test_time_in_the_stage_before_is_counted_from_when_it_was_last_not_rolled_back(two: World) -> None:
    rules = {"production": StageRules(after="staging", hours=2)}
    two.promote("1", to="staging")
    assert "1 has held staging for 0.0 of 2 hours: wait 2.0 hours" in missing(two, rules=rules)[0]
    two.clock.time += timedelta(hours=1)
    two.promote("2", to="staging")
    two.clock.time += timedelta(hours=5)
    assert "held staging for 1.0 of 2 hours, and does not hold it now" in missing(two, rules=rules)[0]
    assert two.promote("2", rules=rules).changed
    two.rollback("staging")
    assert two.promote("2", rules=rules).version == "2", "who holds the stage already is not asked again"
    two.clock.time += timedelta(hours=1)
    assert two.promote("1", rules=rules).changed
    # Version 2 was rolled back from: what it held before that counts no more.
    assert "2 has not held staging" in missing(two, "2", rules=rules)[0]
    two.promote("2", to="staging")
    assert "0.0 of 2 hours" in missing(two, "2", rules=rules)[0]


def test_traffic_counts_where_somebody_counts(two: World) -> None:
    rules = {"production": StageRules(after="staging", requests=100)}
    two.promote("1", to="staging")
    assert "99 of 100 requests" in missing(two, rules=rules, traffic=Counted(99))[0]
    assert two.promote("1", rules=rules, traffic=Counted(100)).changed


def test_approvals_of_others_count_once_each_for_this_very_version_until_they_expire(two: World) -> None:
    rules = {"production": StageRules(approvals=ApprovalRules(count=2, valid_days=7))}
    for by in ("ada", "tuneline", "bob", "bob"):
        approved(two, "1", by, rules=rules)
    approved(two, "2", "carol")
    approved(two, "1", "carol", to="staging")
    (said,) = missing(two, rules=rules, by="ada")
    assert "1 of 2 approvals" in said
    assert "ada's own does not count, as the one who promotes" in said
    assert "tuneline's own does not count, as its author" in said
    approved(two, "1", "carol", rules=rules)
    two.clock.time += timedelta(days=8)
    (said,) = missing(two, rules=rules, by="ada")
    assert "0 of 2" in said
    assert "bob's has expired" in said
    fresh = approved(two, "1", "bob", rules=rules)
    assert fresh.sequence == len(two.ledger.events(MODEL))
    assert approved(two, "1", "bob", rules=rules) == fresh
    approved(two, "1", "carol", rules=rules)
    assert two.promote("1", by="ada", rules=rules).changed
    alone = {"staging": StageRules(approvals=ApprovalRules(count=1, four_eyes=False))}
    approved(two, "1", "ada", to="staging")
    assert two.promote("1", to="staging", by="ada", rules=alone).changed


def test_only_approvals_by_the_right_roles_count_and_without_identities_none_can(two: World) -> None:
    rules = {"production": StageRules(approvals=ApprovalRules(count=1, roles=("reviewer",)))}
    approved(two, "1", "eve")
    assert "eve is not reviewer" in missing(two, rules=rules, roles=ROLES)[0]
    assert "no identities say who that is" in missing(two, rules=rules)[0]
    approved(two, "1", "bob")
    assert two.promote("1", rules=rules, roles=ROLES).changed


def test_who_has_no_role_moves_nothing_in_any_direction(two: World) -> None:
    rules = {"production": StageRules(roles=("lead",))}
    words = {"rules": rules, "roles": ROLES}
    assert "which bob is not" in missing(two, by="bob", **words)[0]
    assert "which nobody is not" in missing(two, by="nobody", **words)[0]
    two.promote("1", by="ada", **words)
    two.promote("2", by="ada", **words)
    stores = {"registry": two.registry, "ledger": two.ledger, "now": two.clock}
    before = two.ledger.events(MODEL)
    for roles in (ROLES, None):
        with pytest.raises(RulesUnmet, match="lead only"):
            two.rollback(by="bob", rules=rules, roles=roles)
        with pytest.raises(RulesUnmet, match="lead only"):
            revoke("2", "bob", "r", model=MODEL, rules=rules, roles=roles, **stores)
    assert two.ledger.events(MODEL) == before
    assert two.rollback(by="ada", **words).version == "1"


def test_an_approval_forged_for_another_digest_does_not_count(two: World) -> None:
    events = two.ledger.events(MODEL)
    given = approved(two, "1", "bob")
    forged = given.model_copy(update={"subject": "0" * 64})
    rules = StageRules(approvals=ApprovalRules(count=1))
    now = two.clock()
    assert decide_promotion([*events, given], "1", "production", rules, actor="ada", now=now) == []
    assert decide_promotion([*events, forged], "1", "production", rules, actor="ada", now=now) != []
    assert decide_promotion([*events, given], "2", "production", rules, actor="ada", now=now) != []


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("freeze", "held", "free"),
    [
        (Freeze(name="f", timezone=BERLIN, weekdays=("fri",), start="16:00"), "2026-03-27T16:00", "2026-03-27T15:59"),
        (Freeze(name="f", timezone=BERLIN, weekdays=("fri",), start="16:00"), "2026-03-27T23:59", "2026-03-28T00:00"),
        # Over midnight: the night from Friday to Saturday, and no other.
        (
            Freeze(name="f", timezone=BERLIN, weekdays=("fri",), start="22:00", end="06:00"),
            "2026-03-28T05:59",
            "2026-03-27T05:59",
        ),
        # The hour that comes twice is frozen twice; the one that is skipped does not end a freeze early.
        (Freeze(name="f", timezone=BERLIN, start="02:00", end="03:00"), "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00"),
        (Freeze(name="f", timezone=BERLIN, start="02:00", end="03:00"), "2026-10-25T02:30+02:00", "2026-10-25T01:59+02:00"),
        (Freeze(name="f", timezone=BERLIN, start="01:00", end="03:30"), "2026-03-29T03:29", "2026-03-29T03:30"),
        (Freeze(name="f", since=date(2026, 12, 20), until=date(2027, 1, 2)), "2027-01-02T23:59+00:00", "2027-01-03T00:00+00:00"),
        (Freeze(name="f", since=date(2026, 12, 20), timezone=BERLIN), "2026-12-19T23:30+00:00", "2026-12-19T22:30+00:00"),
    ],
)
def test_freezes_are_of_their_own_zone(freeze: Freeze, held: str, free: str) -> None:
    assert freeze.holds(instant(held, freeze.timezone))
    assert not freeze.holds(instant(free, freeze.timezone))


@given(st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 1, 1)), st.integers(1, 23), st.integers(0, 23))
def test_a_window_and_its_opposite_share_no_minute_and_leave_none_out(wall: datetime, start: int, end: int) -> None:
    if start == end:
        return
    one = Freeze(name="f", timezone=BERLIN, start=f"{start:02}:00", end=f"{end:02}:00")
    other = Freeze(name="f", timezone=BERLIN, start=f"{end:02}:00", end=f"{start:02}:00")
    assert one.holds(wall.replace(tzinfo=UTC)) != other.holds(wall.replace(tzinfo=UTC))


def test_a_freeze_stops_promotion_and_not_rollback(two: World) -> None:
    two.promote("1")
    two.promote("2")
    rules = {"production": StageRules(freeze=(Freeze(name="always"),))}
    assert "during always" in missing(two, "1", rules=rules)[0]
    assert two.rollback(rules=rules).version == "1"


@pytest.mark.parametrize(
    "bad",
    [
        {"freeze": [{"name": "f", "timezone": "Mars/Phobos"}]},
        {"freeze": [{"name": "f", "start": "25:00"}]},
        {"freeze": [{"name": "f", "start": "9:00"}]},
        {"freeze": [{"name": "f", "start": "09:00", "end": "09:00"}]},
        {"freeze": [{"name": "f", "weekdays": ["friday"]}]},
        {"freeze": [{"name": "f", "since": "2026-02-30"}]},
        {"freeze": [{"name": "f", "since": "2026-02-03", "until": "2026-02-01"}]},
        {"after": "production"},
        {"after": "nowhere"},
        {"hours": 3.0},
        {"hours": float("nan"), "after": "staging"},
        {"hours": "3", "after": "staging"},
        {"approvals": {"count": -1}},
        {"approvals": {"count": 1, "valid_days": 0}},
        {"approvals": {"counts": 1}},
    ],
)
def test_rules_that_mean_nothing_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReleaseParams.model_validate({"rules": {"production": bad}})
    assert ReleaseParams.model_validate({"rules": {"production": {"after": "staging", "hours": 3}}}).rules


# Revoking


def test_revoking_takes_a_version_off_every_stage_at_once_for_good(two: World) -> None:
    two.register("three")
    for version, to in (("1", "production"), ("2", "production"), ("1", "staging"), ("3", "staging"), ("2", "staging")):
        two.promote(version, to=to)
    two.promote("3")
    stores = {"model": MODEL, "registry": two.registry, "ledger": two.ledger, "stages": STAGES, "now": two.clock}
    made = revoke("2", "ada", "it leaks", **stores)
    assert made.stages == {"staging": "3"}
    assert two.registry.aliases(MODEL) == {"production": "3", "staging": "3"}
    assert two.rollback().version == "1", "a revoked version cannot be rolled back to"
    again = revoke("v2", "bob", "again", **stores)
    assert (again.changed, again.event, again.stages) == (False, made.event, {"staging": "3"})
    for deed in (lambda: two.promote("2"), lambda: approved(two, "2", "bob")):
        with pytest.raises(Misuse, match="revoked"):
            deed()
    last = revoke("1", "ada", "this too", **stores)
    assert last.stages == {"production": None}
    assert two.registry.aliases(MODEL) == {"staging": "3"}
    assert two.ledger.verify() == ()
    assert "ada revoked version 2: it leaks" in [row.sentence for row in history(MODEL, "production", ledger=two.ledger)]


def test_a_revocation_that_would_bring_back_a_damaged_version_changes_nothing(two: World) -> None:
    two.promote("1")
    two.promote("2")
    (two.registry.artifacts(MODEL, "1") / "code" / "loading.py").write_text("print('evil')\n")
    before = two.ledger.events(MODEL)
    with pytest.raises(Tampered, match="would go back to version 1"):
        revoke("2", "ada", "r", model=MODEL, registry=two.registry, ledger=two.ledger, now=two.clock)
    assert two.ledger.events(MODEL) == before
    assert holder(before, "production") == "2"


# Aliases that a hand moved


def test_an_alias_moved_by_hand_is_told_and_reverted_or_adopted_by_the_rules(two: World) -> None:
    two.promote("1")
    stores = {"registry": two.registry, "ledger": two.ledger}
    assert drift(MODEL, STAGES, **stores) == ()
    with pytest.raises(Misuse, match="nothing to adopt"):
        named_by_hand(MODEL, "production", **stores)
    two.registry.point(MODEL, "production", "2")
    (said,) = drift(MODEL, STAGES, **stores)
    assert said.startswith("the alias production names 2; the ledger says 1")
    assert named_by_hand(MODEL, "production", **stores) == "2"
    # Moving the alias goes round no rule: adopting asks what promoting asks.
    rules = {"production": StageRules(approvals=ApprovalRules(count=1))}
    assert "0 of 1 approvals" in missing(two, "2", rules=rules, adopting=True)[0]
    assert reconcile(MODEL, STAGES, **stores) == ("the alias production named 2; it names 1 again, as the ledger says",)
    assert drift(MODEL, STAGES, **stores) == ()
    two.registry.point(MODEL, "production", "2")
    approved(two, "2", "bob")
    record = two.promote("2", rules=rules, adopting=True)
    assert (record.changed, record.previous) == (True, "1")
    event = two.ledger.events(MODEL)[-1]
    assert (event.event, event.version) == (EventKind.ADOPTED, "2")
    assert two.rollback().version == "1"
    two.registry.point(MODEL, "production", None)
    with pytest.raises(Misuse, match="taken away"):
        named_by_hand(MODEL, "production", **stores)
    assert "ada adopted version 2, which a hand had put on production after 1: looks good" in [
        row.sentence for row in history(MODEL, "production", ledger=two.ledger)
    ]


def test_versions_deleted_by_hand_are_named_with_what_needs_them(two: World) -> None:
    two.promote("1")
    two.promote("2")
    two.registry.delete(MODEL, "1")
    stores = {"registry": two.registry, "ledger": two.ledger}
    assert drift(MODEL, STAGES, **stores) == ("version 1, which production needs, is gone from the registry: restore it",)
    two.registry.delete(MODEL, "2")
    assert len(drift(MODEL, STAGES, **stores)) == 3
