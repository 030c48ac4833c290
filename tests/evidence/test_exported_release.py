"""The archive for strangers: every command of its README works where Tuneline can not be imported."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from evidence_world import EvidenceWorld
from release_world import MODEL, STAGES

from pipeline.backends.evidence_archive import pack, requirements
from pipeline.errors import Misuse, Tampered
from pipeline.steps.export_evidence import gather


def gathered(world: EvidenceWorld, version: str = "1") -> dict[str, bytes | Path]:
    stores = {"ledger": world.ledger, "registry": world.registry, "archive": world.archive}
    proofs = {"evidence": world.evidence, "anchors": world.anchors}
    return gather(version, model=MODEL, stages=STAGES, requirements=requirements, **stores, **proofs)[1]


@pytest.fixture
def exported(world: EvidenceWorld, tmp_path: Path) -> Path:
    pack(gathered(world), tmp_path / "exported")
    return tmp_path / "exported"


def commands(folder: Path) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def stranger(folder: Path, command: str, aside: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the README as a stranger would: `python` is the one with the public tools, and Tuneline is not there."""
    (aside / "bin").mkdir(parents=True, exist_ok=True)
    (aside / "absent" / "pipeline").mkdir(parents=True, exist_ok=True)
    (aside / "absent" / "pipeline" / "__init__.py").write_text("raise ImportError('there is no Tuneline here')\n")
    if not (aside / "bin" / "python").exists():
        (aside / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (aside / "bin" / "python").chmod(0o755)
    environment = {"PATH": f"{aside / 'bin'}:/usr/bin:/bin", "PYTHONPATH": str(aside / "absent"), "HOME": str(aside)}
    line = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env=environment)


def test_a_stranger_verifies_it_by_the_commands_of_its_readme(exported: Path, tmp_path: Path) -> None:
    assert stranger(exported, "python -c 'import pipeline'", tmp_path / "aside").returncode != 0
    found = commands(exported)
    assert len(found) == 5
    said = ""
    for command in found:
        done = stranger(exported, command, tmp_path / "aside")
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    assert "Verification succeeded" in said
    assert "promoted production by ada - looks good" in said
    assert "2 events, an unbroken chain" in said
    assert "valid CycloneDX" in said


def test_what_was_changed_fails_a_check_of_the_readme_beside_the_list_of_digests(exported: Path, tmp_path: Path) -> None:
    found, aside = commands(exported), tmp_path / "aside"
    for path, failing in {
        "release/artifacts/adapter/adapter_model.safetensors": 1,
        "records/decision.json": 2,
        "ledger/events.jsonl": 3,
        "release.intoto.json": 3,
    }.items():
        place = exported / path
        content = place.read_bytes()
        middle = len(content) // 2
        place.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        assert stranger(exported, found[0], aside).returncode != 0, path
        assert stranger(exported, found[failing], aside).returncode != 0, path
        place.write_bytes(content)
    assert stranger(exported, found[0], aside).returncode == 0
    (exported / "release" / "more.bin").write_bytes(b"x")
    assert stranger(exported, found[0], aside).returncode != 0


def test_the_same_release_gives_the_same_archive(world: EvidenceWorld, tmp_path: Path) -> None:
    first = pack(gathered(world), tmp_path / "one.tar")
    os.utime(world.folder / "artifacts" / "adapter" / "adapter_config.json", (1, 1))
    assert pack(gathered(world, "production"), tmp_path / "two.tar") == first
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        held = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
        sums = dict(reversed(line.split("  ./")) for line in held.pop("SHA256SUMS").decode().splitlines())
        assert {name: hashlib.sha256(content).hexdigest() for name, content in held.items()} == sums
        assert b"model_signing verify" in held["README.md"]
        assert all(m.isfile() and m.mtime == 0 and m.uname == "" and not m.name.startswith("/") for m in archive.getmembers())
    pack(gathered(world), tmp_path / "folder")
    listed = (tmp_path / "folder" / "SHA256SUMS").read_text()
    assert str(tmp_path) not in "".join(p.read_text("utf-8", "replace") for p in (tmp_path / "folder").rglob("*") if p.is_file())
    assert listed.count("\n") == len(gathered(world))


def test_a_damaged_release_is_not_exported_and_nothing_is_written_over(world: EvidenceWorld, tmp_path: Path) -> None:
    (tmp_path / "there.tar").write_text("mine")
    with pytest.raises(Misuse, match="there is something already"):
        pack(gathered(world), tmp_path / "there.tar")
    assert (tmp_path / "there.tar").read_text() == "mine"
    (world.folder / "code" / "loading.py").write_text("print('other')\n")
    with pytest.raises(Tampered, match="not those that were registered"):
        gathered(world)
    assert not list(tmp_path.glob(".*.tar*"))
