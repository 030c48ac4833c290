"""Objects of a store (S3 and what else fsspec knows) as files in staging. What an earlier run has read is not fetched again.

Endpoints and keys come from the environment, as the store's own tools read them; none is ever in a name or a message. An object
that changes while it is fetched is left for the next run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.backends.sources.archives import Limits
from pipeline.backends.sources.staging import write
from pipeline.curation.finding import (
    DOCUMENTS,
    fixed_part,
    glob_pattern,
    is_passed_over,
    is_unread,
    kind_of,
    not_read,
    reading_for,
)
from pipeline.domain.data import SourceFile
from pipeline.errors import BadInput, TryLater, TunelineError
from pipeline.params.ingest import Reading, SourceParams
from pipeline.ports import Found

_PIECE = 8 << 20
_MARKS = "*?["
_SECRET_NAMES = ("KEY", "SECRET", "TOKEN", "PASS", "SAS", "CREDENTIAL", "CONNECTION_STRING")
_GONE = "let its writer finish, then run again"


def fetch_objects(
    entry: SourceParams, reading: Reading, folder: Path, limits: Limits, *, as_of: datetime | None, earlier: Sequence[SourceFile]
) -> Iterator[Found]:
    """The objects below an address (a key, a prefix or a glob) in the order of their keys, fetched one at a time into `folder`.

    Passed over: what is hidden or still being written by its name, newer than `as_of`, no data, or known by name and ETag from
    `earlier`. Raises BadInput for what cannot be read, TryLater for a store that does not answer or an object that changes.
    """
    store, listed = _new(entry, reading, limits, as_of, earlier)
    for number, one in listed:
        path = folder / f"{number:06d}"
        try:
            _fetch(store, one.key, one.info, path, one.name, limits.bytes)
        except TunelineError:
            raise
        except Exception as error:
            raise explained(error, one.name) from None
        how = reading_for(one.kind[0], reading)
        yield Found(path, one.name, *one.kind, one.modified, how, entry.origin, reading.license, one.mark, staged=True)


def list_objects(
    entry: SourceParams, reading: Reading, limits: Limits, *, as_of: datetime | None, earlier: Sequence[SourceFile]
) -> Iterator[tuple[str, float]]:
    """(name and mark, seconds since 1970 of its last change) of each object that fetch_objects would fetch; none is fetched."""
    for _, one in _new(entry, reading, limits, as_of, earlier)[1]:
        yield f"{one.name} {one.mark}", one.modified


class _Object(NamedTuple):
    key: str
    info: Mapping[str, Any]
    name: str
    kind: tuple[str, bool]
    mark: str
    modified: float


def _new(
    entry: SourceParams, reading: Reading, limits: Limits, as_of: datetime | None, earlier: Sequence[SourceFile]
) -> tuple[Any, Iterator[tuple[int, _Object]]]:
    """The store, and the objects to read, each with its place in the listing."""
    address = str(entry.objects)
    try:
        store, base = _opened(address)
        start, listed = _listed(store, base, address, limits)
    except Exception as error:
        raise explained(error, address) from None
    known = {(source.name, source.watermark) for source in earlier}

    def wanted() -> Iterator[tuple[int, _Object]]:
        for number, (key, info) in enumerate(listed):
            name = f"{address.split('://')[0]}://{key}"
            kind = kind_of(key)
            if kind is None or any(is_passed_over(part) for part in key[len(start) :].split("/")):
                if is_unread(key):
                    raise not_read(name)
                continue
            if kind[0] in DOCUMENTS and reading.format != "text" and not _names_suffix(address, key):
                continue
            mark, modified = _mark(info), _modified(store, key, info)
            if (name, mark) not in known and (as_of is None or modified <= as_of.timestamp()):
                yield number, _Object(key, info, name, kind, mark, modified)

    return store, wanted()


def _opened(address: str) -> tuple[Any, str]:
    import fsspec

    # Neither the store nor its listings are kept: a run must see what is there now.
    store, base = fsspec.core.url_to_fs(address, skip_instance_cache=True, use_listings_cache=False)
    return store, str(base)


def _listed(store: Any, base: str, address: str, limits: Limits) -> tuple[str, list[tuple[str, Mapping[str, Any]]]]:
    """What the keys that are looked at begin with, and the keys that the address names, sorted, with what is known of them."""
    pattern = any(mark in base for mark in _MARKS)
    start = fixed_part(base) if pattern else base.rstrip("/")
    found: Mapping[str, Mapping[str, Any]] = store.find(start, detail=True)
    if len(found) > limits.members:
        fix = "name a longer prefix, or raise the limit"
        raise BadInput(f"more than {limits.members} objects lie here (ingest.max_members)", where=address, fix=fix)
    if not found and not pattern and not store.exists(start):
        raise BadInput("there is no such object, folder or bucket", where=address, fix="correct objects in params.yaml")
    wanted = glob_pattern(base) if pattern else None
    named = [key for key in sorted(found) if wanted is None or wanted.fullmatch(key)]
    return start, [(key, found[key]) for key in named]


def _fetch(store: Any, key: str, info: Mapping[str, Any], path: Path, name: str, limit: int) -> None:
    size = int(info.get("size") or 0)
    if size > limit:
        raise BadInput(f"this object has {size} bytes, and ingest.max_staged_bytes is {limit}", where=name, fix="raise the limit")
    fetched = 0
    with path.open("xb") as file, store.open(key, "rb", block_size=_PIECE, cache_type="readahead") as source:
        while fetched <= size and (piece := source.read(_PIECE)):
            fetched += len(piece)
            write(file, piece)
    if fetched != size or _mark(store.info(key)) != _mark(info):
        raise TryLater("this object changed while it was fetched", where=name, fix=_GONE)


def _mark(info: Mapping[str, Any]) -> str:
    """What tells one state of an object from another: its ETag where the store gives one, else size and time."""
    tag = next((str(info[key]).strip('"') for key in ("ETag", "etag", "md5Hash", "content_md5") if info.get(key)), "")
    return tag or f"{info.get('size')}-{_time(info)}"


def _modified(store: Any, key: str, info: Mapping[str, Any]) -> float:
    when = _time(info) or store.modified(key)
    return float(when.timestamp()) if isinstance(when, datetime) else float(when)


def _time(info: Mapping[str, Any]) -> Any:
    return next((info[key] for key in ("LastModified", "last_modified", "mtime") if info.get(key)), None)


def _names_suffix(address: str, key: str) -> bool:
    return Path(address).suffix == Path(key).suffix


def explained(error: Exception, where: str) -> TunelineError:
    """What a store said, less every secret of the environment. Stores name keys and signed addresses in what they say."""
    if isinstance(error, TunelineError):
        return error
    said = " ".join(str(error).split()) or type(error).__name__
    for name, value in os.environ.items():
        if len(value) >= 6 and any(part in name.upper() for part in _SECRET_NAMES):
            said = said.replace(value, "***")
    what, kind = said[:300], type(error).__name__
    if isinstance(error, ImportError):
        fix = "install it; for S3: pip install 'tuneline[s3]'"
        return BadInput(f"the library for this store is not installed: {what}", where=where, fix=fix)
    if kind in ("NoCredentialsError", "PartialCredentialsError") or isinstance(error, PermissionError):
        fix = "set the store's keys in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return BadInput(f"the store refuses: {what}", where=where, fix=fix)
    if kind == "FileExpired":
        return TryLater("this object changed while it was fetched", where=where, fix=_GONE)
    if isinstance(error, FileNotFoundError):
        return BadInput("there is no such object, folder or bucket", where=where, fix="correct objects in params.yaml")
    return TryLater(
        f"the store cannot be read: {what}", where=where, fix="check its address (AWS_ENDPOINT_URL) and that it is up"
    )
