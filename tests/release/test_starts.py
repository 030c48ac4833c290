"""What training begins from: released adapters put beside the data, refused where nothing may begin from them, and audited."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from release_world import MODEL, STAGES, World

from pipeline import placing
from pipeline.domain.erasure import Erasure
from pipeline.domain.lineage import Chain, Lineage
from pipeline.domain.model import BaseModelRef, Start, Starts, TrainingRun
from pipeline.domain.privacy import key_check
from pipeline.domain.proof import AuditReport, crossed
from pipeline.domain.record import digest_value
from pipeline.domain.release import EventKind, ModelVersion
from pipeline.errors import Misuse, Tampered
from pipeline.modeling.chain import digest_folder
from pipeline.params import Params
from pipeline.placing import place_starts
from pipeline.steps import audit
from pipeline.workspace import Workspace

BASE = BaseModelRef(id="./elsewhere", weights="a" * 64, tokenizer="b" * 64, template="c" * 64)
"""By content the base that the world's versions were tuned on."""


@pytest.fixture(autouse=True)
def same_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "find_base", lambda *_: Path())
    monkeypatch.setattr(placing, "describe_base", lambda *_, **__: BASE)


@pytest.fixture
def released(world: World) -> World:
    world.register("one")
    world.register("two")
    world.promote("1")
    return world


def params(*stages: dict[str, Any]) -> Params:
    train = {"stages": list(stages)} if len(stages) != 1 else stages[0]
    model = {"name": MODEL, "task": "generate", "base": "./x"}
    return Params.model_validate({"model": model, "train": train, "release": {"stages": list(STAGES)}})


def place(world: World, asked: Params, *, dirty: bool = False) -> tuple[Starts, Workspace, list[Path]]:
    """What was placed, where, and which folders were put under DVC."""
    workspace, tracked = Workspace(world.root / "next"), []
    run = SimpleNamespace(
        model=MODEL,
        workspace=workspace,
        store=SimpleNamespace(add=tracked.append),
        code=SimpleNamespace(dirty=dirty),
    )
    return place_starts(world, run, asked), workspace, tracked  # type: ignore[arg-type]


def forget(world: World, *versions: str) -> None:
    """As forget does it, for a record that the data of `versions` held."""
    erasure = Erasure(model=MODEL, ids=("1" * 32,), key_check=key_check(b"k" * 32), rows=1, runs=(), versions=versions)
    world.ledger.append(
        MODEL,
        EventKind.ERASED,
        expected=len(world.ledger.events(MODEL)),
        version="",
        subject=erasure.digest,
        stage=None,
        leaves=None,
        actor="ada",
        reason="a letter",
        at=world.clock(),
        record=erasure.to_json(),
    )


def revoke(world: World, version: str) -> None:
    record = audit.version_record(world.ledger.events(MODEL), version)
    world.ledger.append(
        MODEL,
        EventKind.REVOKED,
        expected=len(world.ledger.events(MODEL)),
        version=version,
        subject=record.digest,
        stage=None,
        leaves=None,
        actor="ada",
        reason="it leaks",
        at=world.clock(),
    )


def test_the_champion_is_laid_beside_the_data_with_the_shards_it_was_trained_on(released: World) -> None:
    starts, workspace, tracked = place(released, params({"start": "champion", "mix": {"replay": 0.3}}))
    (start,) = starts.entries
    assert (start.name, start.model, start.version) == ("champion", MODEL, "1")
    assert digest_folder(workspace.starts / start.folder) == start.adapter_digest
    assert start.shards == ("train",), "shards are named as the parts of the split are"
    assert Starts.read(workspace.starts_record) == starts
    assert starts.parents == (start.training,)
    assert tracked == [workspace.starts]


@pytest.mark.parametrize(
    "stage",
    [{"mix": {"replay": 0.5}}, {"ewc": {"weight": 1.0}}, {"start": "champion"}],
)
def test_whatever_needs_the_champion_gets_it_and_nobody_else(released: World, stage: dict[str, Any]) -> None:
    starts, *_ = place(released, params(stage))
    assert [start.name for start in starts.entries] == ["champion"]


@pytest.mark.parametrize("stage", [{}, {"start": "base"}, {"ewc": {"weight": 0.0}}])
def test_who_asks_for_nothing_gets_an_empty_record(released: World, stage: dict[str, Any]) -> None:
    starts, workspace, tracked = place(released, params(stage))
    assert starts == Starts()
    assert [path.name for path in workspace.starts.iterdir()] == ["starts.json"]
    assert tracked == [workspace.starts]


def test_while_nobody_holds_production_training_begins_from_the_base_and_this_is_said(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    starts, *_ = place(world, params({"start": "champion"}))
    assert starts == Starts()
    assert "nobody holds production" in capsys.readouterr().err


def test_each_stage_of_a_chain_may_begin_from_another_version_and_stale_folders_go(released: World) -> None:
    place(released, params({"start": "version:1"}))
    asked = params({"start": "champion"}, {"start": "version:2"}, {"start": f"version:{MODEL}/2"}, {"start": "version:2"})
    starts, workspace, _ = place(released, asked)
    assert [(s.name, s.version) for s in starts.entries] == [("champion", "1"), ("version:2", "2"), (f"version:{MODEL}/2", "2")]
    assert sorted(p.name for p in workspace.starts.iterdir()) == ["champion", "starts.json", "version-2", f"version-{MODEL}-2"]


def test_a_version_that_there_is_none_of_names_those_there_are(released: World) -> None:
    with pytest.raises(Misuse, match="has no version 9") as unknown:
        place(released, params({"start": "base"}, {"start": "version:9"}))
    assert unknown.value.where == "train.stages.1.start"
    assert "1, 2" in str(unknown.value.fix)
    with pytest.raises(Misuse, match="knows no model 'other'") as stranger:
        place(released, params({"start": "version:other/1"}))
    assert MODEL in str(stranger.value.fix)


def test_nothing_begins_from_a_revoked_version(released: World) -> None:
    revoke(released, "2")
    with pytest.raises(Misuse, match="version 2 of desk was revoked") as refused:
        place(released, params({"start": "version:2"}))
    assert str(refused.value.fix).endswith("begin from: 1")


def test_what_was_made_from_uncommitted_changes_is_no_start_for_what_could_reach_production(world: World) -> None:
    world.register("one", dirty=True)
    with pytest.raises(Misuse, match="uncommitted changes"):
        place(world, params({"start": "version:1"}))
    starts, *_ = place(world, params({"start": "version:1"}), dirty=True)
    assert starts.entries[0].version == "1"


def test_what_has_seen_a_forgotten_record_is_begun_from_no_more(released: World, capsys: pytest.CaptureFixture[str]) -> None:
    forget(released, "1")
    starts, *_ = place(released, params({"start": "champion", "mix": {"replay": 0.3}}))
    assert starts == Starts()
    assert "the champion, version 1, held a record that was forgotten" in capsys.readouterr().err
    with pytest.raises(Misuse, match="version 1 of desk held a record that was forgotten"):
        place(released, params({"start": "version:1"}))
    assert place(released, params({"start": "version:2"}))[0].entries[0].version == "2"


@pytest.mark.parametrize("part", ["weights", "tokenizer", "template"])
def test_an_adapter_of_another_base_is_refused(released: World, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = BASE.model_copy(update={part: "f" * 64})
    monkeypatch.setattr(placing, "describe_base", lambda *_, **__: other)
    with pytest.raises(Misuse, match=f"whose {part} is not that of ./elsewhere"):
        place(released, params({"start": "version:1"}))
    # Its data can be replayed all the same.
    assert place(released, params({"mix": {"replay": 0.3}}))[0].entries


def test_a_damaged_adapter_is_never_begun_from(released: World) -> None:
    weights = released.registry.artifacts(MODEL, "1") / "artifacts" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(Tampered, match="is not the one that was trained"):
        place(released, params({"start": "champion"}))


# The audit of what began from another version.


@pytest.fixture
def continued(released: World) -> World:
    """Version 3 began from version 1, and holds production."""
    starts, *_ = place(released, params({"start": "champion"}))
    released.register("three", candidate=released.candidate("three", starts=starts))
    released.promote("3")
    return released


def proof(world: World) -> AuditReport:
    stores = {"ledger": world.ledger, "registry": world.registry, "archive": world.archive}
    return audit.verify("3", model=MODEL, stages=STAGES, root=world.root, **stores)


def trace(world: World) -> Lineage:
    return audit.show("3", model=MODEL, ledger=world.ledger, archive=world.archive, stages=STAGES)


def test_a_lineage_shows_the_chain_and_what_it_began_from(continued: World) -> None:
    nodes = {node.kind: node for node in trace(continued).nodes}
    first = _training(continued, "1")
    assert nodes["starts"].digest in nodes["training_run"].parents
    assert nodes["starts"].parents == (first.digest,)
    assert nodes["starts"].facts == {"champion": f"{MODEL} version 1, {first.adapter_digest[:12]}"}
    said = nodes["training_run"].facts["stage sft"]
    assert said.startswith(f"sft by lora, 10 steps, from champion (version 1) {first.adapter_digest[:12]}, made ")


def test_a_continued_release_is_proved_back_to_the_version_it_began_from(continued: World) -> None:
    report = proof(continued)
    assert report.broken == ()
    names = [check.name for check in report.checks]
    assert {"starts record", "start champion", "stage sft began from champion", "last stage made adapter"} <= set(names)


def test_a_start_that_was_revoked_since_is_told_and_is_no_break(continued: World) -> None:
    revoke(continued, "1")
    report = proof(continued)
    assert report.broken == ()
    assert next(c for c in report.checks if c.name == "start champion").detail.endswith("revoked by now")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"training": "e" * 64}, "start champion"),
        ({"adapter_digest": "e" * 64}, "start champion"),
        ({"version": "77"}, "start champion"),
        ({"model": "nobody"}, "start champion"),
    ],
)
def test_a_start_that_no_ledger_knows_is_a_break(released: World, change: dict[str, str], name: str) -> None:
    (start,) = place(released, params({"start": "champion"}))[0].entries
    forged = Starts(entries=(start.model_copy(update=change),))
    released.register("three", candidate=released.candidate("three", starts=forged))
    assert name in [check.name for check in proof(released).broken]


def test_stages_that_do_not_hang_together_are_found(released: World) -> None:
    made = released.candidate("three")
    (stage,) = made.training.stages
    entry = Start(name="version:1", model=MODEL, version="1", training="t" * 64, adapter_digest="d" * 64, folder="version-1")
    starts = Starts(entries=(entry,))

    def broken(*stages: Any) -> list[str]:
        training = made.training.model_copy(update={"stages": stages, "starts": starts.digest})
        chain = Chain(version=_record(released, "2"), training=training, starts=starts)
        ours = ("stage ", "last stage")
        return [check.name for check in crossed(chain) if not check.ok and check.name.startswith(ours)]

    first = stage.model_copy(update={"name": "a", "adapter_digest": digest_value("a")})
    from_version = {"name": "a", "start": "d" * 64, "start_from": "version:1 (version 1)", "adapter_digest": digest_value("a")}
    last = stage.model_copy(update={"name": "b", "start": digest_value("a"), "start_from": "stage:a"})
    assert broken(first, last) == broken(stage.model_copy(update=from_version), last) == []
    assert broken(first, last.model_copy(update={"start": "e" * 64})) == ["stage b began from stage:a"]
    assert broken(last) == ["stage b began from stage:a"], "the stage that it names is not there"
    assert broken(first.model_copy(update={"start": "e" * 64}), last) == ["stage a began from base"]
    assert broken(stage.model_copy(update=from_version | {"start": "e" * 64}), last) == ["stage a began from version:1"]
    assert broken(stage.model_copy(update=from_version | {"start_from": "version:2 (version 2)"}), last) == [
        "stage a began from version:2"
    ]
    elsewhere = stage.model_copy(update=from_version | {"start_from": "./brought", "start": "e" * 64})
    assert broken(elsewhere, last) == [], "what was brought from elsewhere has no record of ours"
    assert broken() == broken(first) == ["last stage made adapter"]


def _record(world: World, version: str) -> ModelVersion:
    return audit.version_record(world.ledger.events(MODEL), version)


def _training(world: World, version: str) -> TrainingRun:
    record = _record(world, version)
    text, where = world.archive.record(record, record.training)
    return TrainingRun.from_json(text, where=where)
