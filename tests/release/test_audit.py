"""Audit: the lineage of a release, the proof of it down to the sources, and who held a stage when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from folder_registry import FolderRegistry
from release_world import MODEL, STAGES, StoreArchive, World

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.lineage import Chain
from pipeline.domain.model import Champion
from pipeline.domain.proof import AuditReport, adapter_folder, crossed
from pipeline.domain.record import FileDigest, digest_file
from pipeline.domain.release import ModelVersion
from pipeline.domain.wording import instant
from pipeline.errors import Broken, Misuse
from pipeline.steps import audit


@pytest.fixture
def released(world: World) -> World:
    world.register("one")
    world.register("two")
    world.promote("1")
    world.promote("2")
    return world


def proof(world: World, version: str = "production", **more: object) -> AuditReport:
    stores = {"ledger": world.ledger, "registry": world.registry, "archive": world.archive}
    return audit.verify(version, model=MODEL, stages=STAGES, root=world.root, **stores, **more)


def flip(path: Path, offset: int = 5) -> None:
    content = path.read_bytes()
    offset %= len(content)
    path.write_bytes(content[:offset] + bytes([content[offset] ^ 4]) + content[offset + 1 :])


def stored(world: World, path: str, tag: str = "run-two") -> Path:
    lines = (world.archive.root / f"{tag}.list").read_text().splitlines()
    return world.archive.stored(next(md5 for md5, name in (line.split(" ", 1) for line in lines) if name == path))


def test_a_whole_release_is_proved_link_by_link(released: World) -> None:
    report = proof(released)
    assert report.broken == ()
    assert report.ok
    names = [c.name for c in report.checks]
    assert names[0] == "ledger"
    expected = [
        "alias production",
        "registry tags",
        "model files",
        "report files",
        "decision record",
        "snapshot record",
        "source",
    ]
    assert [n for n in names if n in expected] == expected
    assert "still there, unchanged" in report.checks[-1].detail
    assert report == proof(released, "v2") == proof(released, report.subject[:12])
    assert AuditReport.from_json(report.to_json(), digest=report.digest) == report
    assert proof(released, "1").ok


RUN_FILES = [
    "data/snapshot/shards/0123456789abcdef.parquet",
    "data/snapshot/quarantine/fedcba9876543210.jsonl",
    "data/snapshot/snapshot.json",
    "data/starts/starts.json",
    "data/champion/champion.json",
    "work/validate/validation.json",
    "work/validate/validation.html",
    "data/frozen/frozen.json",
    "data/reserved/snapshot.json",
    "work/curate/curation.json",
    "work/curate/dropped.parquet",
    "work/split/splits.json",
    "work/split/test.parquet",
    "work/train/training.json",
    "work/train/adapter/adapter_model.safetensors",
    "work/evaluate/evaluation.json",
    "work/evaluate/predictions.parquet",
    "work/release/decision.json",
]


@pytest.mark.parametrize("path", RUN_FILES)
@pytest.mark.parametrize("harm", ["flip", "empty", "remove"])
def test_any_stored_file_of_the_run_that_changes_is_named(released: World, path: str, harm: str) -> None:
    place = stored(released, path)
    {"flip": flip, "empty": lambda p: p.write_bytes(b""), "remove": Path.unlink}[harm](place)
    report = proof(released)
    assert not report.ok
    assert any(path in c.detail for c in report.broken), [c.detail for c in report.broken]


@pytest.mark.parametrize("offset", [0, 1, 7, 50, -1])
def test_every_byte_of_a_shard_counts(released: World, offset: int) -> None:
    flip(stored(released, RUN_FILES[0]), offset)
    assert [c.name for c in proof(released).broken] == ["data file"]


@pytest.mark.parametrize(
    ("find", "name"),
    [
        (lambda w: w.registry.artifacts(MODEL, "2") / "artifacts" / "adapter" / "adapter_model.safetensors", "model file"),
        (lambda w: w.registry.artifacts(MODEL, "2") / "code" / "loading.py", "model file"),
        (lambda w: next((w.registry.root / "runs").glob("*/logged/report.html")), "report file"),
        (lambda w: w.root / "state" / "ledger.db", "ledger"),
        (lambda w: w.root / "state" / "ledger.db.seal", "ledger"),
    ],
)
def test_a_flipped_byte_in_the_adapter_a_report_or_the_ledger_is_named(
    released: World, find: Callable[[World], Path], name: str
) -> None:
    place = find(released)
    version = "production"
    if name == "report file":
        record = next(r for r in released.ledger.events(MODEL) if r.record and place.parent.parent.name in r.record)
        version = record.version
    flip(place, place.stat().st_size // 2)
    report = proof(released, version)
    assert report.broken[0].name == name
    assert str(place) in report.broken[0].detail


def test_all_breaks_are_named_nearest_to_the_release_first(released: World) -> None:
    flip(released.registry.artifacts(MODEL, "2") / "code" / "loading.py")
    flip(stored(released, "work/train/training.json"))
    flip(stored(released, RUN_FILES[0]))
    report = proof(released)
    assert [c.name for c in report.broken] == [
        "model file",
        "training record",
        "starts record",
        "splits record",
        "curation record",
        "frozen record",
        "reserved record",
        "validation record",
        "snapshot record",
        "data file",
        "data file",
    ]
    assert "not reached: the training record" in report.broken[2].detail
    with pytest.raises(Broken, match="no record with the digest"):
        audit.show("2", model=MODEL, ledger=released.ledger, archive=released.archive)


def test_an_extra_file_in_the_model_is_named_and_one_in_the_run_is_not(released: World) -> None:
    (released.registry.run_artifacts(_record(released, "2").run_id) / "later.html").write_text("logged after registration")
    assert proof(released).ok
    extra = released.registry.artifacts(MODEL, "2") / "adapter.bin"
    extra.write_bytes(b"pickle")
    assert [c.detail for c in proof(released).broken] == [f"{extra} was not there when this was recorded"]


def test_an_alias_or_tag_moved_by_hand_and_a_deleted_version_are_named(released: World) -> None:
    released.registry.point(MODEL, "production", "1")
    released.registry.set_version_tags(MODEL, "2", {"tuneline.tag": "another"})
    assert [c.name for c in proof(released).broken] == ["alias production", "registry tags"]
    assert [c.name for c in proof(released, "1").broken] == ["alias production"]
    released.registry.delete(MODEL, "2")
    assert [c.name for c in proof(released, "2").broken] == ["alias production", "registry", "model file"]


def test_a_source_that_moved_on_is_told_and_not_held_against_the_release(released: World) -> None:
    source = released.root / "inbox" / "week1.jsonl"
    source.write_text("new rows\n")
    report = proof(released)
    assert report.ok
    assert "has moved on since" in report.checks[-1].detail
    source.unlink()
    source.symlink_to("/etc/hostname")
    assert proof(released).checks[-1].detail.endswith("10 of 11 rows accepted")


class HalfArchive(StoreArchive):
    """An archive that has lost a file and stops there, as one does whose store raises."""

    def files(self, version):
        for file in super().files(version):
            if file.path.startswith("work/train/adapter") and self.strict:
                raise Broken("the data store has lost this file", where=file.path)
            yield file

    strict = False

    def record(self, version, digest):
        self.strict = False
        found = super().record(version, digest)
        self.strict = True
        return found


def test_an_archive_that_stops_leaves_nothing_unsaid(released: World) -> None:
    released.archive = HalfArchive(released.archive.root)
    said = [c.detail for c in proof(released).broken]
    assert "the data store has lost this file" in said[0]
    assert any("adapter_config.json: recorded, but not found" in line for line in said)


def test_a_broken_ledger_still_gives_a_report(released: World) -> None:
    path = released.root / "state" / "ledger.db"
    path.write_bytes(path.read_bytes()[:5000])
    report = audit.verify("production", model=MODEL, ledger=SqlLedger(path), registry=released.registry, archive=released.archive)
    assert not report.ok
    assert report.version is None
    assert [c.name for c in report.broken] == ["ledger", "release"]


def test_unknown_things_are_misuse_with_what_there_is(released: World) -> None:
    for version in ("7", "canary", "ffffffff"):
        with pytest.raises(Misuse) as caught:
            proof(released, version)
        assert "versions: 1, 2; stages held: production" in str(caught.value)
    with pytest.raises(Misuse, match="no version holds staging"):
        proof(released, "staging")
    with pytest.raises(Misuse, match="there are: desk"):
        audit.at("dusk", "production", datetime.now(UTC), ledger=released.ledger)
    with pytest.raises(Misuse, match="no stage 'live'"):
        audit.at(MODEL, "live", datetime.now(UTC), ledger=released.ledger, stages=STAGES)


def test_show_goes_from_the_release_back_to_the_sources(released: World) -> None:
    shown = audit.show("production", model=MODEL, ledger=released.ledger, archive=released.archive, stages=STAGES)
    assert (shown.version, shown.stages) == ("2", ("production",))
    assert [(e.event.value, e.actor) for e in shown.events] == [("registered", "tuneline"), ("promoted", "ada")]
    assert [n.kind for n in shown.nodes] == [
        "model_version",
        "gate_decision",
        "evaluation_report",
        "champion",
        "training_run",
        "starts",
        "splits",
        "curation",
        "frozen",
        "reserved",
        "validation_report",
        "snapshot",
        "source",
    ]
    by_kind = {n.kind: n for n in shown.nodes}
    named = {digest for n in shown.nodes for digest in n.parents}
    assert all(n.digest in named for n in shown.nodes[1:])
    assert by_kind["evaluation_report"].facts["exact_match"] == "0.9 [0.85, 0.95]"
    assert by_kind["gate_decision"].facts["verdict"] == "passed"
    assert by_kind["source"].where == "inbox/week1.jsonl"
    assert by_kind["source"].digest == digest_file(released.root / "inbox" / "week1.jsonl")


def test_records_that_do_not_speak_of_each_other_are_found(released: World) -> None:
    one, two = released.candidate("three"), released.candidate("four")
    record = _record(released, "2")

    def wrong(**changes: object) -> set[str]:
        fine = Chain(
            version=record.model_copy(
                update={
                    "training": one.training.digest,
                    "evaluation": one.evaluation.digest,
                    "decision": one.decision.digest,
                    "adapter_digest": one.training.adapter_digest,
                    "files": one.training.adapter,
                }
            ),
            decision=one.decision,
            evaluation=one.evaluation,
            training=one.training,
        )
        parts = {name: changes.get(name, getattr(fine, name)) for name in Chain.__slots__}
        return {c.name for c in crossed(Chain(**parts)) if not c.ok}

    assert wrong() == set()
    assert wrong(decision=two.decision) == {"decision names evaluation", "decision names training", "decision names adapter"}
    failed = GateDecision.model_validate({**one.decision.model_dump(), "verdict": Outcome.INSUFFICIENT})
    assert wrong(decision=failed) == {"gate verdict"}
    assert wrong(evaluation=two.evaluation) == {"evaluation names training", "evaluation measured adapter"}
    assert wrong(training=two.training) == {"training made adapter", "registered adapter"}


def test_the_adapter_is_found_wherever_the_model_keeps_it() -> None:
    def files(**named: str) -> tuple[FileDigest, ...]:
        return tuple(FileDigest(path=p.replace("__", "/"), sha256=d, bytes=1) for p, d in named.items())

    adapter = files(a="1", sub__b="2")
    assert adapter_folder(files(a="1", sub__b="2"), adapter) == ""
    assert adapter_folder(files(x__a="9", deep__er__a="1", deep__er__sub__b="2", other="3"), adapter) == "deep/er"
    assert adapter_folder(files(x__a="1", y__sub__b="2"), adapter) is None
    assert adapter_folder(files(x__a="1", x__sub__b="3"), adapter) is None
    assert adapter_folder(files(xa="1", xsub__b="2"), adapter) is None
    assert adapter_folder(files(a="1"), ()) is None


def test_who_held_production_at_an_instant(world: World) -> None:
    times = iter(
        instant(text, "Europe/Berlin")
        for text in ("2026-03-28T10:00", "2026-03-28T11:00", "2026-03-29T01:30", "2026-03-29T03:30", "2026-10-25T12:00")
    )
    world.clock = lambda: next(times)
    world.register("one")
    world.register("two")
    world.promote("1")
    world.promote("2")
    world.rollback()

    def held(text: str, zone: str = "Europe/Berlin") -> str | None:
        return audit.at(MODEL, "production", instant(text, zone), ledger=world.ledger).version

    # One hour, not two, lies between 01:30 and 03:30 on the night the clocks go forward.
    assert held("2026-03-29T00:59:59Z") == "1"
    assert held("2026-03-29T01:29:59Z") == "1"
    assert held("2026-03-29T01:30:00Z") == "2"
    assert held("2026-03-29T03:29") == "1"
    assert held("2026-03-28") is None
    assert held("2026-03-29") == "2"
    assert held("2026-10-25T02:30+02:00") == held("2026-10-25T02:30+01:00") == "2"
    assert held("2026-10-25", "America/Los_Angeles") == "1"
    assert held("2026-10-24T20:00", "America/Los_Angeles") == "2"
    found = audit.at(MODEL, "production", instant("2026-06-01"), ledger=world.ledger)
    assert (found.event.actor, found.event.reason, found.until.actor) == ("ada", "looks good", "bob")
    with pytest.raises(Misuse, match="no instant"):
        audit.at(MODEL, "production", datetime(2026, 6, 1), ledger=world.ledger)


def test_a_clock_that_was_set_back_puts_no_event_before_an_earlier_one(world: World) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    times = iter(start + timedelta(hours=h) for h in (0, 0, 5, 2, 8))
    world.clock = lambda: next(times)
    world.register("one")
    world.register("two")
    world.promote("1")
    world.promote("2")
    world.rollback()
    at = [
        audit.at(MODEL, "production", start + timedelta(hours=h), ledger=world.ledger, stages=STAGES).version
        for h in (1, 3, 5, 7, 9)
    ]
    assert at == [None, None, "2", "2", "1"]


def _record(world: World, version: str) -> ModelVersion:
    event = next(e for e in world.ledger.events(MODEL) if e.version == version and e.record)
    return ModelVersion.from_json(event.record)


def test_the_folder_registry_really_forgets_aliases_with_versions(released: World) -> None:
    registry: FolderRegistry = released.registry
    registry.delete(MODEL, "2")
    assert registry.aliases(MODEL) == {}


def test_an_evaluation_against_another_champion_is_found(released: World) -> None:
    made = released.candidate("three")
    held = Champion(version="1", training="t" * 64, adapter_digest="d" * 64)
    chain = Chain(version=_record(released, "2"), evaluation=made.evaluation, champion=held)
    found = next(c for c in crossed(chain) if c.name == "evaluation measured champion")
    assert not found.ok
    assert found.detail == f"it names none, not {'d' * 12}"
