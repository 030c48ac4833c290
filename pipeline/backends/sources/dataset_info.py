"""Entries that name LLaMA-Factory's dataset_info.json, as the entries that it stands for. What its keys mean params know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.curation.files import open_checked
from pipeline.curation.finding import find
from pipeline.curation.reasons import Rejected
from pipeline.curation.strict_json import parse
from pipeline.errors import BadInput
from pipeline.params.ingest import SourceParams
from pipeline.params.llama_factory import dataset_entries, local_datasets

_LIMIT = 4 << 20
_DEPTH = 16


def expanded(entries: Sequence[SourceParams], root: Path) -> Iterator[SourceParams]:
    """The entries, and in place of each with `dataset_info` one with a path for each data set that it takes.

    Licence and group_by are the entry's own. Raises BadInput for a file that cannot be read or says what is not understood.
    """
    for entry in entries:
        if entry.dataset_info is None:
            yield entry
            continue
        path = root / entry.dataset_info
        info = _read(path, root)
        names = entry.datasets or local_datasets(info, _beside(path))
        own = {key: getattr(entry, key) for key in ("license", "group_by")}
        try:
            for said in dataset_entries(info, names, _folder(entry.dataset_info)):
                yield SourceParams.model_validate(said | own)
        except ValueError as error:
            raise BadInput(
                str(error),
                where=str(path),
                fix="correct the file or name other datasets, or write the entry out (docs/formats.md)",
            ) from None


def _beside(path: Path) -> Callable[[str], bool]:
    return lambda name: (path.parent / name).exists()


def _folder(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def _read(path: Path, root: Path) -> dict[str, Any]:
    [found] = find([path], root)
    opened = open_checked(found)
    try:
        content = opened.stream.read(_LIMIT + 1)
    finally:
        opened.close()
    try:
        info = parse(content, _DEPTH) if len(content) <= _LIMIT else None
    except Rejected as rejected:
        raise BadInput(f"this file cannot be read: {rejected.reason}", where=found.where, fix="mend its JSON") from None
    if not isinstance(info, dict):
        raise BadInput(
            "this is no dataset_info.json: an object with an entry for each data set",
            where=found.where,
            fix="give the path of LLaMA-Factory's dataset_info.json",
        )
    return info
