"""Secrets in what git tracks, and in DVC's configuration: keys by their issuers' marks, passwords by the names before them.

Only the files as they lie here are read: what was committed once and taken out again is still in the history, and has to be
revoked. What is found is told by place and type, never by its text.
"""

from __future__ import annotations

import configparser
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pipeline.backends.secrets import TokenSecrets

ALLOWED = "not a secret"
"""A line that says so is passed over."""
PLANTED = "planted-secrets"
"""So are files with this attribute of git: tests of what finds secrets hold some."""
_MOST_BYTES = 2 << 20
_DVC_SECRETS = (
    "secret_access_key",
    "session_token",
    "password",
    "account_key",
    "sas_token",
    "connection_string",
    "client_secret",
    "custom_auth_header",
    "token",
)


def tracked_secrets(root: Path) -> Iterator[tuple[str, int, str]]:
    """(path, line, type) of each secret in a tracked text file."""
    detector = TokenSecrets()
    for name in tracked_files(root):
        text = _text(root / name)
        if text is None or not detector.suspects(text):
            continue
        lines = text.splitlines()
        for finding in detector.find(text):
            number = text.count("\n", 0, finding.start)
            around = " ".join(lines[max(0, number - 1) : number + 1])
            if ALLOWED not in around.lower():
                yield name, number + 1, finding.type


def tracked_files(root: Path) -> list[str]:
    """What git tracks, but for files with the attribute PLANTED."""
    chosen = ["ls-files", "-z", "--", ".", f":(exclude,attr:{PLANTED})"]
    listed = subprocess.run(["git", "-C", str(root), *chosen], capture_output=True, check=True).stdout
    return [name for name in listed.decode("utf-8", "surrogateescape").split("\0") if name]


def dvc_secrets(root: Path) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) of DVC's configuration: a secret in the tracked file, or a private file that others can read."""
    shared, private = root / ".dvc" / "config", root / ".dvc" / "config.local"
    for key in _secret_keys(shared):
        yield ".dvc/config", f"{key} stands in the file that git tracks"
    if any(_secret_keys(private)) and private.stat().st_mode & 0o077:
        yield ".dvc/config.local", "it holds a secret and others can read it"


def _secret_keys(path: Path) -> Iterator[str]:
    text = _text(path)
    if text is None:
        return
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    for section in parser.sections():
        for key, value in parser.items(section):
            if key in _DVC_SECRETS and value:
                yield f"{section.strip(chr(39))}: {key}"


def _text(path: Path) -> str | None:
    """The content of a plain text file of reasonable size; None for anything else."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    return None if b"\0" in content[:4096] else content.decode("utf-8", "replace")
