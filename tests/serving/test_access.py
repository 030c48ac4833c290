"""Who may ask and who may not: keys at rest, scopes, rates, hosts, TLS; and that nothing moves without a key."""

from __future__ import annotations

import datetime
import json
import logging
import os
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import Broken, Misuse
from pipeline.hosting import open_server
from pipeline.params import Params, ServeParams
from pipeline.params.serve import RateParams, TimeoutParams
from pipeline.serving.http.access import is_loopback
from pipeline.serving.http.keys import KeyFile
from pipeline.serving.http.problems import Problem
from pipeline.serving.http.rates import Rates
from pipeline.serving.http.server import Tls
from pipeline.settings import Settings
from pipeline.wiring import World
from tests.checkouts import git
from tests.modeling.modeling_kit import build_tiny_base
from tests.serving.http_kit import Running, TinyEngine, chat, serving

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TinyEngine:
    return TinyEngine(build_tiny_base(tmp_path_factory.mktemp("base")))


class Moved:
    """Deeds that write down who did what."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def promote(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]:
        if version == "9":
            raise Misuse("there is no version '9'", fix="versions: 6, 7")
        self.done.append(("promote", version, to, by, reason))
        return {"version": version}

    def approve(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]:
        self.done.append(("approve", version, to, by, reason))
        return {"version": version}

    def refuse(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]:
        self.done.append(("refuse", version, to, by, reason))
        return {"version": version}

    def roll_back(self, stage: str, *, by: str, reason: str, to: str | None, leaving: str | None) -> Mapping[str, Any]:
        self.done.append(("roll_back", stage, by, reason, str(to), str(leaving)))
        return {"version": "6"}

    def releases(self) -> Sequence[Mapping[str, Any]]:
        return [{"version": "7", "stages": ["production"]}]


@pytest.fixture
def deeds() -> Moved:
    return Moved()


@pytest.fixture
def desk(engine: TinyEngine, deeds: Moved, tmp_path: Path) -> Iterator[Running]:
    with serving(engine, tmp_path, deeds=deeds) as running:
        yield running


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_only_a_hash_lies_in_the_file_and_nobody_else_reads_it(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "state" / "keys.json")
    made, token = keys.add("ada", ["infer", "read"])
    text = keys.path.read_text()
    assert token not in text
    assert made.sha256 in text
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert len(token) >= 43
    found = KeyFile(keys.path).holder(token)
    assert found is not None
    assert found.name == "ada"
    assert keys.holder(token[:-1]) is None
    keys.path.chmod(0o640)
    with pytest.raises(Broken, match="by others"):
        KeyFile(keys.path).all()
    keys.path.chmod(0o600)
    keys.path.write_text(text[:-20])
    with pytest.raises(Broken, match="damaged"):
        KeyFile(keys.path).all()


def test_keys_end(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    made, token = keys.add("ada", ["infer"], expires=NOW + datetime.timedelta(days=1), now=NOW)
    assert made.why_not(NOW) is None
    assert made.why_not(NOW + datetime.timedelta(days=1)) == "has expired"
    keys.revoke("ada")
    found = keys.holder(token)
    assert found is not None
    assert found.why_not(NOW) == "was revoked"
    keys.add("ada", ["infer"])
    with pytest.raises(Misuse, match="already"):
        keys.add("ada", ["infer"])
    with pytest.raises(Misuse, match="no key called"):
        keys.revoke("bob")


def test_keys_added_at_once_are_all_there(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: KeyFile(tmp_path / "keys.json").add(f"k{n}", ["infer"]), range(24)))
    assert {key.name for key in KeyFile(tmp_path / "keys.json").all()} == {f"k{n}" for n in range(24)}


def test_nothing_moves_without_a_key(desk: Running, deeds: Moved) -> None:
    assert desk.ask("/v1/chat/completions", chat())[0] == 200, "no key is needed to ask a loopback address"
    body = {"version": "7", "to": "production", "reason": "r"}
    for headers in ({}, bearer("tl_guess"), {"authorization": "Basic eDp5"}, bearer("x" * 10_000)):
        status, said, answer = desk.ask("/v1/releases/promote", body, **headers)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert said["www-authenticate"] == "Bearer"
    assert deeds.done == []


def test_scopes_part_what_keys_may(desk: Running, deeds: Moved) -> None:
    tokens = {scope: desk.keys.add(scope, [scope])[1] for scope in ("infer", "read", "approve", "promote")}
    move = {"version": "7", "to": "production", "reason": "r"}
    asked = {
        "infer": ("/v1/chat/completions", chat()),
        "read": ("/v1/releases", None),
        "approve": ("/v1/releases/approve", move),
        "promote": ("/v1/releases/promote", move),
    }
    for needed, (path, body) in asked.items():
        for scope, token in tokens.items():
            status, _, answer = desk.ask(path, body, **bearer(token))
            assert status == (200 if scope == needed else 403), (path, scope)
            assert status == 200 or answer["error"]["code"] == "missing_scope"
        assert desk.ask(path, body)[0] == 401, "now that there are keys, one is needed"
    assert desk.ask("/v1/releases/refuse", move, **bearer(tokens["promote"]))[0] == 403
    assert desk.ask("/v1/releases/refuse", move, **bearer(tokens["approve"]))[0] == 200
    back = {"stage": "production", "reason": "bad", "leaving": "7"}
    assert desk.ask("/v1/releases/rollback", back, **bearer(tokens["approve"]))[0] == 403
    assert desk.ask("/v1/releases/rollback", back, **bearer(tokens["promote"]))[2] == {"version": "6"}
    assert deeds.done == [
        ("approve", "7", "production", "approve", "r"),
        ("promote", "7", "production", "promote", "r"),
        ("refuse", "7", "production", "approve", "r"),
        ("roll_back", "production", "promote", "bad", "None", "7"),
    ]
    status, _, answer = desk.ask("/v1/releases/promote", move | {"version": "9"}, **bearer(tokens["promote"]))
    assert (status, answer["error"]["message"]) == (400, "there is no version '9'; versions: 6, 7")
    status, _, answer = desk.ask("/v1/releases/promote", move | {"by": "root"}, **bearer(tokens["promote"]))
    assert (status, answer["error"]["code"]) == (400, "unknown_parameter"), "nobody acts in another's name"


def test_a_revoked_key_is_refused_at_once_and_opens_no_door(desk: Running) -> None:
    _, token = desk.keys.add("ada", ["infer"])
    assert desk.ask("/v1/chat/completions", chat(), **bearer(token))[0] == 200
    desk.keys.revoke("ada")
    assert desk.ask("/v1/chat/completions", chat(), **bearer(token))[0] == 401
    assert desk.ask("/v1/chat/completions", chat())[0] == 401
    desk.keys.path.write_text("{")
    status, _, answer = desk.ask("/v1/chat/completions", chat(), **bearer(token))
    assert (status, answer["error"]["code"]) == (500, "internal_error"), "a file that cannot be read lets nobody in"
    assert str(desk.keys.path) not in json.dumps(answer)


def test_a_page_in_a_browser_is_not_answered(desk: Running) -> None:
    status, _, answer = desk.ask("/v1/chat/completions", chat(), host="evil.example")
    assert (status, answer["error"]["code"]) == (403, "wrong_host")
    assert desk.ask("/v1/chat/completions", chat(), host=f"localhost:{desk.port}")[0] == 200
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "127.0.0.1.evil.example")] == [True] * 3 + [
        False
    ] * 2


def test_rates_are_by_key(engine: TinyEngine, tmp_path: Path) -> None:
    params = ServeParams(rates=RateParams(requests_per_minute=3, tokens_per_minute=10_000))
    with serving(engine, tmp_path, params, needs_keys=True) as desk:
        ada, bob = desk.keys.add("ada", ["infer"])[1], desk.keys.add("bob", ["infer"], tokens_per_minute=60)[1]
        got = [desk.ask("/v1/chat/completions", chat(), **bearer(ada)) for _ in range(4)]
        assert [status for status, _, _ in got] == [200, 200, 200, 429]
        assert got[0][1]["x-ratelimit-remaining-requests"] == "2"
        assert got[3][2]["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(got[3][1]["retry-after"]) <= 20
        status, _, answer = desk.ask("/v1/chat/completions", chat(max_tokens=30), **bearer(bob))
        assert status == 200
        status, _, answer = desk.ask("/v1/chat/completions", chat(max_tokens=30), **bearer(bob))
        assert (status, answer["error"]["type"]) == (429, "tokens")


def test_what_was_not_used_is_given_back() -> None:
    clock = [0.0]
    rates = Rates(lambda: clock[0])
    taken, _ = rates.tokens("a", 100, 90)
    with pytest.raises(Problem, match="tokens a minute"):
        rates.tokens("a", 100, 20)
    rates.settle(taken, 10)
    rates.tokens("a", 100, 85)
    with pytest.raises(Problem):
        rates.tokens("a", 100, 50)
    clock[0] += 30
    rates.tokens("a", 100, 50)
    rates.tokens("b", 100, 100)


def test_logs_hold_neither_prompts_nor_keys(desk: Running, caplog: pytest.LogCaptureFixture) -> None:
    _, token = desk.keys.add("ada", ["infer"])
    with caplog.at_level(logging.DEBUG):
        secret = "Is the safe's number 4711?"
        desk.ask("/v1/chat/completions?k=" + token, chat(messages=[{"role": "user", "content": secret}]), **bearer(token))
        desk.ask("/v1/chat/completions", chat(temperature=secret), **bearer(token))
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "chat 200" in text
    assert "release=desk@7" in text
    assert "4711" not in text
    assert token not in text


def test_tls_is_spoken_and_a_silent_handshake_ended(engine: TinyEngine, tmp_path: Path) -> None:
    tls = make_certificate(tmp_path)
    with serving(engine, tmp_path, ServeParams(timeouts=TimeoutParams(header=0.6)), tls=tls) as desk:
        context = ssl.create_default_context(cafile=str(tls.cert))
        assert desk.url.startswith("https://127.0.0.1:")
        with urllib.request.urlopen(f"{desk.url}/healthz", context=context) as got:
            assert got.status == 200
        silent = desk.socket()
        silent.settimeout(15)
        assert silent.recv(100) == b""
    os.truncate(tls.key, 10)
    with pytest.raises(Misuse, match="certificate"):
        tls.context()


def make_certificate(folder: Path) -> Tls:
    """A certificate of 127.0.0.1, signed by its own key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "desk")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    tls = Tls(folder / "cert.pem", folder / "key.pem")
    tls.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    tls.key.write_bytes(key.private_bytes(*plain))
    return tls


def test_what_cannot_be_served_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "-c", "user.name=S", "-c", "user.email=s@localhost", "commit", "--quiet", "--allow-empty", "--message", "start")

    def opened(serve: dict[str, Any], **settings: Any) -> None:
        params = Params(model={"name": "desk", "task": "generate", "base": "./base"}, serve=serve)
        open_server(World(tmp_path, Settings(home=tmp_path / "state", **settings)), params)

    with pytest.raises(Misuse, match="none of the stages"):
        opened({"stage": "prod"})
    with pytest.raises(Misuse, match="none of the stages"):
        opened({"canary": {"stage": "beta", "share": 0.1}})
    with pytest.raises(ValidationError, match="answers already"):
        opened({"canary": {"stage": "production", "share": 0.1}})
    with pytest.raises(Misuse, match="both a certificate and its key"):
        opened({}, tls_cert=tmp_path / "cert.pem")
    keys = KeyFile(tmp_path / "keys.json")
    for serve in ({"host": "0.0.0.0"}, {"host": "::"}, {"host": "desk.example"}):
        with pytest.raises(Misuse, match="there is no API key"):
            opened(serve, serving_keys=keys.path)
    keys.add("ada", ["infer"])
    keys.revoke("ada")
    with pytest.raises(Misuse, match="there is no API key"):
        opened({"host": "0.0.0.0"}, serving_keys=keys.path)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Misuse, match="cannot listen"):
        opened({"port": taken.getsockname()[1]})
