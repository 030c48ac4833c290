"""Hugging Face datasets as data files: of the hub at a pinned commit, saved by `datasets`, or a folder laid out like one there.

Only data files are ever fetched or read, by our own parsers; the `datasets` library, which would run a dataset's code or guess at
its builder, has no part in this.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from pipeline.curation.finding import (
    DOCUMENTS,
    find,
    glob_pattern,
    is_passed_over,
    is_unread,
    kind_of,
    not_read,
    reading_for,
    record_name,
)
from pipeline.domain.data import SourceFile
from pipeline.errors import BadInput, TryLater, TunelineError
from pipeline.params.ingest import Reading, SourceParams
from pipeline.ports import Found

_DESCRIBING = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_SAME = {"train": ("train", "training"), "test": ("test", "testing", "eval", "evaluation")}
_SAME |= dict.fromkeys(("validation", "valid", "dev", "val"), ("validation", "valid", "dev", "val"))
_STATE_CAP = 1 << 20


def find_dataset(
    entry: SourceParams, reading: Reading, *, root: Path, earlier: Sequence[SourceFile], limit: int
) -> Iterator[Found]:
    """The data files of a dataset, in the order of their names; of the hub's those that no earlier run has read.

    limit: bytes of one file. Raises BadInput for a dataset without such files, TryLater where the hub does not answer.
    """
    hub = str(entry.hub)
    if not hub.startswith(("./", "../", "/")):
        yield from _of_the_hub(entry, reading, earlier, limit)
        return
    folder = root / hub
    parts = _saved_parts(folder, entry.split)
    listed = find(parts if parts is not None else [folder], root, reading=reading, origin=entry.name or record_name(folder, root))
    names = {one.path.relative_to(folder).as_posix(): one for one in listed}
    split = None if parts is not None else entry.split
    for name in _chosen(list(names), split, entry.files, reading, where=str(folder)):
        yield names[name]


def _saved_parts(folder: Path, split: str | None) -> list[Path] | None:
    """The files of a dataset that was saved by `save_to_disk`, as its state says; None when it is none."""
    splits = _state(folder / "dataset_dict.json")
    if splits is not None:
        names = [str(name) for name in splits.get("splits") or ()]
        if split is not None and split not in names:
            fix = f"one of {', '.join(names)}"
            raise BadInput(f"this dataset has no split {split!r}", where=str(folder), fix=fix)
        folders = [folder / _plain(name, folder) for name in names if split in (None, name)]
    else:
        folders = [folder]
    parts: list[Path] = []
    for one in folders:
        state = _state(one / "state.json")
        if state is None:
            if splits is None:
                return None
            raise BadInput("this split of a saved dataset has no state.json", where=str(one), fix="save the dataset again")
        if splits is None and split is not None and state.get("_split") != split:
            there = state.get("_split") or "that has no name"
            raise BadInput(f"this is the split {there}, not {split}", where=str(one), fix="leave split out")
        parts += [one / _plain(str(item.get("filename")), one) for item in state.get("_data_files") or ()]
    return parts


def _state(path: Path) -> dict[str, Any] | None:
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        content = file.read(_STATE_CAP + 1)
    try:
        state = orjson.loads(content) if len(content) <= _STATE_CAP else None
    except orjson.JSONDecodeError:
        state = None
    if not isinstance(state, dict):
        raise BadInput("this describes no saved dataset", where=str(path), fix="save the dataset again with save_to_disk")
    return state


def _plain(name: str, folder: Path) -> str:
    if not re.fullmatch(r"[\w][\w .-]{0,199}", name):
        raise BadInput(f"a part of this dataset is called {name[:60]!r}", where=str(folder), fix="save the dataset again")
    return name


def _of_the_hub(entry: SourceParams, reading: Reading, earlier: Sequence[SourceFile], limit: int) -> Iterator[Found]:
    import huggingface_hub as hf

    where = f"hub {entry.hub}"
    known = {source.name for source in earlier}
    api = hf.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    pinned: dict[str, Any] = {"repo_id": str(entry.hub), "repo_type": "dataset", "revision": str(entry.revision)}
    try:
        tree = api.list_repo_tree(**pinned, recursive=True)
        sizes = {item.path: item.size for item in tree if isinstance(item, hf.RepoFile)}
    except Exception as error:
        raise _explained(error, where) from None
    for path in _chosen(list(sizes), entry.split, entry.files, reading, where=where):
        name = f"hub/{entry.hub}@{str(entry.revision)[:12]}/{path}"
        if name in known:
            continue
        if sizes[path] > limit:
            what = f"this file has {sizes[path]} bytes, and ingest.max_staged_bytes is {limit}"
            raise BadInput(what, where=name, fix="raise the limit")
        try:
            # In the library's cache a file is a link to its content; the content is what is opened.
            local = Path(os.path.realpath(api.hf_hub_download(filename=path, **pinned)))
        except Exception as error:
            raise _explained(error, name) from None
        kind = kind_of(path)
        assert kind is not None
        how = reading_for(kind[0], reading)
        # A commit is chosen by params and never changes, so that no --as-of leaves it for later.
        yield Found(local, name, *kind, 0.0, how, entry.origin, reading.license, entry.revision, staged=True)


def _chosen(names: list[str], split: str | None, files: str | None, reading: Reading, *, where: str) -> list[str]:
    """The names of data files that split and files ask for, sorted. Raises BadInput when there are none."""
    wanted = [name for name in sorted(names) if not any(is_passed_over(part) for part in name.split("/"))]
    if files is not None:
        wanted = [name for name in wanted if glob_pattern(files).fullmatch(name)]
    if split is not None:
        words = "|".join(map(re.escape, _SAME.get(split.lower(), (split,))))
        wanted = [name for name in wanted if re.search(rf"(?i)(?:^|[^a-z])(?:{words})(?:[^a-z]|$)", name)]
    chosen = []
    for name in wanted:
        kind = kind_of(name)
        if kind is None and is_unread(name):
            raise not_read(f"{where}: {name}")
        prose = kind is not None and kind[0] in DOCUMENTS and reading.format != "text"
        if kind is not None and not prose and PurePosixPath(name).name not in _DESCRIBING:
            chosen.append(name)
    if not chosen:
        there = ", ".join(sorted(names)[:12]) or "none"
        fix = "correct split and files; where there is only code, convert it to files elsewhere: code of a dataset is never run"
        raise BadInput(f"no data file is asked for; there are: {there}", where=where, fix=fix)
    return chosen


def _explained(error: Exception, where: str) -> TunelineError:
    """What the hub's library said, as an error of ours. Its messages may hold signed addresses: left out."""
    kind = type(error).__name__
    if kind in ("OfflineModeIsEnabled", "LocalEntryNotFoundError") and os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        fix = "unset HF_HUB_OFFLINE, or fetch the dataset elsewhere and name its folder as hub: ./FOLDER"
        return BadInput("the hub may not be asked: HF_HUB_OFFLINE is set", where=where, fix=fix)
    if kind in (
        "RepositoryNotFoundError",
        "GatedRepoError",
        "RevisionNotFoundError",
        "RemoteEntryNotFoundError",
        "DisabledRepoError",
    ):
        fix = "check the id and the revision; for a private or gated dataset, log in with `hf auth login` or set HF_TOKEN"
        return BadInput(f"the hub has no such dataset, commit or file, or may not show it ({kind})", where=where, fix=fix)
    return TryLater(f"the hub cannot be read ({kind})", where=where, fix="check the network, or HF_ENDPOINT, and run again")
