"""Who may act on releases: people and services with public keys and roles, in a file; and the signatures they leave on events.

The file is TOML, written by people (or `tuneline identity new`) and named by settings. What a role may do is said by the stages'
rules, not here. Verification needs the file and the ledger, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError

from pipeline.domain.record import Value
from pipeline.domain.release import Event
from pipeline.errors import Misuse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

MOST_BYTES = 1 << 20
HOW = "docs/releases.md says how identities are kept; tuneline identity new makes one"
_SIGNED = b"tuneline ledger event\n"
"""Goes before what is signed, so that a signature of an event is one of nothing else."""


class Key(Value):
    """public: base64 of the DER of an EC P-256 public key, as in a PEM, on one line. since, until: when it holds."""

    public: Annotated[str, Field(max_length=400)]
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    @cached_property
    def id(self) -> str:
        return key_id(base64.b64decode(self.public))

    @cached_property
    def key(self) -> EllipticCurvePublicKey:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        found = load_der_public_key(base64.b64decode(self.public))
        if not isinstance(found, ec.EllipticCurvePublicKey) or found.curve.name != "secp256r1":
            raise ValueError("it is no EC P-256 key")
        return found

    def holds(self, at: datetime) -> bool:
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


class Identity(Value):
    """A person or a service. Keys that were replaced stay, with an `until`, so that what they signed can be verified.

    acts_for: whom a service may sign for, such as those who call it with an API key; they are named as the actor.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    kind: Literal["person", "service"] = "person"
    roles: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    acts_for: tuple[str, ...] = ()

    def may_sign_for(self, actor: str) -> bool:
        return actor == self.name or (self.kind == "service" and actor in self.acts_for)


class _File(Value):
    signed_since: AwareDatetime | None = None
    identity: tuple[Identity, ...] = ()


@dataclass(frozen=True)
class Identities:
    """The people and services of a file. key_file: the private key of whoever acts here; None: events can be read, not made."""

    everyone: tuple[Identity, ...]
    signed_since: datetime | None
    where: str
    key_file: Path | None = None

    @classmethod
    def read(cls, path: Path, key_file: Path | None = None) -> Identities:
        """Raises Misuse for a file that cannot be read, names a name or a key twice, or holds what is no key."""
        try:
            with path.open("rb") as file:
                text = file.read(MOST_BYTES + 1)
            if len(text) > MOST_BYTES:
                raise Misuse(f"the identities are larger than {MOST_BYTES >> 20} MiB", where=str(path), fix=HOW)
            found = _File.model_validate(tomllib.loads(text.decode("utf-8")))
        except OSError as error:
            raise Misuse(f"the identities cannot be read: {error.strerror}", where=str(path), fix=HOW) from error
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise Misuse(f"the identities cannot be read: {said}", where=str(path), fix=HOW) from error
        except (ValueError, RecursionError) as error:
            raise Misuse(f"the identities cannot be read: {error}", where=str(path), fix=HOW) from error
        made = cls(found.identity, found.signed_since, str(path), key_file)
        made._refuse_unusable()
        return made

    @property
    def roles(self) -> dict[str, frozenset[str]]:
        """Name → roles."""
        return {one.name: frozenset(one.roles) for one in self.everyone}

    def signer(self, actor: str, at: datetime) -> str:
        """Id of the key with which this process signs as `actor`. Raises Misuse when it may not."""
        if actor not in self.roles:
            raise Misuse(f"nobody is called {actor[:60]!r}", where=self.where, fix=f"known are {', '.join(self.roles) or 'none'}")
        ours = key_id(_public_der(self._private))
        owner, key = self._owners.get(ours, (None, None))
        if owner is None or key is None:
            raise Misuse(f"the key {ours} is nobody's", where=self.where, fix="name the key of whoever acts (TUNELINE_ACTOR_KEY)")
        if not owner.may_sign_for(actor):
            said = f"{actor} is to act, but the key is {owner.name}'s"
            raise Misuse(said, where=str(self.key_file), fix="act as who you are (--by), or name your own key")
        if not key.holds(at):
            raise Misuse(f"{actor}'s key {ours} does not hold at {at:%Y-%m-%d %H:%M} UTC", where=self.where, fix="make a new key")
        return ours

    def sign(self, body: str) -> str:
        """The signature of an event's JSON, in base64."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return base64.b64encode(self._private.sign(_SIGNED + body.encode(), ec.ECDSA(hashes.SHA256()))).decode()

    def problems(self, earlier: Sequence[Event], events: Sequence[Event], signatures: Mapping[int, str]) -> Iterator[str]:
        """What is wrong with the signatures of `events`, which follow `earlier` ones that were found right, a sentence each.

        A key must hold at the latest time written so far, so that setting a clock back does not bring an old key to life.
        """
        counts = max((e.at for e in earlier), default=datetime.min.replace(tzinfo=UTC))
        signed = any(e.signer for e in earlier)
        for event in events:
            counts = max(counts, event.at)
            said = self._problem(event, counts, signatures.get(event.sequence), signed)
            if said:
                yield f"event {event.sequence} of {event.model} {said}"
            signed = signed or event.signer is not None

    def _problem(self, event: Event, counts: datetime, signature: str | None, signed: bool) -> str | None:
        if event.signer is None:
            due = signed or self.signed_since is None or counts >= self.signed_since
            return "is not signed, and events are by now" if due else None
        owner, key = self._owners.get(event.signer, (None, None))
        if owner is None or key is None:
            return f"is signed by the key {event.signer}, which is nobody's"
        if not owner.may_sign_for(event.actor):
            return f"says {event.actor} did it, and was signed by {owner.name}"
        if not key.holds(counts):
            return f"is signed by {owner.name}'s key {event.signer} at a time at which it does not hold"
        if signature is None:
            return "has lost its signature"
        return None if _verified(key.key, signature, event.to_json()) else "has a signature that is not of this event"

    def _refuse_unusable(self) -> None:
        names = [one.name for one in self.everyone]
        problems = [f"{name} is named twice" for name in sorted({n for n in names if names.count(n) > 1})]
        seen: dict[str, str] = {}
        for one in self.everyone:
            for key in one.keys:
                try:
                    key.key  # noqa: B018 - parsing is the check
                    if key.id in seen:
                        problems.append(f"{one.name} and {seen[key.id]} have the same key")
                    seen[key.id] = one.name
                except ValueError as error:
                    problems.append(f"a key of {one.name} cannot be read: {error}")
        if problems:
            raise Misuse("; ".join(problems), where=self.where, fix=HOW)

    @cached_property
    def _owners(self) -> dict[str, tuple[Identity, Key]]:
        return {key.id: (one, key) for one in self.everyone for key in one.keys}

    @cached_property
    def _private(self) -> EllipticCurvePrivateKey:
        if self.key_file is None:
            raise Misuse("events are signed here, and no key is named", fix="name your private key's file (TUNELINE_ACTOR_KEY)")
        from pipeline.backends.signing import Signer

        try:
            if self.key_file.stat().st_mode & 0o077:
                raise Misuse("others can read the key", where=str(self.key_file), fix=f"chmod 600 {self.key_file}")
        except OSError as error:
            raise Misuse(f"the key cannot be read: {error.strerror}", where=str(self.key_file)) from error
        return Signer(self.key_file, make=False).key


def key_id(der: bytes) -> str:
    """What events call a key: the first 16 digits of the SHA-256 of its public half."""
    return hashlib.sha256(der).hexdigest()[:16]


def new_identity(path: Path, name: str, *, kind: str, roles: Sequence[str], key_file: Path, now: datetime) -> str:
    """Make a private key at `key_file`, and let the file at `path`, made if need be, name its owner; the key's id.

    A name that is there already gets a further key in the file by hand. Raises Misuse rather than overwrite anything.
    """
    from pipeline.backends.signing import Signer
    from pipeline.domain.wording import check_words

    check_words(actor=name, reason="an identity", **{f"role {n + 1}": role for n, role in enumerate(roles)})
    there = Identities.read(path) if path.exists() else None
    if there and name in there.roles:
        raise Misuse(f"{name} is known already", where=str(path), fix="add a key to its entry by hand: docs/releases.md")
    if key_file.exists():
        raise Misuse("a file of that name is there already", where=str(key_file), fix="name another place for the key (--key)")
    der = _public_der(Signer(key_file).key)
    since = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    begun = f"# People and services that act on releases: docs/releases.md.\nsigned_since = {since}\n"
    text = path.read_text(encoding="utf-8") if there else begun
    quoted = ", ".join(_quoted(role) for role in roles)
    text += f"\n[[identity]]\nname = {_quoted(name)}\nkind = {_quoted(kind)}\nroles = [{quoted}]\n"
    text += f"[[identity.keys]]\npublic = {_quoted(base64.b64encode(der).decode())}\nsince = {since}\n"
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
    return key_id(der)


def _public_der(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are among TOML's."""
    import json

    return json.dumps(text)


def _verified(key: EllipticCurvePublicKey, signature: str, body: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key.verify(base64.b64decode(signature, validate=True), _SIGNED + body.encode(), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
