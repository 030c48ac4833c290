"""How fast `audit verify` reads a large release, beside `sha256sum` on the very same files, in one run.

A release of the given size is made (random bytes; registered, promoted and anchored as any other), then every file that the
audit hashes, each stored copy included, is given to sha256sum. Both run warm and in turn; the middle of the rounds counts.

    python bench/audit.py --gib 2 --rounds 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "evidence"), str(ROOT / "tests" / "release")]

from evidence_world import EvidenceWorld  # noqa: E402
from release_world import Candidate  # noqa: E402

from pipeline.domain import proof  # noqa: E402

PIECE = 64 << 20


def fill(path: Path, size: int) -> None:
    block = os.urandom(PIECE)
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            # Not the same block twice: no store may save itself the second one.
            file.write(start.to_bytes(8, "big") + block[8 : min(PIECE, size - start)])


def large(world: EvidenceWorld, size: int) -> Candidate:
    """A candidate whose adapter is one file of `size` bytes."""
    import release_world

    put = release_world._put

    def bigger(path: Path, content: bytes) -> Path:
        made = put(path, content)
        if path.name == "adapter_model.safetensors":
            fill(made, size)
        return made

    release_world._put = bigger
    try:
        return world.candidate("one")
    finally:
        release_world._put = put


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def read_by(world: EvidenceWorld) -> list[Path]:
    """The files that an audit hashes, in its order, as often as it does."""
    files: list[Path] = []
    sha, both = proof.digest_file, proof.fingerprints

    def one(path: Path) -> str:
        files.append(path)
        return sha(path)

    def two(path: Path) -> tuple[str, str]:
        files.append(path)
        return both(path)

    from pipeline.steps import audit

    proof.digest_file, audit.fingerprints = one, two  # type: ignore[assignment]
    try:
        assert world.verify().ok
    finally:
        proof.digest_file, audit.fingerprints = sha, both
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = EvidenceWorld(Path(folder))
        world.register("one", candidate=large(world, int(asked.gib * (1 << 30))))
        world.promote("1")
        world.anchor_head()
        files = read_by(world)
        total = sum(path.stat().st_size for path in files)
        command = ["sha256sum", *map(str, files)]
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(asked.rounds):
            theirs.append(seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)))
            ours.append(seconds(lambda: world.verify()))
    mib = total / (1 << 20)
    we, they = statistics.median(ours), statistics.median(theirs)
    print(f"{len(files)} files read, {mib:,.0f} MiB (the model's files, and each stored copy by SHA-256 and MD5)")
    print(f"sha256sum    {they:7.2f} s  {mib / they:7,.0f} MiB/s   rounds {', '.join(f'{t:.2f}' for t in theirs)}")
    print(f"audit verify {we:7.2f} s  {mib / we:7,.0f} MiB/s   rounds {', '.join(f'{t:.2f}' for t in ours)}")
    print(f"audit verify reads at {they / we:.2f} of the speed of sha256sum (at least 0.80 is wanted)")


if __name__ == "__main__":
    main()
