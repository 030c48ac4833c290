"""What is wrong with an entry of `ingest.sources`: which keys go together, and that no secret stands in params.

Params are recorded, pushed and shown, so an address with a password is refused here, before anything could store it. Nothing is
opened; whether a file or a database is there is for the backends to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

WAYS = ("path", "sql", "objects", "hub", "dataset_info", "feedback")
STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci")
"""Schemes of object stores that fsspec knows and that list what they hold."""

_BELONG = {"url": "sql", "watermark": "sql", "revision": "hub", "split": "hub", "files": "hub", "datasets": "dataset_info"}
_VARIABLE = re.compile(r"env:TUNELINE_DATABASE_[A-Z0-9_]{1,64}")
_SECRET = re.compile(r"(?i)pass|pwd|secret|token|key|credential|sig")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/@:*+-]{0,199}")


def way_in_problems(entry: Any) -> Iterator[str]:
    """Each thing that is wrong with a SourceParams, a sentence each."""
    given = [way for way in WAYS if getattr(entry, way) is not None]
    if len(given) != 1:
        yield f"an entry has exactly one of {', '.join(WAYS)}; this one has {' and '.join(given) or 'none'}"
        return
    [way] = given
    if way == "feedback":
        yield from _feedback(entry)
        return
    if not getattr(entry, way).strip() or "\0" in getattr(entry, way):
        yield f"{way} is empty, or holds a NUL character"
    for key, owner in _BELONG.items():
        if getattr(entry, key) is not None and owner != way:
            yield f"{key} belongs to {owner}, not to {way}"
    if entry.name is not None and not _NAME.fullmatch(entry.name):
        yield "name: letters, digits and . _ - / only, at most 200 of them"
    yield from {"path": _path, "sql": _sql, "objects": _objects, "hub": _hub, "dataset_info": _path}[way](entry)


def _feedback(entry: Any) -> Iterator[str]:
    if entry.feedback is not True:
        yield "feedback: write true, or leave the entry out"
    if entry.name is not None:
        yield "name: feedback is called feedback/CALLER, so that each caller's share can be told"
    for key in _BELONG:
        if getattr(entry, key) is not None:
            yield f"{key} belongs to {_BELONG[key]}, not to feedback"


def _path(entry: Any) -> Iterator[str]:
    if "://" in (entry.path or entry.dataset_info):
        yield "path: this is an address; write objects: for an object store, sql: and url: for a database"


def _sql(entry: Any) -> Iterator[str]:
    if entry.name is None:
        yield "sql: a query needs a name, under which its watermark is kept"
    if entry.watermark is not None and not _binds(entry.sql, "since"):
        yield "watermark: the query does not use :since, so every run would read everything; add e.g. WHERE id > :since"
    if entry.watermark is None and _binds(entry.sql, "since"):
        yield "sql: the query uses :since; say which column it is by, e.g. watermark: id"
    if entry.url is None:
        yield "sql: say where the database is: url: env:TUNELINE_DATABASE_…, or sqlite:///FILE"
    elif entry.url.startswith("env:"):
        if not _VARIABLE.fullmatch(entry.url):
            yield "url: the variable's name must begin with TUNELINE_DATABASE_, e.g. env:TUNELINE_DATABASE_CRM"
    else:
        yield from _address(entry.url, "url", "put it into an environment variable and write url: env:TUNELINE_DATABASE_NAME")


def _objects(entry: Any) -> Iterator[str]:
    scheme = entry.objects.split("://")[0]
    if "::" in entry.objects or scheme not in STORES:
        yield f"objects: an address begins with one of {', '.join(f'{store}://' for store in STORES)}"
    yield from _address(entry.objects, "objects", "leave it out; keys come from the environment (AWS_ACCESS_KEY_ID and the like)")


def _hub(entry: Any) -> Iterator[str]:
    if entry.hub.startswith(("./", "../", "/")):
        if entry.revision is not None:
            yield "revision: a folder has none"
        return
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", entry.hub):
        yield "hub: give the id of a dataset, such as owner/name, or a folder as ./FOLDER"
    if entry.revision is None:
        yield f"revision: {entry.hub!r} is read as a hub id, which needs a pinned revision; write ./{entry.hub} for a folder"
    elif not re.fullmatch(r"[0-9a-f]{40}", entry.revision):
        yield "revision must be a full 40-digit commit, since branches and tags move"


def _address(text: str, key: str, fix: str) -> Iterator[str]:
    """What is wrong with an address. The address itself is not repeated: it may be the very secret."""
    try:
        parts = urlsplit(text)
        named = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
        secret = parts.password is not None or (key == "objects" and "@" in parts.netloc)
    except ValueError:
        yield f"{key}: this is no address"
        return
    if not parts.scheme or "://" not in text:
        yield f"{key}: this is no address; it begins with a scheme, as in sqlite:///FILE"
    elif secret or any(_SECRET.search(name) for name in named):
        yield f"{key}: a password or key in params would be recorded for good; {fix}"


def _binds(query: str, name: str) -> bool:
    return re.search(rf"(?<![:\w\\]):{name}\b", query) is not None
