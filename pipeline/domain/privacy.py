"""Keyed digests: what stands for a record where the record itself may not stand, such as in the ledger and the record index.

A keyed digest is BLAKE2b of 16 bytes under the project's secret (RFC 7693), so that whoever reads the ledger without the secret
can neither tell the record nor test a guess. Pure; where the secret is kept is the backends' knowledge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from pipeline.domain.record import Value
from pipeline.errors import Misuse

KEY_BYTES = 32
DIGEST_BYTES = 16
_CHECKED = "tuneline key check"


class Asked(Value):
    """What a person calls a record by, as keyed digests. kind: id, text or keyed."""

    kind: str
    digest: str


def digester(key: bytes) -> Callable[[str], bytes]:
    """A function from a text to its keyed digest, 16 bytes; the key's block is hashed once, however many texts come."""
    if len(key) != KEY_BYTES:
        raise Misuse(f"the key of the project has {len(key)} bytes, {KEY_BYTES} are needed")
    begun = hashlib.blake2b(key=key, digest_size=DIGEST_BYTES)

    def digest(text: str) -> bytes:
        state = begun.copy()
        state.update(text.encode("utf-8", "surrogatepass"))
        return state.digest()

    return digest


def keyed(key: bytes, text: str) -> str:
    """The keyed digest of a text, 32 hex digits. An example is named by its id, a text by `text_name`."""
    return digester(key)(text).hex()


def text_name(levelled: str) -> str:
    """What is digested of a levelled text; no example id looks like it."""
    return f"text:{levelled}"


def key_check(key: bytes) -> str:
    """Tells one key from another without telling the key: stands beside what was digested with it."""
    return keyed(key, _CHECKED)


def asked(key: bytes, record: str, level: Callable[[str], str]) -> Asked:
    """What a person means: `keyed:` and 32 hex digits, an example id of 32 hex digits, or else a text, which is levelled.

    Raises Misuse for an empty text and for a keyed digest that is none.
    """
    if record.startswith("keyed:"):
        digest = record.removeprefix("keyed:").strip().lower()
        if not re.fullmatch(r"[0-9a-f]{32}", digest):
            raise Misuse("a keyed digest has 32 hex digits", where=record[:60], fix="copy it from tuneline history or who-has")
        return Asked(kind="keyed", digest=digest)
    if re.fullmatch(r"[0-9a-f]{32}", record.strip()):
        return Asked(kind="id", digest=keyed(key, record.strip()))
    levelled = level(record)
    if not levelled:
        raise Misuse("the record is empty", fix="give an example id, the text of a prompt or answer, or keyed:DIGEST")
    return Asked(kind="text", digest=keyed(key, text_name(levelled)))
