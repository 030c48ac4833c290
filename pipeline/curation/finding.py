"""Finding data files: files, folders and globs, walked in sorted order, nothing followed, nothing taken for data that is none.

What a file may be is told from its name alone; opening it is curation/files.py's. Nothing is read here but the beginning of files
that are no data by their name, to tell a Git LFS pointer.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from pipeline.curation.files import is_lfs_pointer, lfs_error
from pipeline.domain.data import SourceFile
from pipeline.errors import BadInput
from pipeline.params.ingest import IngestParams, Reading
from pipeline.ports import Found

KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "txt",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}
DOCUMENTS = ("txt", "markdown", "html")
"""Kinds that hold prose. In a folder they are taken only where the format is text: most folders of data have a README.md."""
ARCHIVES = {".zip": "zip", ".tar": "tar", ".tgz": "tar", ".tar.gz": "tar", ".tar.zst": "tar"}
COMPRESSED = (".gz", ".zst")
UNREAD = {".bz2", ".xz", ".7z", ".rar", ".tsv", ".xlsx", ".xls", ".avro", ".orc", ".pkl", ".pickle"}
"""Data that Tuneline does not read. It is named, rather than passed over, so that nobody thinks it was learned from."""

_WHOLE = ("parquet", "arrow", "zip", "tar")
_GLOB = re.compile(r"[*?\[]")
_NOT_READ = "give .jsonl, .json, .csv or .txt (each also as .gz or .zst), .parquet, .arrow, .md, .html, or an archive of these"


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Sources that are only paths. Archives are not unpacked: what can do that may write, and is a backend."""

    paths: Sequence[Path]

    def find(
        self, params: IngestParams, *, root: Path | None, as_of: datetime | None, earlier: Sequence[SourceFile]
    ) -> Iterator[Found]:
        """See ports.Sources; nothing is left out for `as_of` or `earlier`, since the caller looks at files anyway."""
        return iter(find(self.paths, root, reading=params.reading_of(".")))


def find(
    sources: Sequence[Path], root: Path | None = None, *, reading: Reading | None = None, origin: str = "", archives: bool = False
) -> list[Found]:
    """The data files that `sources` (files, folders and globs) name, folders walked in sorted order, no file twice.

    In a glob, * and ? stand for parts of one name and ** for any folders; what it names is looked for below the folder before its
    first such mark. Hidden files and names ending in .tmp or .part are passed over (still being written); so are files in folders
    that are no data by their name, such as a licence. archives: whether archives may be found, as kind `zip` or `tar`.
    Raises BadInput for a missing source, a symlink, FIFO, socket or device wherever it lies, and data of a kind that is not read.
    """
    how = reading or Reading()
    found: dict[Path, Found] = {}
    for source in sources:
        walked, suffix = (_globbed(source, root), source.suffix) if is_glob(source, root) else (_regular_files(source), "")
        for path, status in walked:
            if path in found:
                continue
            wanted = path == source or (suffix and path.suffix == suffix)
            kind = _kind_or_refusal(path, named=path == source, documents=bool(wanted) or how.format == "text", archives=archives)
            if kind is None:
                continue
            name = record_name(path, root)
            found[path] = Found(path, name, *kind, status.st_mtime, reading_for(kind[0], how), origin, how.license)
    return list(found.values())


def is_glob(source: Path, root: Path | None = None) -> bool:
    """Whether a source is a pattern: it has a mark of a glob (below `root`), and is no file by that very name."""
    return _GLOB.search(_below(source, root)) is not None and not os.path.lexists(source)


def kind_of(name: str) -> tuple[str, bool] | None:
    """(kind, compressed) of a file by its name: a value of KINDS or ARCHIVES; None for what is no data. Case does not matter."""
    lower = name.lower()
    if lower.endswith(tuple(ARCHIVES)):
        suffix = next(suffix for suffix in ARCHIVES if lower.endswith(suffix))
        return ARCHIVES[suffix], suffix not in (".zip", ".tar")
    compressed = lower.endswith(COMPRESSED)
    known = KINDS.get(_suffix(lower.rpartition(".")[0] if compressed else lower))
    return None if known is None or (compressed and known in _WHOLE) else (known, compressed)


def is_unread(name: str) -> bool:
    """Whether a name says data, but of a kind that is not read."""
    lower = name.lower()
    return (lower.endswith(COMPRESSED) or _suffix(lower) in UNREAD) and kind_of(name) is None


def _suffix(name: str) -> str:
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return dot + ending if stem else ""


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or still being written."""
    return name.startswith(".") or name.endswith((".tmp", ".part"))


def reading_for(kind: str, reading: Reading) -> Reading:
    """How rows of a file are read: prose is text, where nothing else is said."""
    return reading.model_copy(update={"format": "text"}) if kind in DOCUMENTS and reading.format == "auto" else reading


def not_read(where: str) -> BadInput:
    """The refusal of a kind of data that is not read."""
    return BadInput("this kind of file is not read", where=where, fix=f"{_NOT_READ}; or move it away from the data")


@cache
def glob_pattern(pattern: str) -> re.Pattern[str]:
    """What a glob stands for, over whole paths with slashes. * and ? stop at a slash; **/ stands for any folders, or none."""
    parts: list[str] = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", pattern, re.DOTALL):
        parts.append(
            {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token)
            or (re.sub(r"^\[!", "[^", token) if len(token) > 2 else re.escape(token))
        )
    return re.compile("".join(parts), re.DOTALL)


def fixed_part(pattern: str) -> str:
    """The folders before the first part of a glob that has a mark."""
    whole = pattern.split("/")
    marked = next(i for i, part in enumerate(whole) if _GLOB.search(part))
    return "/".join(whole[:marked])


def record_name(path: Path, root: Path | None) -> str:
    """What records call a file: its path below `root`, or its bare name; never an absolute path."""
    name = path.name
    if root is not None:
        absolute, base = Path(os.path.abspath(path)), Path(os.path.abspath(root))
        if absolute.is_relative_to(base):
            name = absolute.relative_to(base).as_posix()
    # A file name may hold any bytes; records hold text only.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\0", "\\0")


def _globbed(source: Path, root: Path | None) -> Iterator[tuple[Path, os.stat_result]]:
    pattern = _below(source, root)
    start = str(source)[: len(str(source)) - len(pattern)]
    # A folder that is named brings all that lies in it.
    wanted = re.compile(f"{re.escape(start)}(?:{glob_pattern(pattern).pattern})(?:/.*)?", re.DOTALL)
    return _regular_files(Path(start + fixed_part(pattern) or "."), wanted)


def _below(source: Path, root: Path | None) -> str:
    """The part of a source that may have marks of a glob: what lies above the project is named as it is."""
    return str(source.relative_to(root)) if root is not None and source.is_relative_to(root) else str(source)


def _regular_files(source: Path, wanted: re.Pattern[str] | None = None) -> Iterator[tuple[Path, os.stat_result]]:
    waiting = [source]
    while waiting:
        path = waiting.pop()
        status = _status(path)
        if stat.S_ISDIR(status.st_mode):
            waiting.extend(reversed(_entries(path)))
        elif wanted is not None and not wanted.fullmatch(str(path)):
            continue
        elif stat.S_ISREG(status.st_mode):
            yield path, status
        else:
            raise BadInput(
                f"{_what_it_is(status.st_mode)} lies among the data; only regular files are read",
                where=str(path),
                fix="replace it by a copy of the data, or move it away",
            )


def _kind_or_refusal(path: Path, *, named: bool, documents: bool, archives: bool) -> tuple[str, bool] | None:
    kind = kind_of(path.name)
    if kind is not None and kind[0] in DOCUMENTS and not documents:
        return None
    if kind is not None and (archives or kind[0] not in ARCHIVES.values()):
        return kind
    if is_lfs_pointer(path):
        raise lfs_error(str(path))
    if named or kind is not None or is_unread(path.name):
        raise not_read(str(path))
    return None


def _status(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"this data source cannot be read: {getattr(error, 'strerror', error)}",
            where=str(path),
            fix="create it, or correct ingest.sources in params.yaml",
        ) from None


def _entries(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise BadInput(f"this folder cannot be read: {error.strerror}", where=str(folder), fix="grant read access") from None
    return [folder / name for name in names if not is_passed_over(name)]


def _what_it_is(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a symlink"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")
