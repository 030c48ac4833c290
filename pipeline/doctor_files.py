"""What the security doctor says of files: who can read keys and state, secrets where git sees them, code that comes with models.

Modes and contents are looked at, nothing is changed, and no secret is printed.
"""

from __future__ import annotations

import json
import re
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.doctor import Finding
from pipeline.wiring import World, find_base
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.params import Params

SOON = timedelta(days=21)
"""A certificate that ends within this is to be replaced."""
_REMOTE_CODE = re.compile(rb"""trust_remote_code["']?\s*[=:]\s*["']?(?:True|true|1)\b""")
_CODE_FILES = (".py", ".yaml", ".yml", ".json", ".toml", ".sh", ".cfg", ".ini", ".env")
_MOST_SHOWN = 20


def state(world: World) -> Iterator[Finding]:
    """The state folder is its owner's alone, and git does not track it."""
    folder = world.project.state
    if not folder.exists():
        yield Finding("state folder", True, "none yet")
        return
    open_to = _others(folder)
    yield Finding("state folder", not open_to, open_to or "its owner's alone", f"chmod 700 {folder}", str(folder))
    if folder.is_relative_to(world.git.root):
        inside = folder.relative_to(world.git.root).as_posix()
        listed = subprocess.run(["git", "-C", str(world.git.root), "ls-files", "--", inside], capture_output=True, text=True)
        tracked = listed.stdout.splitlines()
        said = f"git tracks {len(tracked)} files of it" if tracked else "git tracks nothing of it"
        yield Finding("state in git", not tracked, said, f"git rm -r --cached {inside}, and add it to .gitignore", inside)
    site = world.project.state / "dvc"
    if site.exists():
        open_to = _others(site)
        yield Finding("DVC's site cache", not open_to, open_to or "its owner's alone", f"chmod 700 {site}", str(site))


def keys(world: World) -> Iterator[Finding]:
    """Every file that holds a key can be read by its owner alone."""
    said, project = world.settings, world.project
    named = {
        "key of keyed digests": project.key,
        "signing key": said.signing_key or project.signing_key,
        "actor's key": said.actor_key,
        "API keys": said.serving_keys or project.serving / "keys.json",
        "TLS key": said.tls_key,
    }
    for name, path in named.items():
        if path is None:
            continue
        if not path.exists():
            chosen = path in (said.signing_key, said.actor_key, said.serving_keys, said.tls_key)
            yield Finding(name, not chosen, "is not there" if chosen else "none yet", "name one that is there", str(path))
            continue
        open_to = _others(path)
        yield Finding(name, not open_to, open_to or "its owner's alone", f"chmod 600 {path}", str(path))


def certificate(world: World, now: datetime | None = None) -> Iterator[Finding]:
    """The certificate that serving shows holds for weeks yet, and is of the key beside it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    cert, key = world.settings.tls_cert, world.settings.tls_key
    if cert is None or not cert.exists():
        if cert is not None:
            yield Finding("certificate", False, "is not there", "name one that is there (TUNELINE_TLS_CERT)", str(cert))
        return
    found = x509.load_pem_x509_certificate(cert.read_bytes())
    left = found.not_valid_after_utc - (now or datetime.now(UTC))
    said = f"holds until {found.not_valid_after_utc:%Y-%m-%d}" if left > timedelta() else "has expired"
    yield Finding("certificate", left > SOON, said, "have a new one made, and start the server anew", str(cert))
    if key is not None and key.exists():
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        private = load_pem_private_key(key.read_bytes(), password=None)
        same = private.public_key().public_bytes(*form) == found.public_key().public_bytes(*form)
        yield Finding(
            "TLS key", same, "is the certificate's" if same else "is not the certificate's", "name both of one pair", str(key)
        )


def secrets(world: World, params_file: Path) -> Iterator[Finding]:
    """No secret lies where git, a run's params or DVC's tracked configuration would spread it."""
    from pipeline.backends.secrets import TokenSecrets
    from pipeline.backends.tracked_secrets import ALLOWED, dvc_secrets, tracked_secrets

    found = list(tracked_secrets(world.git.root))
    fix = f"revoke it, take it out of the history too; where it is none, write '{ALLOWED}' on that line"
    for path, line, type in found[:_MOST_SHOWN]:
        yield Finding("secret in git", False, f"looks like a {type}", fix, f"{path}:{line}")
    if len(found) > _MOST_SHOWN:
        yield Finding("secret in git", False, f"and {len(found) - _MOST_SHOWN} more", fix)
    if not found:
        yield Finding("secrets in git", True, "none in the files that git tracks")
    text = params_file.read_text(encoding="utf-8", errors="replace") if params_file.is_file() else ""
    for finding in TokenSecrets().find(text):
        line = text.count("\n", 0, finding.start) + 1
        fix = "revoke it; addresses and secrets are settings (TUNELINE_…), since params are recorded with each run"
        yield Finding("secret in params", False, f"looks like a {finding.type}", fix, f"{params_file}:{line}")
    for file, what in dvc_secrets(world.git.root):
        yield Finding("secret of DVC", False, what, "dvc remote modify --local, or AWS_… in the environment; chmod 600", file)


def remote_code(world: World, params: Params) -> Iterator[Finding]:
    """Nothing here asks a library to run code that comes with a model."""
    from pipeline.backends.tracked_secrets import tracked_files

    root = world.git.root
    found = []
    for name in tracked_files(root):
        path = root / name
        if name.endswith(_CODE_FILES) and path.is_file() and not path.is_symlink() and path.stat().st_size < 2 << 20:
            content = path.read_bytes()
            lines = [content.count(b"\n", 0, hit.start()) + 1 for hit in _REMOTE_CODE.finditer(content)]
            found += [f"{name}:{line}" for line in lines]
    fix = "take it out, and keep the model's code in your repository, where it is reviewed"
    for where in found[:_MOST_SHOWN]:
        yield Finding("trust_remote_code", False, "is switched on", fix, where)
    if not found:
        yield Finding("trust_remote_code", True, "is switched on nowhere in the files that git tracks")
    config = find_base(world, Workspace(world.project.root), params) / "config.json"
    said = json.loads(config.read_bytes()) if config.is_file() and config.stat().st_size < 1 << 20 else {}
    brings = isinstance(said, dict) and "auto_map" in said
    detail = "its config names code of its own (auto_map)" if brings else "brings no code"
    yield Finding("base model", not brings, detail, "take a base whose code is in transformers", str(config.parent))


def _others(path: Path) -> str | None:
    """What others than the owner may do with a file or folder; None when nothing."""
    mode = stat.S_IMODE(path.stat().st_mode)
    rights = [
        name for bits, name in ((0o044, "read"), (0o022, "write"), (0o011, "enter" if path.is_dir() else "run")) if mode & bits
    ]
    return f"others can {' and '.join(rights)} it (mode {mode:04o})" if rights else None
