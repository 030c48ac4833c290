"""What has to be the same on all machines that share a work: Python, our own code, the libraries that bytes depend on.

Read from files and package metadata; nothing heavy is imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pipeline

MADE_BY = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "tuneline")
"""Libraries that an adapter's record names."""
_FURTHER = ("tokenizers", "safetensors", "numpy", "pyarrow", "scikit-learn", "regex", "phonenumbers", "py3langid", "pydantic")
"""Those that rows, answers and scores depend on besides."""


def library_versions() -> dict[str, str]:
    """Versions of the libraries that make an adapter; none for one that is not installed."""
    return {name: _version(name) for name in MADE_BY}


@cache
def environment() -> Mapping[str, str]:
    """This machine's, by name. code: a digest of Tuneline's own modules."""
    found = {name: _version(name) for name in (*MADE_BY, *_FURTHER)}
    return {"python": platform.python_version(), "code": _code(), **found}


def difference(here: Mapping[str, str], there: Mapping[str, str]) -> str | None:
    """In words, what another machine has otherwise than this one; None for nothing."""
    names = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
    if not names:
        return None
    told = [f"{name} {there.get(name, 'none')[:12]} instead of {here.get(name, 'none')[:12]}" for name in names]
    return ", ".join(told)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _code() -> str:
    root, seen = Path(str(pipeline.__file__)).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        seen.update(f"{path.relative_to(root).as_posix()}\n".encode())
        seen.update(hashlib.sha256(path.read_bytes()).digest())
    return seen.hexdigest()
