"""`make drill-flips`: every byte of every small file of a release, ten thousand random bytes of its large one, and every other
harm to files and ledger: all found, all named. FLIPS sets the number of random flips, SEED which.

Flips are looked at file by file through the functions that `audit verify` calls for that file; the whole audit is run on a sample
of them, and on everything else. A planted bug (a check that looks at the first half of a file) must be caught by the same drill.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from pathlib import Path

import pytest

for _place in ("evidence", "release"):
    sys.path.append(str(Path(__file__).resolve().parent.parent / _place))

from evidence_world import EvidenceWorld  # noqa: E402
from flipping import (  # noqa: E402
    FORGERIES,
    HARMS,
    Target,
    broken,
    flip,
    forged,
    kept,
    missed_by_the_ledger,
    targets,
    unseen_flips,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FLIPS = int(os.environ.get("FLIPS", "10000"))
SEED = int(os.environ.get("SEED", "6"))
SMALL = 64 << 10
LARGE = 4 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> EvidenceWorld:
    """Version 1 with an adapter of 4 MiB, promoted and anchored."""
    import release_world

    put = release_world._put

    def bigger(path: Path, content: bytes) -> Path:
        weights = path.name == "adapter_model.safetensors"
        return put(path, random.Random(SEED).randbytes(LARGE) if weights else content)

    release_world._put = bigger
    try:
        world = EvidenceWorld(tmp_path_factory.mktemp("flips"))
        world.register("one")
    finally:
        release_world._put = put
    world.promote("1")
    world.promote("1", to="staging")
    world.anchor_head()
    return world


def test_every_byte_of_every_small_file(made: EvidenceWorld) -> None:
    dice, flipped, files = random.Random(SEED), 0, 0
    for target in targets(made):
        size = target.path.stat().st_size
        if size > SMALL:
            continue
        assert target.check() is None
        assert unseen_flips(target, range(size), dice) == [], target.path
        flipped, files = flipped + size, files + 1
    print(f"\n{flipped:,} single-byte flips of {files} small files, each found")
    assert flipped > 10_000


def test_random_bytes_of_the_large_file(made: EvidenceWorld) -> None:
    dice = random.Random(SEED)
    large = [target for target in targets(made) if target.path.stat().st_size > SMALL]
    assert len(large) == 2  # the registered one, and the data store's copy
    for target in large:
        offsets = [dice.randrange(LARGE) for _ in range(FLIPS // len(large))]
        assert unseen_flips(target, iter(offsets), dice) == [], target.path
    print(f"\n{FLIPS:,} random flips of {len(large)} files of {LARGE >> 20} MiB, each found")


def test_a_check_that_reads_half_a_file_is_caught(made: EvidenceWorld) -> None:
    path = made.folder / "evidence" / "README.md"
    half = path.stat().st_size // 2
    whole = hashlib.sha256(path.read_bytes()[:half]).digest()
    lazy = Target(path, str(path), lambda: None if hashlib.sha256(path.read_bytes()[:half]).digest() == whole else "changed")
    assert unseen_flips(lazy, range(path.stat().st_size), random.Random(SEED)) == list(range(half, path.stat().st_size))


def test_a_whole_audit_names_the_file_that_was_flipped(made: EvidenceWorld) -> None:
    dice = random.Random(SEED)
    found = targets(made)
    for target in found:
        offset, mask = dice.randrange(target.path.stat().st_size), dice.randrange(1, 256)
        flip(target.path, offset, mask)
        said = broken(made)
        flip(target.path, offset, mask)
        assert any(target.named in line for line in said), (target.path, offset, said)
    assert broken(made) == []


@pytest.mark.parametrize("harm", HARMS)
def test_other_harm_to_every_file(made: EvidenceWorld, harm: str, tmp_path: Path) -> None:
    for target in targets(made):
        if harm == "a link to the same bytes" and not target.path.is_relative_to(made.folder):
            continue  # the data store may keep a file as a link: what counts there is its bytes
        with kept(target.path):
            HARMS[harm](target.path, tmp_path)
            said = broken(made)
        assert any(target.named in line for line in said), (harm, target.path, said)
    assert broken(made) == []


def test_every_byte_of_the_seal_and_bytes_of_the_ledger(made: EvidenceWorld) -> None:
    dice = random.Random(SEED)
    state = made.root / "state"
    size = (state / "ledger.db.seal").stat().st_size
    assert missed_by_the_ledger(made, state / "ledger.db.seal", range(size), dice) == []
    pages = (state / "ledger.db").stat().st_size
    offsets = [dice.randrange(pages) for _ in range(min(FLIPS, 2000))]
    assert missed_by_the_ledger(made, state / "ledger.db", iter(offsets), dice) == []
    print(f"\n{size + len(offsets):,} flips of the ledger's seal and file, each found")


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_rewritten_ledger(made: EvidenceWorld, forgery: str) -> None:
    honest = list(made.ledger.events("desk"))
    forged(made, FORGERIES[forgery])
    assert made.ledger.verify() == ()
    said = broken(made)
    forged(made, lambda _: honest)
    assert any(line.startswith("anchor ") for line in said), (forgery, said)
    assert broken(made) == []
