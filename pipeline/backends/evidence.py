"""A version's evidence: laid into a folder when it is registered, and checked against files and records ever after.

Implements ports.Evidence. What a statement says is domain/evidence.py's, how it is signed signing.py's, the card
pages/model_card.py's, the bill bill_of_materials.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.backends.bill_of_materials import bill
from pipeline.backends.signing import Signer, fingerprint, open_envelope, verify_folder
from pipeline.backends.statements import check_statement
from pipeline.backends.surroundings import surroundings
from pipeline.domain.evidence import (
    BOM,
    CARD,
    KEY,
    PARTS,
    SIGNATURE,
    STATEMENT,
    Surroundings,
    agreement,
    committed_files,
    has_evidence,
    model_files,
    provenance,
)
from pipeline.domain.lineage import Chain
from pipeline.domain.proof import AuditCheck, differences
from pipeline.domain.record import FileDigest, digest_bytes, digest_file
from pipeline.domain.release import ModelVersion
from pipeline.errors import Broken, Tampered
from pipeline.pages.model_card import model_card


class SignedEvidence:
    """signer: with the project's key; checking needs no private key. around: what is installed here, and the like."""

    def __init__(self, signer: Signer, around: Callable[[Mapping[str, str]], Surroundings] = surroundings) -> None:
        self._signer, self._around = signer, around

    def lay(self, chain: Chain, committed: Mapping[str, str], out: Path) -> None:
        """Write the evidence of a version to the folder `out`. chain.version: with the files that the registry holds, evidence
        excepted; committed: files of the run's commit by SHA-256."""
        version, around = chain.version, self._around(committed)
        out.mkdir(parents=True, exist_ok=True)

        def put(path: str, content: bytes) -> FileDigest:
            (out / Path(path).name).write_bytes(content)
            return FileDigest(path=path, sha256=digest_bytes(content), bytes=len(content))

        beside = [put(BOM, bill(chain, around)), put(CARD, model_card(chain, around).encode())]
        statement = provenance(chain, around, beside)
        check_statement(statement)
        beside += [put(STATEMENT, self._signer.envelope(statement)), put(KEY, self._signer.public_pem)]
        whole = (*model_files(version.files), *beside)
        self._signer.sign_folder(whole, f"{version.name}@{version.version}", out / Path(SIGNATURE).name, inside=SIGNATURE)

    def whole(self, files: Sequence[FileDigest], folder: Path) -> bool:
        """Whether all parts of the evidence lie in a version's folder, signed, about just these files (hashed by the caller)."""
        present = {f.path for f in files}
        if not present.issuperset(PARTS):
            return False
        try:
            verify_folder(files, folder / SIGNATURE, folder / KEY, inside=SIGNATURE)
            open_envelope((folder / STATEMENT).read_bytes(), (folder / KEY).read_bytes(), where=STATEMENT)
        except (Broken, OSError):
            return False
        return True

    def statement(self, folder: Path) -> dict[str, Any]:
        """The provenance in a version's folder, its signature checked with the key beside it. Raises Tampered."""
        try:
            content, key = (folder / STATEMENT).read_bytes(), (folder / KEY).read_bytes()
        except OSError as error:
            raise Tampered(f"the statement cannot be read: {error.strerror}", where=str(folder / STATEMENT)) from error
        return open_envelope(content, key, where=str(folder / STATEMENT))

    def check(
        self, version: ModelVersion, chain: Chain, folder: Path, committed: Mapping[str, str | None]
    ) -> Iterator[AuditCheck]:
        """Every check of a version's evidence. Its files were compared to their recorded digests before; only small ones are read
        here. committed: files of the run's commit by SHA-256, None for one that is not there."""
        if not has_evidence(version):
            said = "made before evidence: no statement, signature or bill of materials was laid beside its files"
            yield AuditCheck(name="evidence", ok=True, detail=said)
            return
        lacking = [path for path in PARTS if path not in {f.path for f in version.files}]
        if lacking:
            yield AuditCheck(name="evidence", ok=False, detail=f"{folder}: {', '.join(lacking)} was never recorded")
            return
        gone = [path for path in PARTS if (folder / path).is_symlink() or not (folder / path).is_file()]
        if gone:
            yield AuditCheck(name="evidence", ok=False, detail=f"{folder / gone[0]} is missing")
            return
        yield self._signature(version, folder)
        try:
            statement = self.statement(folder)
            check_statement(statement)
        except Broken as error:
            yield AuditCheck(name="statement", ok=False, detail=str(error).splitlines()[0])
        else:
            key = fingerprint((folder / KEY).read_bytes())[:12]
            yield AuditCheck(name="statement", ok=True, detail=f"signed by the key {key}")
            yield from agreement(statement, version, replace(chain, version=version))
            for path, sha256 in sorted(committed_files(statement).items()):
                same = committed.get(path) == sha256
                said = sha256[:12] if same else f"it says {sha256[:12]}, the commit has {str(committed.get(path))[:12]}"
                yield AuditCheck(name=f"statement {path}", ok=same, detail=said)

    def release(self, statement: Mapping[str, Any]) -> bytes:
        """A statement in an envelope signed with the project's key."""
        check_statement(statement)
        return self._signer.envelope(statement)

    @property
    def public_key(self) -> bytes:
        return self._signer.public_pem

    def _signature(self, version: ModelVersion, folder: Path) -> AuditCheck:
        try:
            # The key that is read here must be the one that the ledger's record names.
            wrong = differences(folder, [f for f in version.files if f.path in (KEY, SIGNATURE)], extra=True)
            if wrong:
                raise Tampered(wrong[0])
            verify_folder(version.files, folder / SIGNATURE, folder / KEY, inside=SIGNATURE)
        except Broken as error:
            return AuditCheck(name="signature", ok=False, detail=str(error).splitlines()[0])
        said = f"OpenSSF model signature over {len(version.files) - 1} files, by the key {digest_file(folder / KEY)[:12]}"
        return AuditCheck(name="signature", ok=True, detail=said)
