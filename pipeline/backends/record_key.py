"""The project's secret for keyed digests: a file that its owner alone can read, made once, or the setting TUNELINE_RECORD_KEY.

Without it no tombstone can be matched again, so losing it is told, never papered over with a new one. What is digested with it
is domain/privacy.py's knowledge.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import SecretStr

from pipeline.backends.write_once import write_once
from pipeline.domain.privacy import KEY_BYTES
from pipeline.errors import Broken, Misuse


def project_key(path: Path, given: SecretStr | None = None) -> bytes:
    """The secret, 32 bytes: the `given` one (64 hex digits), else the file's, which is made when there is none.

    Raises Misuse for a given one that is no key, Broken for a file that is none.
    """
    if given is not None:
        try:
            key = bytes.fromhex(given.get_secret_value())
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise Misuse("TUNELINE_RECORD_KEY is no key", fix=f"give {2 * KEY_BYTES} hex digits: openssl rand -hex {KEY_BYTES}")
        return key
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_once(path, secrets.token_bytes(KEY_BYTES))
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise Broken("the key of the project is damaged", where=str(path), fix="restore it from a backup")
    return key
