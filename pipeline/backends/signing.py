"""Signatures: an EC P-256 key, OpenSSF model signatures over a folder's files, DSSE envelopes around statements. All offline.

Model signatures are made and read by the library model-signing, envelopes by securesystemslib, so that anybody's copy of either
reads them. What is signed, and what a signature means, is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.backends.write_once import write_once
from pipeline.domain.record import FileDigest, canonical_json, digest_bytes
from pipeline.errors import Misuse, Tampered

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

IN_TOTO = "application/vnd.in-toto+json"
MOST_BYTES = 64 << 20
"""Larger signatures and envelopes are not read: an honest one of a hundred thousand files is smaller."""


class Signer:
    """A private key that signs. The key file is made, readable by its owner alone, when it is not there and `make` is True."""

    def __init__(self, path: Path, *, make: bool = True) -> None:
        self.path = path
        if make and not path.exists():
            _make_key(path)

    @cached_property
    def key(self) -> EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        fix = "an EC P-256 key in PEM, without a password; openssl ecparam -genkey -name prime256v1 -noout makes one"
        try:
            found = load_pem_private_key(self.path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise Misuse(f"the signing key cannot be read: {type(error).__name__}", where=str(self.path), fix=fix) from error
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name != "secp256r1":
            raise Misuse("the signing key is no EC P-256 key", where=str(self.path), fix=fix)
        return found

    @property
    def public_pem(self) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def envelope(self, statement: Mapping[str, Any]) -> bytes:
        """A DSSE envelope around an in-toto statement, as JSON. The same statement and key give the same bytes (RFC 6979)."""
        from securesystemslib.dsse import Envelope

        made = Envelope(canonical_json(statement).encode(), IN_TOTO, {})
        made.sign(_envelope_signer(self.key))
        return (canonical_json(made.to_dict()) + "\n").encode()

    def sign_folder(self, files: Sequence[FileDigest], name: str, signature: Path, *, inside: str) -> None:
        """Write an OpenSSF model signature over `files` to `signature`, which lies at `inside` among them and is not signed."""
        from model_signing import signing

        signer: Any = signing.Config()  # type: ignore[no-untyped-call]
        signer.use_elliptic_key_signer(private_key=self.path)
        signer.set_hashing_config(_known_digests(files, name, inside)).sign(name, signature)


def fingerprint(public_pem: bytes) -> str:
    """What people compare of a public key: SHA-256 of its PEM, as model-signing's bundles name it."""
    return digest_bytes(public_pem)


def verify_folder(files: Sequence[FileDigest], signature: Path, public_key: Path, *, inside: str) -> None:
    """Check a model signature against files that were hashed already: nothing is hashed again.

    Raises Tampered, naming what differs.
    """
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    _refuse_large(signature, "the signature")
    checker: Any = verifying.Config()  # type: ignore[no-untyped-call]
    try:
        checker.use_elliptic_key_verifier(public_key=public_key)
        checker.set_hashing_config(_known_digests(files, "", inside)).verify("", signature)
    except InvalidSignature as error:
        raise Tampered("the model signature was not made by the key beside it", where=str(signature)) from error
    except ValueError as error:
        raise Tampered(f"the model signature does not hold: {str(error)[:300]}", where=str(signature)) from error
    except (OSError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise Tampered(f"the model signature cannot be read: {type(error).__name__}", where=str(signature)) from error


def open_envelope(content: bytes, public_pem: bytes, *, where: str) -> dict[str, Any]:
    """The statement in a DSSE envelope, once its signature was checked with the key. Raises Tampered."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError, VerificationError
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    if len(content) > MOST_BYTES:
        raise Tampered(f"the envelope is larger than {MOST_BYTES >> 20} MiB", where=where)
    try:
        envelope = Envelope.from_dict(json.loads(content))
        if envelope.payload_type != IN_TOTO:
            raise Tampered(f"the envelope holds {envelope.payload_type[:60]!r}, not a statement", where=where)
        envelope.verify([SSlibKey.from_crypto(_public(public_pem))], threshold=1)
        statement: dict[str, Any] = json.loads(envelope.payload)
    except VerificationError as error:
        raise Tampered("the statement was not signed by the key beside it", where=where) from error
    except (ValueError, KeyError, TypeError, AttributeError, FormatError, RecursionError) as error:
        raise Tampered(f"the envelope cannot be read: {type(error).__name__}", where=where) from error
    if not isinstance(statement, dict):
        raise Tampered("the envelope holds no statement", where=where)
    return statement


def _public(pem: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return load_pem_public_key(pem)


def _refuse_large(path: Path, what: str) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Tampered(f"{what} cannot be read: {error.strerror}", where=str(path)) from error
    if size > MOST_BYTES:
        raise Tampered(f"{what} is larger than {MOST_BYTES >> 20} MiB", where=str(path))


def _make_key(path: Path) -> None:
    """Make a key for good. Of two processes that do so at once, the first one's stays."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_once(path, pem)


def _envelope_signer(key: EllipticCurvePrivateKey) -> Any:
    """securesystemslib's signer, but with the nonce that RFC 6979 derives: the same bytes each time."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256
    from securesystemslib.signer import CryptoSigner, Signature  # type: ignore[attr-defined]

    class Deterministic(CryptoSigner):
        def sign(self, payload: bytes) -> Signature:
            made = key.sign(payload, ECDSA(SHA256(), deterministic_signing=True))
            return Signature(self.public_key.keyid, made.hex())

    return Deterministic(key)


def _known_digests(files: Sequence[FileDigest], name: str, inside: str) -> Any:
    """A hashing configuration of model-signing that answers from digests which are known, instead of reading files."""
    from model_signing import hashing, manifest
    from model_signing._hashing.hashing import Digest

    kind = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [inside]}
    serialization = manifest.SerializationType.from_args(kind)

    class Known(hashing.Config):
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Any:
            listed = [f for f in files if f.path != inside]
            items = [serialization.new_item(f.path, Digest("sha256", bytes.fromhex(f.sha256))) for f in listed]
            return manifest.Manifest(name, items, serialization)

    return Known()  # type: ignore[no-untyped-call]
