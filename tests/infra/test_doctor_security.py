"""The security doctor finds each weakness that is planted, and nothing in a project that has none."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from pipeline import doctor_security
from pipeline.backends.exposure import exposure, loopback
from pipeline.doctor import Finding
from pipeline.doctor_security import examine_security
from pipeline.settings import Settings
from pipeline.wiring import World
from tests.checkouts import git

# Put together here, so that no file of this repository holds one.
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
PARAMS = "model: {name: desk, task: generate, base: ./base}\n"
CLOSED = "http://tuneline:right@127.0.0.1:1/api"


def project(folder: Path, params: str = PARAMS) -> Path:
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "config.json").write_text('{"model_type": "llama"}')
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://bucket\n")
    (folder / "params.yaml").write_text(params)
    (folder / ".gitignore").write_text(".tuneline/\n")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    for key, value in (("user.name", "Someone"), ("user.email", "someone@localhost")):
        git(folder, "config", key, value)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "start")
    (folder / ".tuneline").mkdir(mode=0o700)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_", "PREFECT_", "TUNELINE_"))]:
        monkeypatch.delenv(name)
    return project(tmp_path / "project")


def failed(folder: Path, **settings: Any) -> list[Finding]:
    found = examine_security(World(folder, Settings(**settings)), folder / "params.yaml")
    return [finding for finding in found if not finding.ok]


def test_a_project_without_weakness_has_none(folder: Path) -> None:
    found = examine_security(World(folder, Settings()), folder / "params.yaml")
    assert [finding.line for finding in found if not finding.ok] == []
    assert len(found) > 12
    assert {"version of torch", "state folder", "trust_remote_code", "serving"} <= {finding.name for finding in found}


def test_notices_that_go_encrypted_or_stay_here_are_no_weakness(folder: Path) -> None:
    kept = "jsons://a.example/x ntfys://a.example/t ntfy://topic slack://TokenA123/TokenB123/tokencabcdefghijklmnopqrstu json://127.0.0.1:9/x"
    found = examine_security(World(folder, Settings(notify=SecretStr(kept))), folder / "params.yaml")
    assert [finding.ok for finding in found if finding.name == "notices"] == [True] * 5


def opened(path: Path, mode: int, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def tracked(folder: Path, name: str, text: str) -> dict[str, Any]:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    git(folder, "add", "--force", name)
    return {}


def params(folder: Path, text: str) -> dict[str, Any]:
    (folder / "params.yaml").write_text(PARAMS + text)
    return {}


def certificate(folder: Path, *, days: int, other: bool = False, mode: int = 0o600) -> dict[str, Any]:
    """A certificate that holds for so many days yet, and its key, or another one."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "desk")])
    until = datetime.now(UTC) + timedelta(days=days)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(until - timedelta(days=400)).not_valid_after(until)
    pem = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    shown = ec.generate_private_key(ec.SECP256R1()) if other else key
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / ".tuneline" / "cert.pem").write_bytes(pem)
    opened(folder / ".tuneline" / "key.pem", mode, shown.private_bytes(*form).decode())
    return {"tls_cert": folder / ".tuneline" / "cert.pem", "tls_key": folder / ".tuneline" / "key.pem"}


def identities(folder: Path) -> dict[str, Any]:
    return {"identities": opened(folder / "identities.toml", 0o666, "")}


def plain(act: Callable[[Path], object]) -> Callable[[Path], dict[str, Any]]:
    def plant(folder: Path) -> dict[str, Any]:
        act(folder)
        return {}

    return plant


RULES = "release: {rules: {production: {roles: [owner]}}}\n"
AWS = {"aws_endpoint_url": "http://192.0.2.7:8333", "aws_access_key_id": "minioadmin", "aws_secret_access_key": "minioadmin"}
PLANTED: list[tuple[str, Callable[[Path], dict[str, Any]], str, str]] = [
    # what is planted, how, the finding's name, what its line must say
    ("an open state folder", plain(lambda at: (at / ".tuneline").chmod(0o755)), "state folder", "read and enter"),
    ("a state in git", lambda at: tracked(at, ".tuneline/note.txt", "x"), "state in git", "git rm -r --cached .tuneline"),
    ("an open key", plain(lambda at: opened(at / ".tuneline" / "key", 0o640)), "key of keyed digests", "chmod 600"),
    ("an open signing key", plain(lambda at: opened(at / ".tuneline" / "signing-key.pem", 0o604)), "signing key", "read"),
    ("a writable key", lambda at: {"actor_key": opened(at / "actor.pem", 0o620)}, "actor's key", "write"),
    ("open API keys", plain(lambda at: opened(at / ".tuneline" / "serving" / "keys.json", 0o644)), "API keys", "keys.json"),
    ("a key that is not there", lambda at: {"signing_key": at / "nowhere.pem"}, "signing key", "is not there"),
    ("an open TLS key", lambda at: certificate(at, days=90, mode=0o644), "TLS key", "chmod 600"),
    ("a certificate that ends soon", lambda at: certificate(at, days=10), "certificate", "holds until"),
    ("one that has ended", lambda at: certificate(at, days=-1), "certificate", "has expired"),
    ("a key of another certificate", lambda at: certificate(at, days=90, other=True), "TLS key", "not the certificate's"),
    ("a token in git", lambda at: tracked(at, "deploy/run.sh", f"#!/bin/sh\nexport T={TOKEN}\n"), "secret in git", "run.sh:2"),
    ("a token in params", lambda at: params(at, f"# {TOKEN}\n"), "secret in params", "params.yaml:2"),
    (
        "a secret of DVC in git",
        lambda at: tracked(at, ".dvc/config", "['remote \"s3\"']\n    secret_access_key = abc\n"),
        "secret of DVC",
        "secret_access_key",
    ),
    (
        "a secret of DVC that others read",
        plain(lambda at: opened(at / ".dvc" / "config.local", 0o644, "['remote \"s3\"']\n    password = abc\n")),
        "secret of DVC",
        "config.local",
    ),
    ("code of a model", lambda at: tracked(at, "job.py", "load(x, trust_remote_code=True)\n"), "trust_remote_code", "job.py:1"),
    ("in a configuration", lambda at: tracked(at, "v.yaml", "trust_remote_code: true\n"), "trust_remote_code", "v.yaml:1"),
    (
        "a base with code",
        plain(lambda at: (at / "base" / "config.json").write_text('{"auto_map": {}}')),
        "base model",
        "auto_map",
    ),
    ("a default password", lambda at: {"ledger_url": "postgresql+psycopg://led:postgres@127.0.0.1/l"}, "ledger", "default"),
    ("no password", lambda at: {"ledger_url": "postgresql+psycopg://led@127.0.0.1/l"}, "ledger", "none"),
    ("an open way", lambda at: {"ledger_url": "postgresql+psycopg://l:Xk3@192.0.2.7/l"}, "way to ledger", "sslmode"),
    ("no identities, shared", lambda at: {"ledger_url": "postgresql+psycopg://l:Xk3@127.0.0.1/l"}, "identities", "shared"),
    ("roles that nobody has", lambda at: params(at, RULES), "identities", "name roles"),
    ("identities that anybody writes", identities, "identities", "give themselves roles"),
    ("Ray without token", lambda at: {"ray_address": "10.0.0.1:6379"}, "Ray", "RAY_AUTH_MODE=token"),
    ("serving strangers", lambda at: params(at, "serve: {host: 0.0.0.0}\n"), "serving", "no API key"),
    ("serving in the clear", lambda at: params(at, "serve: {host: 0.0.0.0}\n"), "way to serving", "in the clear"),
    (
        "notices in the clear",
        lambda at: {"notify": "jsons://a.example/x, json://:pw-1@192.0.2.7/x"},
        "notices",
        "address 2 (json)",
    ),
    ("mail in the clear", lambda at: {"notify": "mailto://u:pw-1@m.example?smtp=m.example"}, "notices", "in the clear"),
    ("an address of no service", lambda at: {"notify": "nothing://pw-1"}, "notices", "none that Apprise knows"),
    ("MLflow in the clear", lambda at: {"mlflow_uri": "http://192.0.2.7:1"}, "way to MLflow", "TLS"),
]


@pytest.mark.parametrize(("plant", "name", "said"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_each_planted_weakness_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], dict[str, Any]], name: str, said: str
) -> None:
    # No address of these tests leads anywhere; who answers, and how, is asked of real servers below.
    monkeypatch.setattr("pipeline.backends.exposure._PATIENCE", 0.01)
    settings = plant(folder)
    secret = ("_url", "_uri", "notify")
    urls = {key: SecretStr(value) if key.endswith(secret) else value for key, value in settings.items()}
    found = [finding for finding in failed(folder, **urls) if finding.name == name]
    assert any(said in finding.line for finding in found), [finding.line for finding in failed(folder, **urls)]
    assert all(finding.fix for finding in found)
    assert all(one not in "".join(finding.line for finding in found) for one in (TOKEN, "pw-1")), "a secret is told by its place"


def test_what_a_store_of_objects_is_reached_by(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name.upper(), value)
    assert {"way to the object store", "key of the object store"} <= {finding.name for finding in failed(folder)}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.example.com")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "kT7" * 10)
    assert not [finding for finding in failed(folder) if "object store" in finding.name]


def test_versions_below_their_floor_are_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"transformers": "5.2.9", "torch": "2.13.0+cpu", "mlflow": "3.11", "ray": "2.9.0"}

    def version(name: str) -> str:
        if name not in there:
            raise doctor_security.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(doctor_security, "version", version)
    found = {finding.name: finding for finding in doctor_security.floors()}
    assert {name for name, finding in found.items() if not finding.ok} == {"version of transformers", "version of ray"}
    assert "CVE-2026-4372" in found["version of transformers"].detail


def test_a_line_or_a_file_that_is_said_to_hold_none_is_passed_over(folder: Path) -> None:
    tracked(folder, "manual.md", f"such as {TOKEN}, which is not a secret\n")
    tracked(folder, "cases/tokens.txt", f"{TOKEN}\n")
    assert [finding.where for finding in failed(folder)] == ["cases/tokens.txt:1"]
    tracked(folder, ".gitattributes", "cases/** planted-secrets\n")
    assert failed(folder) == []


class Door(BaseHTTPRequestHandler):
    """Lets in who its server's `wanted` says: None, anybody; else user:password. Counts what it was asked."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server: Any = self.server
        server.asked.append(self.path)
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        let_in = server.wanted is None or base64.b64decode(given).decode() == server.wanted
        self.send_response(200 if let_in else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def door() -> Iterator[Any]:
    with ThreadingHTTPServer(("0.0.0.0", 0), Door) as server:
        made: Any = server
        made.wanted, made.asked = None, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def outside() -> str:
    """An address of this machine that is not loopback."""
    every = [one.address for of in psutil.net_if_addrs().values() for one in of if one.family.name == "AF_INET"]
    found = [address for address in every if not loopback(address)]
    if not found:
        pytest.skip("this machine has no address but loopback")
    return found[0]


def test_servers_that_let_strangers_in_are_found(folder: Path, door: Any) -> None:
    port = door.server_address[1]
    near, far = f"http://127.0.0.1:{port}", f"http://{outside()}:{port}"
    assert exposure("mlflow", near).open
    assert not [f for f in failed(folder, mlflow_uri=SecretStr(near)) if f.name == "MLflow"], "this machine's own"
    assert "anybody in" in next(f.detail for f in failed(folder, mlflow_uri=SecretStr(far)) if f.name == "MLflow")
    assert "anybody in" in next(f.detail for f in failed(folder, prefect_api=f"{far}/api") if f.name == "Prefect")
    assert set(door.asked) == {"/api/2.0/mlflow/experiments/search", "/api/flows/filter"}


def test_default_passwords_are_found_and_others_are_not_guessed(folder: Path, door: Any) -> None:
    near = f"http://tuneline:0wn@127.0.0.1:{door.server_address[1]}"
    door.wanted = "admin:password1234"
    (found,) = [f for f in failed(folder, mlflow_uri=SecretStr(near)) if f.name == "MLflow"]
    assert "lets admin in with a default password" in found.detail
    assert "0wn" not in found.line
    door.wanted = "tuneline:0wn"
    assert failed(folder, mlflow_uri=SecretStr(near)) == []
    door.asked.clear()
    assert exposure("prefect", f"{near}/api") == exposure("prefect", f"{near}/api")
    assert len(door.asked) < 40, "no door is hammered at"


def test_a_server_that_is_not_there_is_told_as_such(folder: Path) -> None:
    found = examine_security(World(folder, Settings(prefect_api=CLOSED)), folder / "params.yaml")
    (prefect,) = [finding for finding in found if finding.name == "Prefect"]
    assert prefect.ok
    assert "was not tried" in prefect.detail
    assert "right" not in prefect.line


def test_the_command_says_it_as_json_and_ends_with_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from pipeline.__main__ import app

    monkeypatch.chdir(folder)
    (folder / ".tuneline").chmod(0o755)
    done = CliRunner().invoke(app, ["doctor", "--security", "--json"])
    assert done.exit_code == 1, done.output
    (found,) = [finding for finding in json.loads(done.stdout) if not finding["ok"]]
    assert (found["name"], found["where"]) == ("state folder", str(folder / ".tuneline"))
    assert stat.S_IMODE((folder / ".tuneline").stat().st_mode) == 0o755, "it only looks"
    (folder / ".tuneline").chmod(0o700)
    assert CliRunner().invoke(app, ["doctor", "--security"]).exit_code == 0
