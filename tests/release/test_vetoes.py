"""A veto: in the ledger like an approval, moves nothing, and keeps a version from a stage until its giver takes it back."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from release_world import MODEL, STAGES, World

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.opinions import opinions, vetoes
from pipeline.domain.release import Event, EventKind, holder
from pipeline.domain.stage_rules import ApprovalRules, StageRules
from pipeline.errors import Misuse, RulesUnmet
from pipeline.steps.approve import approve, refuse
from pipeline.steps.history import history
from pipeline.steps.releases import releases


@pytest.fixture
def two(world: World) -> World:
    world.register("one")
    world.register("two")
    return world


def said(world: World, deed: Any, by: str, version: str = "2", to: str = "production", **words: Any) -> Event:
    stores: dict[str, Any] = {"model": MODEL, "stages": STAGES, "ledger": world.ledger, "now": world.clock}
    return deed(version, to, by, f"{by}'s reason", **stores, **words)  # type: ignore[no-any-return]


def unmet(world: World, version: str = "2", **words: Any) -> tuple[str, ...]:
    with pytest.raises(RulesUnmet) as caught:
        world.promote(version, **words)
    return caught.value.unmet


def test_it_keeps_the_version_from_that_stage_only_and_moves_nothing(two: World) -> None:
    two.promote("1")
    event = said(two, refuse, "bob")
    assert (event.event, event.subject) == (EventKind.REFUSED, two.ledger.registration(MODEL, "2").subject)  # type: ignore[union-attr]
    assert holder(two.ledger.events(MODEL), "production") == "1"
    (why,) = unmet(two)  # though no rule asks for approvals
    assert why.startswith("bob refused version 2 for production on ")
    assert "(bob's reason)" in why
    assert "only bob can take that back, by tuneline approve 2 --to production" in why
    assert two.promote("2", to="staging").changed
    assert not two.promote("1").changed


def test_only_its_giver_takes_it_back(two: World) -> None:
    rules = {"production": StageRules(approvals=ApprovalRules(count=1))}
    said(two, approve, "bob")
    said(two, refuse, "bob")
    said(two, approve, "carol")
    assert [one.split()[0] for one in unmet(two, rules=rules)] == ["bob"]  # carol's counts, bob's own is taken back
    again = said(two, approve, "bob")
    assert again.sequence == two.ledger.head(MODEL)[0], "an approval from before the veto is not the one that stands"
    assert two.promote("2", rules=rules).changed


def test_it_is_recorded_once_and_never_expires(two: World) -> None:
    event = said(two, refuse, "bob")
    two.clock.time += timedelta(days=4000)
    assert said(two, refuse, "bob") == event
    assert len(unmet(two)) == 1
    said(two, refuse, "ada")
    assert [e.actor for e in vetoes(two.ledger.events(MODEL), "2", "production")] == ["bob", "ada"]


def test_what_cannot_be_refused(two: World) -> None:
    two.promote("2")
    with pytest.raises(Misuse, match="holds production already"):
        said(two, refuse, "bob")
    for words in ({"version": "9"}, {"to": "live"}, {"by": ""}, {"by": "a\x00b"}):
        with pytest.raises(Misuse):
            said(two, refuse, **{"by": "bob", "version": "1", **words})
    assert [e.event for e in two.ledger.events(MODEL)][2:] == [EventKind.PROMOTED]


def test_where_roles_are_asked_for_only_they_refuse(two: World) -> None:
    rules = {"production": StageRules(approvals=ApprovalRules(count=1, roles=("reviewer",)))}
    roles = {"bob": frozenset({"reviewer"}), "eve": frozenset({"intern"})}
    with pytest.raises(RulesUnmet, match="refused by reviewer only, which eve is not"):
        said(two, refuse, "eve", rules=rules, roles=roles)
    assert said(two, refuse, "bob", rules=rules, roles=roles).actor == "bob"


def test_it_is_told_and_listed(two: World) -> None:
    said(two, approve, "ada")
    said(two, refuse, "ada")
    assert history(MODEL, ledger=two.ledger)[-1].sentence == "ada refused version 2 for production: ada's reason"
    (row,) = (row for row in releases(MODEL, ledger=two.ledger) if row.version == "2")
    assert (row.approvals, row.vetoes) == ((), ("ada for production",))


def test_ledgers_with_and_without_it_are_whole(two: World) -> None:
    two.promote("1")
    two.promote("2", to="staging")
    before = two.ledger.stages(MODEL)
    said(two, refuse, "bob", to="production")
    assert two.ledger.verify() == ()
    fresh = SqlLedger(Path(two.ledger.where))
    assert fresh.verify() == ()
    assert fresh.stages(MODEL) == before
    assert fresh.holder(MODEL, "production") == "1"
    concern = fresh.concerning(MODEL, "production", version="2")
    assert opinions(concern, "2", "production") == opinions(fresh.events(MODEL), "2", "production")
    text = fresh.events(MODEL)[-1].to_json()
    assert json.loads(text)["event"] == "refused"
    assert Event.from_json(text) == fresh.events(MODEL)[-1]


def test_a_promotion_that_races_with_it_sees_it(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The veto lands between the promotion's decision and its append."""
    append = SqlLedger.append

    def late(ledger: SqlLedger, *args: Any, **words: Any) -> Event:
        monkeypatch.setattr(SqlLedger, "append", append)
        said(two, refuse, "bob")
        return append(ledger, *args, **words)

    monkeypatch.setattr(SqlLedger, "append", late)
    assert unmet(two)[0].startswith("bob refused version 2")
    assert holder(two.ledger.events(MODEL), "production") is None
