"""Register, promote, roll back, approve, list, tell, reconcile: on a real ledger, with crashes and rivals in between."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from folder_registry import FolderRegistry
from release_world import MODEL, STAGES, World

from pipeline.backends.ledger_seal import SealFile
from pipeline.backends.ledger_store import EventStore
from pipeline.domain.gating import Outcome
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.release import EventKind, ModelVersion, holder, stack
from pipeline.errors import Broken, Conflict, Misuse, Tampered, TryLater
from pipeline.steps.approve import approve
from pipeline.steps.history import history
from pipeline.steps.reconcile import reconcile
from pipeline.steps.register import register
from pipeline.steps.releases import releases

FORK = multiprocessing.get_context("fork")


def kinds(world: World) -> list[str]:
    return [e.event.value for e in world.ledger.events(MODEL)]


def alias(world: World, stage: str = "production") -> str | None:
    return world.registry.aliases(MODEL).get(stage)


@pytest.fixture
def three(world: World) -> World:
    for name in ("one", "two", "three"):
        world.register(name)
    return world


# Register


def test_registering_writes_version_tags_and_one_event(world: World) -> None:
    made = world.candidate("one")
    record = world.register("one", candidate=made)
    assert (record.version, record.training, record.decision) == ("1", made.training.digest, made.decision.digest)
    assert {f.path for f in record.files} == {
        "artifacts/adapter/adapter_config.json",
        "artifacts/adapter/adapter_model.safetensors",
        "code/loading.py",
    }
    assert [f.path for f in record.reports] == ["report.html"]
    (event,) = world.ledger.events(MODEL)
    assert (event.event, event.subject) == (EventKind.REGISTERED, record.digest)
    assert ModelVersion.from_json(event.record, digest=event.subject) == record
    tags = world.registry.version_tags(MODEL, "1")
    assert record.tags.items() <= tags.items()
    assert tags["tuneline.metric.exact_match"] == "0.9 [0.85, 0.95]"


def test_registering_twice_makes_one_version_and_one_event(world: World) -> None:
    made = world.candidate("one")
    first = world.register("one", candidate=made)
    assert world.register("one", candidate=made) == first
    assert kinds(world) == ["registered"]
    assert world.registry.versions(MODEL) == ["1"]


def test_a_dirty_version_does_not_stand_in_for_a_clean_one(world: World) -> None:
    assert world.register("one", dirty=True).dirty
    again = world.candidate("two")
    assert not world.register("two", candidate=again).dirty
    assert [r.dirty for r in releases(MODEL, ledger=world.ledger)] == [False, True]


@pytest.mark.parametrize("verdict", [Outcome.FAILED, Outcome.INSUFFICIENT])
def test_what_the_gate_did_not_pass_is_not_registered(world: World, verdict: Outcome) -> None:
    with pytest.raises(Misuse, match=f"the gate said {verdict.value}: exact_match 0.9"):
        world.register("one", candidate=world.candidate("one", verdict=verdict))
    assert world.registry.versions(MODEL) == []
    assert world.ledger.events(MODEL) == ()


def test_a_decision_about_another_candidate_opens_no_gate(world: World) -> None:
    one, two = world.candidate("one"), world.candidate("two")
    other = EvaluationReport.model_validate({**one.evaluation.model_dump(), "rows": 4})
    words = {"name": MODEL, "run_id": one.run_id, "commit": "c", "tag": one.tag, "dirty": False, "source": "runs:/x/model"}
    words |= {"actor": "a", "reason": "r", "registry": world.registry, "ledger": world.ledger}
    for decision, training, evaluation, said in (
        (two.decision, one.training, one.evaluation, "another training run; the decision is about another evaluation"),
        (one.decision, one.training, other, "another evaluation"),
        (one.decision, two.training, one.evaluation, "another adapter"),
    ):
        with pytest.raises(Misuse, match=said):
            register(decision, training, evaluation, **words)
    with pytest.raises(Misuse, match="actor"):
        register(one.decision, one.training, one.evaluation, **{**words, "actor": "\0"})
    assert world.registry.versions(MODEL) == []


def test_a_logged_model_that_is_not_the_trained_adapter_is_refused(world: World) -> None:
    made = world.candidate("one")
    logged = world.registry.root / "runs" / made.run_id / "model" / "artifacts" / "adapter" / "adapter_model.safetensors"
    logged.write_bytes(b"x" + logged.read_bytes()[1:])
    with pytest.raises(Tampered, match="does not hold the adapter"):
        world.register("one", candidate=made)
    assert world.ledger.events(MODEL) == ()


def test_byte_code_that_python_leaves_beside_the_code_is_no_difference(world: World) -> None:
    made = world.candidate("one")
    cache = world.registry.root / "runs" / made.run_id / "model" / "code" / "__pycache__"
    cache.mkdir()
    (cache / "loading.cpython-311.pyc").write_bytes(b"compiled")
    world.register("one", candidate=made)
    place = world.registry.artifacts(MODEL, "1") / "code" / "__pycache__"
    (place / "other.cpython-311.pyc").write_bytes(b"compiled later")
    assert world.promote("1").changed


# Promote


def test_promoting_appends_then_points_and_once_is_enough(three: World) -> None:
    first = three.promote("1")
    assert (first.version, first.previous, first.changed) == ("1", None, True)
    second = three.promote("v2")
    assert (second.version, second.previous, second.sequence) == ("2", "1", 5)
    assert alias(three) == "2"
    again = three.promote("2", by="someone else")
    assert not again.changed
    assert (again.event, again.sequence) == (second.event, second.sequence)
    assert kinds(three).count("promoted") == 2


def test_promoting_a_stage_takes_its_holder(three: World) -> None:
    three.promote("3", to="staging")
    assert three.promote("staging").version == "3"
    assert three.registry.aliases(MODEL) == {"staging": "3", "production": "3"}


def test_promotions_that_are_misuse_change_nothing(three: World) -> None:
    three.register("four", dirty=True)
    before = three.ledger.events(MODEL)
    for words, said in (
        (("9",), "no version '9'"),
        (("1", "live"), "stages are staging, production"),
        (("4",), "uncommitted changes"),
        (("1", "production", "\0"), "actor"),
    ):
        with pytest.raises(Misuse) as caught:
            three.promote(*words)
        assert said in str(caught.value)
    assert three.promote("4", to="staging").changed
    assert three.ledger.events(MODEL)[:-1] == before
    with pytest.raises(Misuse, match="knows no model") as unknown:
        releases("desc", ledger=three.ledger)
    assert "there are: desk" in str(unknown.value)


@pytest.mark.parametrize("harm", ["flip", "remove", "add", "link", "all gone"])
def test_a_version_whose_files_changed_is_not_promoted(three: World, harm: str) -> None:
    folder = three.registry.artifacts(MODEL, "2")
    weights = folder / "artifacts" / "adapter" / "adapter_model.safetensors"
    match harm:
        case "flip":
            weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
        case "remove":
            weights.unlink()
        case "add":
            (folder / "artifacts" / "extra.bin").write_bytes(b"payload")
        case "link":
            weights.rename(folder.parent / "elsewhere")
            weights.symlink_to(folder.parent / "elsewhere")
        case "all gone":
            folder.rename(folder.with_name("moved"))
    three.promote("1")
    with pytest.raises(Broken) as caught:
        three.promote("2")
    assert str(folder) in str(caught.value)
    assert holder(three.ledger.events(MODEL), "production") == alias(three) == "1"


def test_a_gate_record_that_is_gone_or_changed_stops_promotion(three: World) -> None:
    made = three.archive
    for file in made.root.rglob("*"):
        if file.is_file() and b'"kind":"gate_decision"' in file.read_bytes():
            file.write_bytes(file.read_bytes().replace(b"0.8", b"0.7"))
    with pytest.raises(Broken, match="no record with the digest"):
        three.promote("1")
    assert alias(three) is None


# Roll back


def test_rolling_back_pops_and_never_returns_to_what_it_left(three: World) -> None:
    for version in "123":
        three.promote(version)
    assert three.rollback().version == "2"
    record = three.rollback()
    assert (record.version, record.previous, record.changed) == ("1", "2", True)
    assert alias(three) == "1"
    with pytest.raises(Misuse, match="nothing to roll back to"):
        three.rollback()
    with pytest.raises(Misuse, match="no version holds 'staging'"):
        three.rollback("staging")
    assert alias(three) == "1"


def test_rolling_back_to_a_named_version(three: World) -> None:
    for version in "123":
        three.promote(version)
    with pytest.raises(Misuse, match="no version '7'"):
        three.rollback(to="7")
    record = three.rollback(to="v1")
    assert (record.version, record.previous) == ("1", "3")
    assert stack(three.ledger.events(MODEL), "production") == ("1",)


def test_a_retry_that_names_what_it_leaves_does_nothing_more(three: World) -> None:
    for version in "123":
        three.promote(version)
    first = three.rollback(leaving="3")
    before = three.ledger.events(MODEL)
    retry = three.rollback(leaving="3")
    assert not retry.changed
    assert (retry.version, retry.event) == (first.version, first.event)
    assert not three.rollback(leaving="3", to="2").changed
    assert three.ledger.events(MODEL) == before
    with pytest.raises(Conflict, match="held by 2, not by 3"):
        three.rollback(leaving="3", to="1")
    three.promote("1")
    with pytest.raises(Conflict, match="nothing was changed"):
        three.rollback(leaving="3")
    assert alias(three) == "1"


def test_a_damaged_version_is_not_rolled_back_to(three: World) -> None:
    for version in "123":
        three.promote(version)
    (three.registry.artifacts(MODEL, "2") / "code" / "loading.py").write_text("print('evil')\n")
    with pytest.raises(Tampered, match="version 2"):
        three.rollback()
    assert alias(three) == "3"
    assert three.rollback(to="1").version == "1"


# Rivals


class Rival:
    """A registry that lets something else happen the first time a version's files are looked at."""

    def __init__(self, registry: FolderRegistry, deed: Callable[[], object]) -> None:
        self._registry = registry
        self._deeds = [deed]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    def artifacts(self, name: str, version: str) -> Any:
        while self._deeds:
            self._deeds.pop()()
        return self._registry.artifacts(name, version)


def _rival(world: World, deed: Callable[[World], object]) -> World:
    """The same world seen by a slow process, during whose step a quick one does `deed`."""
    slow = World.__new__(World)
    slow.__dict__.update(world.__dict__)
    slow.registry = Rival(world.registry, lambda: deed(world))
    return slow


def test_a_promotion_during_a_rollback_makes_the_rollback_a_conflict(three: World) -> None:
    three.promote("1")
    three.promote("2")
    slow = _rival(three, lambda quick: quick.promote("3"))
    with pytest.raises(Conflict, match="held by 3, not by 2"):
        slow.rollback()
    assert stack(three.ledger.events(MODEL), "production") == ("1", "2", "3")
    assert alias(three) == "3"


def test_of_two_promotions_the_later_is_told(three: World) -> None:
    slow = _rival(three, lambda quick: quick.promote("3", by="carol"))
    with pytest.raises(Conflict, match=r"carol moved production .*promoted 3.* nothing was changed"):
        slow.promote("2")
    assert alias(three) == "3"
    assert kinds(three).count("promoted") == 1


def test_the_same_promotion_by_two_is_one(three: World) -> None:
    slow = _rival(three, lambda quick: quick.promote("2"))
    assert not slow.promote("2").changed
    assert kinds(three).count("promoted") == 1


def test_the_same_rollback_by_two_is_one(three: World) -> None:
    for version in "123":
        three.promote(version)
    slow = _rival(three, lambda quick: quick.rollback())
    record = slow.rollback()
    assert (record.version, record.changed) == ("2", False)
    assert alias(three) == "2"


def test_events_that_do_not_concern_the_stage_do_not_disturb(three: World) -> None:
    slow = _rival(three, lambda quick: (quick.register("four"), quick.promote("1", to="staging")))
    assert slow.promote("2").changed
    assert three.registry.aliases(MODEL) == {"staging": "1", "production": "2"}


def test_a_slow_alias_does_not_outlive_a_later_move(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower of two processes points the alias last, then looks again and finds that it is no longer right."""
    real, pending = FolderRegistry.point, [lambda: three.promote("3")]

    def overtaken(registry: FolderRegistry, name: str, stage: str, version: str | None) -> None:
        if pending:
            pending.pop()()
        real(registry, name, stage, version)

    monkeypatch.setattr(FolderRegistry, "point", overtaken)
    three.promote("2")
    assert holder(three.ledger.events(MODEL), "production") == alias(three) == "3"


def _promote_all(world: World, versions: str, results: Any) -> None:
    for version in versions:
        try:
            results.put((version, world.promote(version, by=f"p{os.getpid()}").changed))
        except Conflict:
            results.put((version, None))


def test_many_processes_promoting_agree_with_the_ledger(three: World) -> None:
    results = FORK.Queue()
    processes = [FORK.Process(target=_promote_all, args=(three, order, results)) for order in ("123", "312", "231", "132")]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in range(12)]
    for process in processes:
        process.join()
    events = three.ledger.events(MODEL)
    promoted = [e.version for e in events if e.event is EventKind.PROMOTED]
    assert len(promoted) == sum(changed is True for _, changed in outcomes)
    assert all(a != b for a, b in pairwise(promoted))
    assert alias(three) == holder(events, "production") == promoted[-1]
    assert three.ledger.verify() == ()


# Crashes


def _killed_at(owner: type, name: str, moment: str, work: Callable[[], object]) -> None:
    def child() -> None:
        real = getattr(owner, name)

        def dying(*words: Any, **named: Any) -> Any:
            if moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            real(*words, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, dying)
        work()

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


POINTS = [
    (EventStore, "insert", "before"),
    (EventStore, "insert", "after"),
    (SealFile, "write", "before"),
    (SealFile, "write", "after"),
    (FolderRegistry, "point", "before"),
    (FolderRegistry, "point", "after"),
]


@pytest.mark.parametrize(("owner", "name", "moment"), POINTS)
@pytest.mark.parametrize("deed", ["promote", "rollback"])
@pytest.mark.parametrize("mend", ["repeat", "reconcile"])
def test_a_kill_anywhere_is_mended(three: World, owner: type, name: str, moment: str, deed: str, mend: str) -> None:
    three.promote("1")
    three.promote("2")
    act = {"promote": lambda: three.promote("3"), "rollback": lambda: three.rollback(leaving="2")}[deed]
    wanted = {"promote": "3", "rollback": "1"}[deed]
    before = len(kinds(three))
    _killed_at(owner, name, moment, act)
    happened = len(kinds(three)) > before
    assert happened == ((name, moment) != ("insert", "before"))
    if mend == "reconcile":
        reconcile(MODEL, STAGES, registry=three.registry, ledger=three.ledger)
        assert alias(three) == (wanted if happened else "2")
    assert act().changed is not happened
    assert alias(three) == holder(three.ledger.events(MODEL), "production") == wanted
    assert len(kinds(three)) == before + 1
    assert three.ledger.verify() == ()


@pytest.mark.parametrize(("owner", "name", "moment"), [*POINTS[:4], (FolderRegistry, "set_version_tags", "before")])
def test_a_kill_while_registering_is_mended_by_repeating(world: World, owner: type, name: str, moment: str) -> None:
    made = world.candidate("one")
    _killed_at(owner, name, moment, lambda: world.register("one", candidate=made))
    record = world.register("one", candidate=made)
    assert kinds(world) == ["registered"]
    assert world.registry.versions(MODEL) == ["1"]
    assert record.tags.items() <= world.registry.version_tags(MODEL, "1").items()
    assert world.ledger.verify() == ()


def test_a_registry_that_fails_after_the_append_is_caught_up_by_repeating(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object) -> None:
        raise TryLater("the registry does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(FolderRegistry, "point", down)
        with pytest.raises(TryLater):
            three.promote("1")
    assert alias(three) is None
    assert not three.promote("1").changed
    assert alias(three) == "1"


# Approve, list, tell, reconcile


def test_an_approval_is_recorded_once_a_person_and_moves_nothing(three: World) -> None:
    words = {"model": MODEL, "stages": STAGES, "ledger": three.ledger, "now": three.clock}
    given = approve("2", "production", "ada", "I read the report", **words)
    assert approve("v2", "production", "ada", "again", **words) == given
    approve("2", "production", "bob", "me too", **words)
    assert kinds(three)[3:] == ["approved", "approved"]
    assert holder(three.ledger.events(MODEL), "production") is None
    row = next(r for r in releases(MODEL, ledger=three.ledger) if r.version == "2")
    assert row.approvals == ("ada for production", "bob for production")
    with pytest.raises(Misuse, match="stages are"):
        approve("2", "live", "ada", "r", **words)


def test_releases_say_what_each_version_holds_and_measured(three: World) -> None:
    three.promote("1", to="staging")
    three.promote("1")
    three.promote("2")
    three.registry.delete(MODEL, "3")
    rows = releases(MODEL, ledger=three.ledger, registry=three.registry)
    assert [(r.version, r.stages, r.missing) for r in rows] == [
        ("3", (), True),
        ("2", ("production",), False),
        ("1", ("staging",), False),
    ]
    assert rows[1].metrics == {"exact_match": "0.9 [0.85, 0.95]"}
    assert (rows[1].registered_by, rows[1].reason) == ("tuneline", "the gate passed it")


def test_history_tells_it_in_sentences(three: World) -> None:
    three.promote("1", to="staging")
    three.promote("1")
    three.promote("2")
    three.rollback()
    said = [row.sentence for row in history(MODEL, "production", ledger=three.ledger)]
    assert said == [
        "ada promoted version 1 to production: looks good",
        "ada promoted version 2 to production after 1: looks good",
        "bob rolled production back from 2 to 1: it misbehaves",
    ]
    assert len(history(MODEL, ledger=three.ledger)) == 7
    with pytest.raises(Misuse, match="staging"):
        history(MODEL, "live", ledger=three.ledger)


def test_reconcile_undoes_what_a_hand_did_and_says_so(three: World) -> None:
    three.promote("1", to="staging")
    three.promote("2")
    mend = lambda: reconcile(MODEL, STAGES, registry=three.registry, ledger=three.ledger)  # noqa: E731
    assert mend() == ()
    three.registry.point(MODEL, "production", "3")
    three.registry.point(MODEL, "staging", None)
    three.registry.point(MODEL, "mine", "3")
    three.registry.set_version_tags(MODEL, "2", {"tuneline.decision": "forged"})
    events = three.ledger.events(MODEL)
    assert mend() == (
        "version 2: restored the tags tuneline.decision",
        "the alias staging named nothing; it names 1 again, as the ledger says",
        "the alias production named 3; it names 2 again, as the ledger says",
    )
    assert three.registry.aliases(MODEL) == {"staging": "1", "production": "2", "mine": "3"}
    assert mend() == ()
    assert three.ledger.events(MODEL) == events


def test_reconcile_names_versions_the_registry_has_lost_after_mending_the_rest(three: World) -> None:
    three.promote("1", to="staging")
    three.promote("2")
    three.registry.delete(MODEL, "2")
    three.registry.point(MODEL, "staging", "3")
    with pytest.raises(Broken, match="lost version 2; version 2, which holds production"):
        reconcile(MODEL, STAGES, registry=three.registry, ledger=three.ledger)
    assert alias(three, "staging") == "1"
