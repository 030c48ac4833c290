"""What a version says about itself: laid at registration, checked ever after, by public libraries and against the records."""

from __future__ import annotations

import base64
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from evidence_world import EvidenceWorld
from release_world import MODEL, World

from pipeline.backends.bill_of_materials import bill_problem
from pipeline.backends.evidence import SignedEvidence
from pipeline.backends.signing import Signer, open_envelope
from pipeline.domain.evidence import BOM, CARD, KEY, PARTS, SIGNATURE, STATEMENT, agreement, seeds
from pipeline.domain.gating import Outcome
from pipeline.domain.lineage import Chain, read_chain
from pipeline.domain.proof import differences
from pipeline.domain.release import ModelVersion, version_record
from pipeline.errors import Misuse, Tampered
from pipeline.steps.register import register


def record(world: EvidenceWorld, version: str = "1") -> ModelVersion:
    return version_record(world.ledger.events(MODEL), version)


def chain(world: EvidenceWorld, version: str = "1") -> Chain:
    about = record(world, version)
    return read_chain(about, lambda digest: world.archive.record(about, digest))[0]


def test_all_of_it_is_among_the_versions_files_and_verified(world: EvidenceWorld) -> None:
    assert set(PARTS) <= {f.path for f in record(world).files}
    report = world.verify()
    assert report.broken == ()
    checks = {c.name: c.detail for c in report.checks}
    assert checks["signature"].startswith("OpenSSF model signature over 7 files")
    assert checks["anchors"] == "up to event 2 by 2 anchors"
    assert {"statement params", "statement base", "statement sources", "statement metrics", "statement params.yaml"} <= set(
        checks
    )
    assert os.stat(world.root / "state" / "signing-key.pem").st_mode & 0o777 == 0o600


def test_the_statement_says_what_a_person_would_ask(world: EvidenceWorld) -> None:
    statement = world.evidence.statement(world.folder)
    assert [s["name"] for s in statement["subject"]] == [
        "artifacts/adapter/adapter_config.json",
        "artifacts/adapter/adapter_model.safetensors",
        "code/loading.py",
    ]
    definition = statement["predicate"]["buildDefinition"]
    by_name = {d["name"]: d for d in definition["resolvedDependencies"]}
    assert by_name["commit"]["digest"] == {"gitCommit": "c" * 40}
    assert by_name["base"]["annotations"]["weights"] == "a" * 64
    assert by_name["source inbox/week1.jsonl"]["annotations"] == {"rows accepted": 10}
    assert definition["externalParameters"]["gate"] == {"thresholds": {"exact_match": 0.8}}
    assert definition["internalParameters"]["installed"]["distributions"] > 5
    byproducts = {b["name"]: b for b in statement["predicate"]["runDetails"]["byproducts"]}
    assert byproducts["decision"]["annotations"]["verdict"] == "passed"
    assert byproducts["evaluation"]["annotations"]["metrics"][0]["low"] == 0.85
    assert {CARD, BOM} <= set(byproducts)
    assert seeds({"train": {"seed": 7, "stages": [{"seed": 8}, {}]}}) == {"train.seed": 7, "train.stages.0.seed": 8}


def test_the_bill_lists_models_data_and_libraries(world: EvidenceWorld) -> None:
    text = (world.folder / BOM).read_text()
    bom = json.loads(text)
    kinds = {c["type"] for c in bom["components"]}
    assert kinds == {"machine-learning-model", "data", "library"}
    assert bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["confidenceInterval"] == {
        "lowerBound": "0.85",
        "upperBound": "0.95",
    }
    assert any(c["name"] == "cryptography" and c["purl"].startswith("pkg:pypi/cryptography@") for c in bom["components"])
    assert bill_problem(text) is None
    assert "not" in str(bill_problem(text.replace('"machine-learning-model"', '"spell"')))


def test_the_card_is_one_that_the_hub_reads(world: EvidenceWorld) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(world.folder / CARD)
    assert card.data.base_model == "./base"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.model_name == "desk@1"
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results] == [("exact_match", 0.9)]
    for heading in ("Intended use", "Metrics", "Data", "Training", "Limits", "Evidence"):
        assert f"\n## {heading}\n" in card.content


def test_a_version_from_before_evidence_stays_verifiable_and_is_told(tmp_path: Path) -> None:
    world = EvidenceWorld(tmp_path)
    World.register(world, "one")
    report = world.verify()
    assert report.ok
    assert next(c.detail for c in report.checks if c.name == "evidence").startswith("made before evidence")


def test_a_part_that_was_never_recorded_is_named(world: EvidenceWorld) -> None:
    about = record(world)
    fewer = about.model_copy(update={"files": tuple(f for f in about.files if f.path != SIGNATURE)})
    found = list(world.evidence.check(fewer, chain(world), world.folder, {}))
    assert [(c.name, c.ok) for c in found] == [("evidence", False)]
    assert SIGNATURE in found[0].detail


def forge(world: EvidenceWorld, **changes: object) -> dict[str, str]:
    """The checks that fail when the statement of version 1, signed with the project's own key, says something else."""
    statement = world.evidence.statement(world.folder)
    text = json.dumps(statement)
    for old, new in changes.items():
        assert old.replace("__", " ") in text
        text = text.replace(old.replace("__", " "), str(new))
    (world.folder / STATEMENT).write_bytes(world.evidence.release(json.loads(text)))
    committed = {"params.yaml": None, "dvc.lock": None}
    return {c.name: c.detail for c in world.evidence.check(record(world), chain(world), world.folder, committed) if not c.ok}


def test_a_statement_about_something_else_is_named_field_by_field(world: EvidenceWorld) -> None:
    assert set(forge(world)) == {"statement params.yaml", "statement dvc.lock"}
    about, others = record(world), {"statement params.yaml", "statement dvc.lock"}
    fake = "f" * 64
    assert set(forge(world, **{"c" * 40: "d" * 40})) - others == {"statement commit"}
    assert set(forge(world, **{about.decision: fake})) - others == {"statement commit", "statement decision"}
    assert set(forge(world, passed="failed")) - others >= {"statement verdict"}
    assert "statement metrics" in forge(world, **{"0.85": "0.89"})


def test_a_gate_result_of_another_candidate_is_refused_and_named(world: EvidenceWorld) -> None:
    one, two = world.candidate("three"), world.candidate("four")
    words = {"name": MODEL, "commit": "c" * 40, "dirty": False, "actor": "mallory", "reason": "please"}
    stores = {"registry": world.registry, "ledger": world.ledger, "archive": world.archive, "evidence": world.evidence}
    with pytest.raises(Misuse, match="the decision is about another training run"):
        register(
            two.decision,
            one.training,
            one.evaluation,
            run_id=one.run_id,
            tag=one.tag,
            source=f"runs:/{one.run_id}/model",
            **words,
            **stores,
        )
    assert "3" not in world.registry.versions(MODEL)
    # Whoever gets past that, with the project's own key, is found by the audit: the statement is bound to its records by digest.
    mine = chain(world)
    other = replace(mine, decision=two.decision.model_copy(update={"verdict": Outcome.INSUFFICIENT}))
    wrong = {c.name for c in agreement(world.evidence.statement(world.folder), record(world), other) if not c.ok}
    assert wrong == {"statement verdict"}
    swapped = record(world).model_copy(update={"decision": two.decision.digest})
    wrong = {c.name for c in agreement(world.evidence.statement(world.folder), swapped, mine) if not c.ok}
    assert wrong == {"statement decision"}


def test_a_foreign_key_signs_nothing_here(world: EvidenceWorld, tmp_path: Path) -> None:
    foreign = SignedEvidence(Signer(tmp_path / "foreign.pem"))
    statement = world.evidence.statement(world.folder)
    (world.folder / STATEMENT).write_bytes(foreign.release(statement))
    found = {c.name: c.detail for c in world.verify().broken}
    assert "was not signed by the key beside it" in found["statement"]
    # With the forger's key put in the place of the project's, the ledger still names the one that was there.
    (world.folder / KEY).write_bytes(foreign.public_key)
    broken = world.verify().broken
    assert KEY in next(c.detail for c in broken if c.name == "signature")
    assert any(KEY in c.detail for c in broken if c.name == "model file")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"payload": 7, "payloadType": "x", "signatures": []}',
        b"[" * 100_000,
        b'{"a": 1',
    ],
)
def test_what_is_no_envelope_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Tampered):
        open_envelope(content, Signer(tmp_path / "key.pem").public_pem, where="here")


def test_an_envelope_without_its_signature_or_of_another_type_is_refused(world: EvidenceWorld) -> None:
    whole = json.loads((world.folder / STATEMENT).read_bytes())
    for changes in ({"signatures": []}, {"payloadType": "text/plain"}, {"payload": base64.b64encode(b"7").decode()}):
        with pytest.raises(Tampered):
            open_envelope(json.dumps({**whole, **changes}).encode(), world.evidence.public_key, where="here")


def test_a_registration_that_was_interrupted_is_finished_with_the_same_evidence(tmp_path: Path) -> None:
    world = EvidenceWorld(tmp_path)
    made = world.candidate("one")
    whole = world.ledger.append
    world.ledger.append = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt())  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        world.register("one", candidate=made)
    world.ledger.append = whole  # type: ignore[method-assign]
    signed = (world.folder / SIGNATURE).read_bytes()
    done = world.register("one", candidate=made)
    assert (world.folder / SIGNATURE).read_bytes() == signed
    assert world.register("one", candidate=made) == done
    assert world.verify().ok
    # What is there only in part is made anew.
    other = EvidenceWorld(tmp_path / "other") if (tmp_path / "other").mkdir() is None else world
    made = other.candidate("one")
    version = other.registry.register(MODEL, run_id=made.run_id, source=f"runs:/{made.run_id}/model", tags={})
    torn = other.registry.artifacts(MODEL, version) / "evidence"
    shutil.copytree(world.folder / "evidence", torn)
    (torn / "model.sig").write_text("{")
    other.register("one", candidate=made)
    assert other.verify().ok
    assert differences(other.folder, record(other).files) == ()


def test_a_key_that_can_not_sign_is_misuse(tmp_path: Path) -> None:
    for name, content in (("none.pem", None), ("text.pem", "no key")):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(Misuse, match="signing key"):
            _ = Signer(tmp_path / name, make=False).public_pem
