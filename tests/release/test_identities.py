"""Who acts on releases: signed events, verified offline; wrong, expired, unknown and replayed ones are refused and named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends.identities import Identities, new_identity
from pipeline.backends.ledger import SqlLedger
from pipeline.backends.ledger_seal import Head, SealFile
from pipeline.domain.record import canonical_json, digest_bytes
from pipeline.domain.release import Event, EventKind
from pipeline.errors import Misuse, Tampered

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Office:
    """A folder with identities: ada and bob have keys, so has the service that acts for visitors."""

    def __init__(self, root: Path) -> None:
        self.root, self.file, self.path = root, root / "identities.toml", root / "state" / "ledger.db"
        for name, kind, roles in (("ada", "person", ["lead"]), ("bob", "person", []), ("door", "service", [])):
            new_identity(self.file, name, kind=kind, roles=roles, key_file=root / f"{name}.pem", now=NOW)

    def ledger(self, who: str | None = None) -> SqlLedger:
        key = self.root / f"{who}.pem" if who else None
        return SqlLedger(self.path, identities=Identities.read(self.file, key))

    def append(self, who: str, expected: int, *, actor: str | None = None, at: datetime = NOW, **changes: Any) -> Event:
        words = {"version": "1", "subject": "0" * 64, "stage": "production", "leaves": None, "reason": f"reason {expected}"}
        words |= {"actor": actor or who, "at": at, **changes}
        return self.ledger(who).append("desk", EventKind.PROMOTED, expected=expected, **words)

    def rewrite(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def sql(self, statement: str, *words: Any) -> None:
        with sqlite3.connect(self.path) as raw:
            raw.execute(statement, words)
        raw.close()
        self.seal()

    def seal(self) -> None:
        """Whoever forges knows of the seal, too: signatures are what is left."""
        with sqlite3.connect(self.path) as raw:
            sequence, digest = raw.execute("SELECT sequence, digest FROM events ORDER BY sequence DESC LIMIT 1").fetchone()
        raw.close()
        SealFile(self.path).write({"desk": Head(sequence=sequence, digest=digest)}, settled=True)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


@pytest.fixture
def signed(office: Office) -> Office:
    office.append("ada", 0)
    office.append("bob", 1)
    office.append("ada", 2)
    return office


def test_events_are_signed_and_verified_with_the_public_halves_alone(signed: Office) -> None:
    reader = signed.ledger()
    events = reader.events("desk")
    keys = {key.id: one.name for one in Identities.read(signed.file).everyone for key in one.keys}
    assert [keys[str(e.signer)] for e in events] == ["ada", "bob", "ada"]
    assert reader.verify() == ()
    with pytest.raises(Misuse, match="no key is named"):
        reader.append("desk", EventKind.PROMOTED, expected=3, version="1", subject="0" * 64, stage="s", leaves=None,
                      actor="ada", reason="r", at=NOW)  # fmt: skip
    assert SqlLedger(signed.path).events("desk") == events, "who keeps no identities can read them all the same"


def test_who_may_not_act_changes_nothing(signed: Office, tmp_path: Path) -> None:
    for who, words, said in (
        ("bob", {"actor": "ada"}, "the key is bob's"),
        ("ada", {"actor": "mallory"}, "nobody is called 'mallory'"),
        ("ada", {"at": NOW - timedelta(days=1)}, "does not hold at"),
        ("door", {"actor": "ada"}, "the key is door's"),
    ):
        with pytest.raises(Misuse, match=said):
            signed.append(who, 3, **words)
    other = tmp_path / "other"
    other.mkdir()
    Office(other)
    (signed.root / "eve.pem").write_bytes((other / "ada.pem").read_bytes())
    (signed.root / "eve.pem").chmod(0o600)
    with pytest.raises(Misuse, match="is nobody's"):
        signed.append("eve", 3, actor="ada")
    (signed.root / "ada.pem").chmod(0o644)
    with pytest.raises(Misuse, match="others can read"):
        signed.append("ada", 3)
    assert len(signed.ledger().events("desk")) == 3


def test_a_service_signs_for_those_it_is_trusted_with(signed: Office) -> None:
    signed.rewrite(
        'name = "door"\nkind = "service"\nroles = []', 'name = "door"\nkind = "service"\nroles = []\nacts_for = ["bob"]'
    )
    assert signed.append("door", 3, actor="bob").actor == "bob"
    with pytest.raises(Misuse, match="the key is door's"):
        signed.append("door", 4, actor="ada")
    assert signed.ledger().verify() == ()
    signed.rewrite('acts_for = ["bob"]', "acts_for = []")
    assert any("says bob did it, and was signed by door" in said for said in signed.ledger().verify())


def _forge(office: Office, **changes: Any) -> None:
    """Append an event as someone who can write to the database and knows every format, but has no key."""
    raw = sqlite3.connect(office.path)
    sequence, digest, body = raw.execute("SELECT sequence, digest, body FROM events ORDER BY sequence DESC LIMIT 1").fetchone()
    said = {**json.loads(body), "sequence": sequence + 1, "previous": digest, "leaves": None, **changes}
    text = canonical_json({k: v for k, v in said.items() if not (k == "signer" and v is None)}) + "\n"
    raw.execute("INSERT INTO events VALUES ('desk', ?, ?, ?)", (sequence + 1, digest_bytes(text.encode()), text))
    raw.execute("INSERT INTO event_index VALUES ('desk', ?, 'promoted', 'production', ?)", (sequence + 1, 1772366400000000))
    raw.commit()
    raw.close()


def _copied_signature(office: Office) -> None:
    office.sql("INSERT INTO signatures SELECT model, 4, signature FROM signatures WHERE sequence = 3")


FORGERIES: dict[str, tuple[Callable[[Office], object], str]] = {
    "unsigned": (lambda o: _forge(o, signer=None), "event 4 of desk is not signed"),
    "signature left out": (lambda o: _forge(o), "event 4 of desk has lost its signature"),
    "replayed with its signature": (
        lambda o: (_forge(o), _copied_signature(o)),
        "event 4 of desk has a signature that is not of",
    ),
    "in another's name": (lambda o: (_forge(o, actor="bob"), _copied_signature(o)), "says bob did it, and was signed by ada"),
    "by a key of nobody": (
        lambda o: (_forge(o, signer="f" * 16), _copied_signature(o)),
        f"the key {'f' * 16}, which is nobody's",
    ),
    "signature flipped": (
        lambda o: o.sql("UPDATE signatures SET signature = replace(signature, substr(signature, 20, 1), '-') WHERE sequence = 2"),
        "event 2 of desk has a signature that is not of this event",
    ),
    "signature of another event": (
        lambda o: o.sql(
            "UPDATE signatures SET signature = (SELECT signature FROM signatures WHERE sequence = 1) WHERE sequence = 3"
        ),
        "event 3 of desk has a signature that is not of this event",
    ),
    "signature dropped": (lambda o: o.sql("DELETE FROM signatures WHERE sequence = 2"), "event 2 of desk has lost its signature"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forgeries_with_a_whole_chain_and_a_right_seal_are_found_by_signatures(signed: Office, forgery: str) -> None:
    deed, said = FORGERIES[forgery]
    deed(signed)
    signed.seal()
    assert any(said in problem for problem in signed.ledger().verify()), signed.ledger().verify()
    with pytest.raises(Tampered) as caught:
        signed.ledger("ada").events("desk")
    assert said in str(caught.value)


def test_a_key_holds_from_since_until_and_a_clock_set_back_does_not_bring_it_to_life(signed: Office) -> None:
    since = f"since = {NOW:%Y-%m-%dT%H:%M:%SZ}"
    head, bobs = signed.file.read_text().split('name = "bob"')
    signed.file.write_text(f'{head}name = "bob"' + bobs.replace(since, f"{since}\nuntil = 2026-03-02T00:00:00Z", 1))
    assert signed.ledger().verify() == (), "what was signed while it held stays right"
    later = NOW + timedelta(days=2)
    with pytest.raises(Misuse, match="does not hold"):
        signed.append("bob", 3, at=later)
    signed.append("ada", 3, at=later)
    # bob's clock says that it is still the day before: his key would hold then, but the ledger has moved on.
    signed.append("bob", 4, at=NOW)
    assert any("event 5 of desk is signed by bob's key" in said for said in signed.ledger().verify())


def test_ledgers_from_before_there_were_identities_stay_readable_and_signing_begins_at_an_instant(office: Office) -> None:
    plain = SqlLedger(office.path)
    words = {"version": "1", "subject": "0" * 64, "stage": "production", "leaves": None, "actor": "anyone", "reason": "r"}
    plain.append("desk", EventKind.PROMOTED, expected=0, at=NOW - timedelta(days=30), **words)
    assert "signer" not in plain.events("desk")[0].to_json()
    office.append("ada", 1)
    assert office.ledger().verify() == ()
    plain.append("desk", EventKind.PROMOTED, expected=2, at=NOW - timedelta(days=30), **words)
    assert any("event 3 of desk is not signed" in said for said in office.ledger().verify())
    office.rewrite(f"signed_since = {NOW:%Y-%m-%dT%H:%M:%SZ}\n", "")
    assert any("event 1 of desk is not signed" in said for said in office.ledger().verify())


@pytest.mark.parametrize(
    "text",
    [
        "[[identity]]\nname = 'ada'\n[[identity]]\nname = 'ada'\n",
        "[[identity]]\nname = 'ada'\n[[identity.keys]]\npublic = 'AAAA'\n",
        "[[identity]]\nname = 'ada'\n[[identity.keys]]\npublic = 'not base64!'\n",
        "[[identity]]\nname = ''\n",
        "[[identity]]\nname = 'ada'\nrole = ['x']\n",
        "signed_since = 2026-01-01\n",
        "[[identity]\n",
        "\ud800",
        "x = 1\n" * 300_000,
    ],
)
def test_files_that_are_no_identities_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "identities.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(Misuse, match=r"identities|named twice|cannot be read"):
        Identities.read(path)


def test_making_an_identity_overwrites_nothing(office: Office) -> None:
    before = office.file.read_text()
    for name, key in (("ada", "new.pem"), ("carol", "bob.pem"), ("\0", "new.pem")):
        with pytest.raises(Misuse):
            new_identity(office.file, name, kind="person", roles=[], key_file=office.root / key, now=NOW)
    assert office.file.read_text() == before
    assert not (office.root / "new.pem").exists()
    with pytest.raises(Misuse, match="cannot be read"):
        Identities.read(office.root / "nowhere.toml")
