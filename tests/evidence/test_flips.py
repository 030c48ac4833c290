"""A seeded sample of what `make drill-flips` does in full: nothing changes in a release or its ledger without being named."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from evidence_world import EvidenceWorld
from flipping import FORGERIES, HARMS, broken, forged, kept, missed_by_the_ledger, targets, unseen_flips

SEED = 6


def test_flipped_bytes_of_every_file_are_found(world: EvidenceWorld) -> None:
    dice = random.Random(SEED)
    found = targets(world)
    assert len(found) > 25
    for target in found:
        size = target.path.stat().st_size
        offsets = {0, size - 1, *(dice.randrange(size) for _ in range(20))}
        assert target.check() is None
        assert unseen_flips(target, iter(sorted(offsets)), dice) == [], target.path


def test_flipped_bytes_of_the_ledger_and_its_seal_are_found(world: EvidenceWorld) -> None:
    dice = random.Random(SEED)
    for name in ("ledger.db", "ledger.db.seal"):
        path = world.root / "state" / name
        offsets = sorted(dice.randrange(path.stat().st_size) for _ in range(12))
        assert missed_by_the_ledger(world, path, iter(offsets), dice) == [], name
    assert broken(world) == []


@pytest.mark.parametrize("harm", HARMS)
def test_other_harm_to_a_file_is_found_and_named_by_a_whole_audit(world: EvidenceWorld, harm: str, tmp_path: Path) -> None:
    evidence, weights = (
        world.folder / "evidence" / "bom.cdx.json",
        world.folder / "artifacts" / "adapter" / "adapter_model.safetensors",
    )
    for path in (evidence, weights):
        with kept(path):
            HARMS[harm](path, tmp_path)
            assert any(str(path) in line for line in broken(world)), harm
    assert broken(world) == []


def test_a_file_more_and_a_linked_folder_are_named(world: EvidenceWorld, tmp_path: Path) -> None:
    more = world.folder / "evidence" / "more.bin"
    more.write_bytes(b"x")
    assert any(str(more) in line for line in broken(world))
    more.unlink()
    code = world.folder / "code"
    shutil.move(code, tmp_path / "elsewhere")
    code.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert any(str(code) in line for line in broken(world))


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_rewritten_ledger_is_named_by_its_anchors(world: EvidenceWorld, forgery: str) -> None:
    world.promote("1", to="staging")
    world.register("two")  # anchored, which covers the promotion
    assert broken(world) == []
    forged(world, FORGERIES[forgery])
    assert world.ledger.verify() == ()  # by itself it is whole
    assert any(line.startswith("anchor ") for line in broken(world)), forgery
