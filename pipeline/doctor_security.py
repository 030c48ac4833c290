"""`tuneline doctor --security`: weaknesses of a set-up, each with what, where and how to mend it. docs/security.md is the model.

Servers are asked at addresses that settings name, and only there are default passwords tried. Nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.doctor import Check, Finding, guarded
from pipeline.doctor_files import certificate, keys, remote_code, secrets, state
from pipeline.domain.floors import DEFAULT_PASSWORDS, FLOORS, UNFIXED
from pipeline.wiring import World, read_params

if TYPE_CHECKING:
    from pipeline.backends.exposure import Sort
    from pipeline.params import Params


def examine_security(world: World, params_file: Path) -> list[Finding]:
    """All findings, good and bad."""
    checks: list[Check] = [
        ("dependencies", floors),
        ("state folder", lambda: state(world)),
        ("keys", lambda: keys(world)),
        ("certificate", lambda: certificate(world)),
        ("secrets", lambda: secrets(world, params_file)),
        ("MLflow", lambda: _mlflow(world)),
        ("Prefect", lambda: _prefect(world)),
        ("ledger", lambda: _ledger(world)),
        ("object store", lambda: _object_store()),
        ("Ray", lambda: _ray(world)),
        ("notices", lambda: _notices(world)),
        ("releases", lambda: _releases(world, read_params(params_file))),
        ("serving", lambda: _serving(world, read_params(params_file))),
        ("remote code", lambda: remote_code(world, read_params(params_file))),
    ]
    return [finding for name, check in checks for finding in guarded(name, check)]


def floors() -> Iterator[Finding]:
    """Dependencies that are installed against the versions below which they have a hole."""
    from packaging.version import Version

    for name, floor, why in FLOORS:
        try:
            there = version(name)
        except PackageNotFoundError:
            continue
        ok = Version(there) >= Version(floor)
        detail = f"{there}, at least {floor}" if ok else f"{there} is below {floor}: {why}"
        yield Finding(f"version of {name}", ok, detail, f"pip install -c infra/constraints.txt '{name}>={floor}'")
    for name, why in UNFIXED:
        try:
            yield Finding(f"version of {name}", True, f"{version(name)}: {why}")
        except PackageNotFoundError:
            continue


def _mlflow(world: World) -> Iterator[Finding]:
    if world.settings.mlflow_uri is None:
        yield Finding("MLflow", True, "is embedded: no server")
        return
    url = world.settings.mlflow_uri.get_secret_value()
    if not url.startswith("http"):
        yield from _database("MLflow's store", url)
        return
    fix = "start it with --app-name basic-auth and a password of its own (docs/stack.md)"
    yield from _server("MLflow", "mlflow", url, fix, given=os.environ.get("MLFLOW_TRACKING_PASSWORD"))


def _prefect(world: World) -> Iterator[Finding]:
    url = world.settings.prefect_api
    if url is None:
        yield Finding("Prefect", True, "the project's own server, on loopback: whoever is on this machine can use it")
        return
    fix = "give the server PREFECT_SERVER_API_AUTH_STRING, and clients PREFECT_API_AUTH_STRING (docs/stack.md)"
    given = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")[2]
    yield from _server("Prefect", "prefect", url, fix, given=given)


def _server(name: str, sort: Sort, url: str, fix: str, *, given: str | None) -> Iterator[Finding]:
    from pipeline.backends.exposure import exposure, loopback
    from pipeline.domain.wording import without_password

    where, near = without_password(url), loopback(url)
    if not near and not url.startswith("https://"):
        yield Finding(f"way to {name}", False, "passwords and data cross the network in the clear", "put TLS before it", where)
    if given in {password for _, password in DEFAULT_PASSWORDS}:
        yield Finding(f"password of {name}", False, "is one that comes with manuals", "choose one of its own", "the environment")
    found = exposure(sort, url)
    if not found.answered:
        yield Finding(name, True, "does not answer, so who gets in was not tried", where=where)
    elif found.default:
        yield Finding(name, False, f"lets {found.default} in with a default password", fix, where)
    elif found.open and not near:
        yield Finding(name, False, "lets anybody in who can reach it", fix, where)
    else:
        said = "lets anybody on this machine in, and nobody else" if found.open else "wants a password, and no default one"
        yield Finding(name, True, said, where=where)


def _ledger(world: World) -> Iterator[Finding]:
    if world.settings.ledger_url is None:
        yield Finding("ledger", True, "is a file in the state folder")
        return
    yield from _database("ledger", world.settings.ledger_url.get_secret_value())


def _database(name: str, url: str) -> Iterator[Finding]:
    """A database by its address: a password that is none, and a way that is open."""
    from pipeline.backends.exposure import loopback
    from pipeline.domain.wording import without_password

    parts, where = urlsplit(url), without_password(url)
    if parts.scheme.startswith("sqlite"):
        yield Finding(name, True, "is a file", where=where)
        return
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    weak = password in {"", user, *(pair[1] for pair in DEFAULT_PASSWORDS)} and "passfile" not in parts.query
    fix = "ALTER ROLE … PASSWORD, a long random one"
    yield Finding(name, not weak, "its password is none, or a default one" if weak else "has a password of its own", fix, where)
    if not loopback(url):
        safe = any(f"sslmode={mode}" in parts.query for mode in ("require", "verify-ca", "verify-full"))
        said = "the way to it is encrypted" if safe else "the way to it need not be encrypted"
        yield Finding(f"way to {name}", safe, said, "add ?sslmode=verify-full to its address", where)


def _object_store() -> Iterator[Finding]:
    """Where DVC, MLflow and ingest reach objects, as boto and fsspec read it from the environment."""
    from pipeline.backends.exposure import loopback
    from pipeline.domain.wording import without_password

    url, key, secret = (os.environ.get(f"AWS_{name}") for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    if url is not None:
        safe = url.startswith("https://") or loopback(url)
        said = "the way to it is encrypted, or does not leave this machine" if safe else "data crosses the network in the clear"
        yield Finding("way to the object store", safe, said, "put TLS before it", without_password(url))
    if key is not None:
        weak = (key, secret) in DEFAULT_PASSWORDS or not secret or key == secret
        said = "is a default one" if weak else "is of its own"
        yield Finding("key of the object store", not weak, said, "make a key for Tuneline alone, for its bucket alone", "AWS_…")


def _ray(world: World) -> Iterator[Finding]:
    address = getattr(world.settings, "ray_address", None)
    if address is None:
        yield Finding("Ray", True, "is not used")
        return
    ok = getattr(world.settings, "ray_token", None) is not None
    said = "is asked with a token" if ok else "no token: whoever reaches the cluster runs code on it"
    yield Finding("Ray", ok, said, "start it with RAY_AUTH_MODE=token, and set TUNELINE_RAY_TOKEN", address)


def _notices(world: World) -> Iterator[Finding]:
    """Notices name models, versions and why a gate refused: whether they go in the clear."""
    from pipeline.backends.notices import ways

    if world.settings.notify is None:
        return
    for said, safe in ways(world.settings.notify):
        if safe is None:
            yield Finding("notices", False, f"{said} is none that Apprise knows", "docs/people.md", "TUNELINE_NOTIFY")
            continue
        way = "the way is encrypted, or does not leave this machine" if safe else "notices cross the network in the clear"
        yield Finding("notices", safe, f"{said}: {way}", "take the scheme with an s: jsons, ntfys, mailtos", "TUNELINE_NOTIFY")


def _releases(world: World, params: Params) -> Iterator[Finding]:
    """Who may move releases, and whether what holds a stage can be made again from a commit."""
    from pipeline.domain.release import version_record

    rules = params.release.rules
    asked = sorted(stage for stage, rule in rules.items() if rule.roles or rule.approvals.roles)
    shared = world.settings.ledger_url is not None
    there = world.identities is not None
    if there:
        path = world.settings.identities
        assert path is not None
        writable = bool(path.stat().st_mode & 0o022)
        said = "others can write it, and so give themselves roles" if writable else "says who may act, with keys"
        yield Finding("identities", not writable, said, f"chmod go-w {path}", str(path))
    else:
        why = f"rules of {', '.join(asked)} name roles" if asked else "the ledger is shared"
        said = f"none are kept, and {why}" if asked or shared else "none are kept: whoever can write the state folder may act"
        yield Finding("identities", not (asked or shared), said, "tuneline identity new, then TUNELINE_IDENTITIES", "settings")
    model = params.model.name
    if model not in world.ledger.models():
        return
    events = world.ledger.events(model)
    for stage in params.release.stages:
        held = world.ledger.holder(model, stage)
        if held is not None:
            dirty = version_record(events, held).dirty
            said = "was made from uncommitted changes" if dirty else "was made from a commit"
            yield Finding(f"who holds {stage}", not dirty, f"version {held} {said}", "commit, run again, promote that", model)


def _serving(world: World, params: Params) -> Iterator[Finding]:
    """Whether the server would answer strangers, and in the clear."""
    from pipeline.backends.exposure import loopback
    from pipeline.hosting import key_file

    host, where = params.serve.host, f"serve.host {params.serve.host}"
    every = key_file(world).all()
    if loopback(host):
        asked = params.serve.keys == "required" or bool(every)
        said = "wants a key" if asked else "answers whoever is on this machine; behind a proxy set serve.keys: required"
        yield Finding("serving", True, said, where=where)
        return
    fix = "tuneline keys add NAME --scope infer"
    yield Finding("serving", bool(every), "wants a key" if every else "there is no API key, so it will not start", fix, where)
    safe = world.settings.tls_cert is not None and world.settings.tls_key is not None
    said = "speaks TLS" if safe else "keys and prompts cross the network in the clear"
    yield Finding("way to serving", safe, said, "TUNELINE_TLS_CERT and TUNELINE_TLS_KEY, or a proxy (infra/proxy)", where)
