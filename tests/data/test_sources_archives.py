"""Archives: what data may lie in comes in under the archive's name; everything else is refused before a byte leaves staging."""

from __future__ import annotations

import io
import os
import pickle
import resource
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.backends.sources.archives import Limits, Unpacking
from pipeline.backends.sources.staging import staging
from pipeline.backends.sources.ways import AllWays
from pipeline.curation.finding import find
from pipeline.errors import BadInput, TryLater
from pipeline.params import IngestParams
from tests.data.source_bench import SourceBench, lines

Members = dict[str, bytes]


@pytest.fixture
def bench(tmp_path: Path) -> SourceBench:
    return SourceBench(tmp_path)


def zipped(members: Members, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarred(members: Members, mode: str = "w", **header: object) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


PACKERS: dict[str, Callable[[Members], bytes]] = {
    "a.zip": zipped,
    "stored.zip": lambda members: zipped(members, zipfile.ZIP_STORED),
    "a.tar": tarred,
    "a.tar.gz": lambda members: tarred(members, "w:gz"),
    "a.tgz": lambda members: tarred(members, "w:gz"),
    "a.tar.zst": lambda members: pa.compress(tarred(members), codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("name", PACKERS)
def test_data_in_an_archive_comes_in_under_its_name(bench: SourceBench, name: str) -> None:
    packed = zlib.compressobj(wbits=31)
    gz = packed.compress(lines(3)) + packed.flush()
    members = {
        "inner/a.jsonl": lines(1, 2),
        "b.jsonl.gz": gz,
        "README.md": b"about",
        "LICENSE": b"MIT",
        ".hidden.jsonl": lines(8),
        "__MACOSX/._a.jsonl": b"\0\1",
        "c.jsonl.part": lines(9),
    }
    bench.put(f"inbox/{name}", PACKERS[name](members))
    bench.put("inbox/z.jsonl", lines(4))
    snapshot = bench.take(license="MIT")
    assert bench.sources == [f"inbox/{name}!inner/a.jsonl", f"inbox/{name}!b.jsonl.gz", "inbox/z.jsonl"]
    assert bench.outputs == ["answer 1", "answer 2", "answer 3", "answer 4"]
    assert {example.source for example in bench.examples} == set(bench.sources)
    assert {(source.origin, source.license) for source in snapshot.sources} == {("inbox", "MIT")}
    # A second run unpacks nothing of the archive, and a changed one brings what is new.
    assert bench.take(license="MIT") is snapshot
    with staging(bench.staging) as folder:
        again = list(AllWays(folder).find(IngestParams(), root=bench.root, as_of=None, earlier=snapshot.sources))
        assert [found.name for found in again] == ["inbox/z.jsonl"]
        assert [path for path in folder.rglob("*") if path.is_file()] == []
    bench.put(f"inbox/{name}", PACKERS[name](members | {"d.jsonl": lines(1, 5)}))
    later = bench.take(license="MIT")
    assert [(s.name, s.accepted, s.duplicate) for s in later.batch] == [(f"inbox/{name}!d.jsonl", 1, 1)]


def test_an_archive_is_left_for_later_as_a_whole(bench: SourceBench) -> None:
    path = bench.put("inbox/a.zip", zipped({"a.jsonl": lines(1)}))
    os.utime(path, (2e9, 2e9))
    assert bench.take(as_of=datetime(2030, 1, 1, tzinfo=UTC)).sources == ()
    assert bench.take(as_of=datetime(2040, 1, 1, tzinfo=UTC)).rows == 1


def test_documents_in_an_archive(bench: SourceBench) -> None:
    bench.put("inbox/a.zip", zipped({"a.md": b"# Text", "b.html": b"<p>shown</p><script>no</script>"}))
    bench.take({"path": "inbox", "format": "text"})
    assert bench.outputs == ["# Text", "shown"]


def _with_mode(name: str, mode: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = mode << 16
        archive.writestr(info, b"/etc/passwd")
    return made.getvalue()


def _encrypted() -> bytes:
    content = bytearray(zipped({"a.jsonl": lines(1)}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    return bytes(content)


def _twice(name: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, lines(1))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(name, lines(2))
    return made.getvalue()


def _lying(offsets: tuple[tuple[bytes, int], ...], value: int) -> bytes:
    content = bytearray(zipped({"a.jsonl": lines(*range(50)), "b.jsonl": lines(60)}))
    for magic, offset in offsets:
        struct.pack_into("<I", content, content.index(magic) + offset, value)
    return bytes(content)


def _last_is_longer() -> bytes:
    content = bytearray(zipped({"a.jsonl": lines(1)}))
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 20, 1 << 20)
    return bytes(content)


def _overlapping() -> bytes:
    """All entries of the directory point to the same bytes, as in bombs that unpack to terabytes without nesting."""
    content = bytearray(zipped({f"{n}.jsonl": lines(1) for n in range(5)}))
    at = content.index(b"PK\x01\x02")
    while (at := content.find(b"PK\x01\x02", at + 1)) > 0:
        struct.pack_into("<I", content, at + 42, 0)
    return bytes(content)


def _nested_bomb() -> bytes:
    """As 42.zip: a small file of zeros, packed and packed again."""
    inner = zipped({"0.jsonl": bytes(32 << 20)})
    for _ in range(3):
        inner = zipped({f"lib {n}.zip": inner for n in range(4)})
    return inner


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "leads out": ("a.zip", lambda: zipped({"ok.jsonl": lines(1), "../evil.jsonl": lines(2)}), "'../evil.jsonl' leads out"),
    "leads out deeper": ("a.zip", lambda: zipped({"a/../../evil.jsonl": lines(2)}), "leads out"),
    "absolute": ("a.zip", lambda: zipped({"/etc/evil.jsonl": lines(2)}), "'/etc/evil.jsonl' is an absolute path"),
    "drive": ("a.zip", lambda: zipped({"C:evil.jsonl": lines(2)}), "absolute path"),
    "backslash": ("a.zip", lambda: zipped({"a\\..\\evil.jsonl": lines(2)}), "backslashes"),
    "control": ("a.zip", lambda: zipped({"a\x1b[31m.jsonl": lines(2)}), "control characters"),
    "nul": ("a.zip", lambda: zipped({"aXevil.jsonl": lines(2)}).replace(b"aXevil", b"a\0evil"), "control characters"),
    "symlink": ("a.zip", lambda: _with_mode("link.jsonl", 0o120777), "'link.jsonl' is a link"),
    "device": ("a.zip", lambda: _with_mode("dev.jsonl", 0o020666), "'dev.jsonl' is a device"),
    "FIFO": ("a.zip", lambda: _with_mode("fifo", 0o010666), "'fifo' is a device or the like"),
    "encrypted": ("a.zip", _encrypted, "'a.jsonl' is encrypted"),
    "twice": ("a.zip", lambda: _twice("a.jsonl"), "'a.jsonl' is there twice"),
    "pickle": ("a.zip", lambda: zipped({"a.jsonl": lines(1), "m.pkl": pickle.dumps(1)}), "'m.pkl' may be a pickle"),
    "hidden pickle": ("a.zip", lambda: zipped({"m.dat": pickle.dumps([1])}), "'m.dat' is a pickle"),
    "pickle as data": ("a.zip", lambda: zipped({"m.jsonl": pickle.dumps([1])}), "'m.jsonl' is a pickle"),
    "nested": ("a.zip", lambda: zipped({"in.tar.gz": b"x"}), "'in.tar.gz' is an archive within"),
    "nested unnamed": ("a.zip", lambda: zipped({"in.dat": zipped({"a": b""})}), "'in.dat' is an archive within"),
    "nested bomb": ("a.zip", _nested_bomb, "is an archive within"),
    "bomb": ("a.zip", lambda: zipped({"a.jsonl": bytes(64 << 20)}), "as only bombs do"),
    "bomb beside ballast": (
        "a.zip",
        lambda: zipped({"a.jsonl": bytes(64 << 20), "b.dat": os.urandom(1 << 20)}),
        "'a.jsonl' unpacks from 65",
    ),
    "overlapping": ("a.zip", _overlapping, "overlaps another member"),
    "longer than it says": ("a.zip", lambda: _lying(((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)), 20), "a.jsonl"),
    "beyond the file": ("a.zip", lambda: _lying(((b"PK\x01\x02", 20),), 1 << 30), "overlaps|longer than the archive"),
    "last beyond the file": ("a.zip", _last_is_longer, "longer than the archive"),
    "unread kind": ("a.zip", lambda: zipped({"a.xlsx": b"x"}), "kind of file is not read"),
    "LFS pointer": ("a.zip", lambda: zipped({"a.jsonl": b"version https://git-lfs.github.com/spec/v1\n"}), "LFS pointer"),
    "cut off zip": ("a.zip", lambda: zipped({"a.jsonl": lines(*range(99))})[:-30], "damaged"),
    "no zip": ("a.zip", lambda: b"hello", "not a zip archive"),
    "tar leads out": ("a.tar", lambda: tarred({"../evil.jsonl": lines(1)}), "'../evil.jsonl' leads out"),
    "tar absolute": ("a.tar", lambda: tarred({"/evil.jsonl": lines(1)}), "absolute path"),
    "tar symlink": (
        "a.tar",
        lambda: tarred({"l.jsonl": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "'l.jsonl' is a link",
    ),
    "tar hard link": ("a.tar", lambda: tarred({"l.jsonl": b""}, type=tarfile.LNKTYPE, linkname="x"), "'l.jsonl' is a link"),
    "tar device": ("a.tgz", lambda: tarred({"d.jsonl": b""}, "w:gz", type=tarfile.CHRTYPE), "'d.jsonl' is a device"),
    "tar FIFO": ("a.tar", lambda: tarred({"f": b""}, type=tarfile.FIFOTYPE), "'f' is a device"),
    "tar pickle": ("a.tar", lambda: tarred({"m.pt": b"x"}), "may be a pickle"),
    "tar hidden pickle": ("a.tar", lambda: tarred({"m.dat": pickle.dumps([1])}), "is a pickle"),
    "tar nested": ("a.tar", lambda: tarred({"a.dat": tarred({"x": b"y"})}), "an archive within"),
    "tar twice": ("a.tar", lambda: tarred({"a.jsonl": lines(1), "./a.jsonl": lines(2)}), "is there twice"),
    "tar bomb": ("a.tar.gz", lambda: tarred({"a.jsonl": bytes(64 << 20)}, "w:gz"), "as only bombs do"),
    "tar bomb of zstd": ("a.tar.zst", lambda: pa.compress(tarred({"a": bytes(64 << 20)}), codec="zstd", asbytes=True), "bombs"),
    "tar cut off": ("a.tar.gz", lambda: tarred({"a.jsonl": os.urandom(5000).hex().encode()}, "w:gz")[:2000], "damaged"),
    "no tar": ("a.tar", lambda: b"hello" * 500, "damaged"),
    "another behind": ("a.tar", lambda: tarred({"a.jsonl": lines(1)}) + tarred({"b.jsonl": lines(2)}), "follows its end"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_as_a_whole(bench: SourceBench, case: str) -> None:
    name, make, problem = HOSTILE[case]
    bench.put("inbox/0.jsonl", lines(7))
    bench.put(f"inbox/{name}", make())
    outside = bench.root.parent / "evil.jsonl"
    said = bench.refused(kind=BadInput)
    assert any(part in said for part in problem.split("|")), said
    assert f"inbox/{name}" in said
    assert not outside.exists()


def _directory_of_a_million() -> bytes:
    """A zip that is nothing but a directory of 1,000,000 empty members, as no tool needs hours to make."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0)
    entries = b"".join(entry + b"%06d.jsonl" % (n % 10**6) for n in range(1_000_000))
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, len(entries), 4)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, 4 + len(entries), 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return b"PK\x03\x04" + entries + end64 + locator + end


def _tar_of_many(count: int) -> bytes:
    """Headers of empty files, written as tar would."""
    head = bytearray(tarred({"0000000.jsonl": b""})[:512])
    blocks = []
    for number in range(count):
        head[:7] = b"%07d" % number
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        blocks.append(bytes(head))
    packed = zlib.compressobj(1, wbits=31)
    return b"".join([*(packed.compress(block) for block in blocks), packed.compress(bytes(1024)), packed.flush()])


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_far_too_many_members_are_refused_in_flat_memory(bench: SourceBench, name: str) -> None:
    bench.put(f"inbox/{name}", _directory_of_a_million() if name == "a.zip" else _tar_of_many(30_100))
    most = 100_000 if name == "a.zip" else 30_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert f"more than {most} members (ingest.max_members)" in bench.refused(kind=BadInput, max_members=most)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120_000


@pytest.mark.parametrize("more", [-1, 1])
def test_a_header_is_not_believed_while_bytes_are_poured(bench: SourceBench, more: int) -> None:
    [found] = find([bench.put("inbox/a.zip", zipped({}))], bench.root, archives=True)
    unpacking = Unpacking(found, bench.inbox, Limits(10, 1 << 20), sha256="0" * 64)
    with pytest.raises(BadInput, match="is not of the"):
        unpacking.pour("a.jsonl", io.BytesIO(lines(1)), len(lines(1)) + more)
    assert unpacking.taken == []


def test_limits_are_those_of_params(bench: SourceBench) -> None:
    bench.put("inbox/a.zip", zipped({f"{n}.jsonl": lines(n) for n in range(3)}))
    assert "more than 2 members" in bench.refused(kind=BadInput, max_members=2)
    bench.put("inbox/a.zip", zipped({"a.jsonl": os.urandom(1 << 20).hex().encode()}))
    assert "max_staged_bytes" in bench.refused(kind=BadInput, max_staged_bytes=1 << 20)
    bench.put("inbox/a.zip", b"")
    (bench.inbox / "a.zip").unlink()
    bench.put("inbox/a.tar", tarred({f"{n}.jsonl": os.urandom(400_000).hex().encode() for n in range(2)}))
    assert "max_staged_bytes" in bench.refused(kind=BadInput, max_staged_bytes=1 << 20)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_describes_without_end_takes_no_memory(bench: SourceBench, kind: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 1 << 36
    bench.put("inbox/a.tar", info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))
    assert "describes a member in 68719476736 bytes" in bench.refused(kind=BadInput)


def test_headers_of_headers_do_not_end_the_process(bench: SourceBench) -> None:
    record = b"30 mtime=1700000000.000000000\n"
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    bench.put("inbox/a.tar", (info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")) * 20_000)
    assert "damaged" in bench.refused(kind=BadInput)


def test_long_names_of_gnu_and_pax_are_read(bench: SourceBench) -> None:
    deep = "d" * 90 + "/" + "é" * 90 + ".jsonl"
    for format, name in ((tarfile.GNU_FORMAT, "gnu.tar"), (tarfile.PAX_FORMAT, "pax.tar")):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=format) as archive:
            info = tarfile.TarInfo("./" + deep)
            info.size = len(lines(1))
            archive.addfile(info, io.BytesIO(lines(1)))
        bench.put(f"inbox/{name}", made.getvalue())
    bench.take()
    assert bench.sources == [f"inbox/gnu.tar!{deep}"]  # the other's member has the same bytes


def test_a_folder_of_a_killed_run_is_removed_by_the_next(bench: SourceBench) -> None:
    bench.put("inbox/a.zip", zipped({"a.jsonl": lines(1)}))
    for name, held in (("in-dead", True), ("in-unborn", False)):
        (bench.staging / name / "000001").mkdir(parents=True)
        (bench.staging / name / "000001" / "000000").write_bytes(b"left behind")
        if held:
            (bench.staging / f"{name}.held").touch()
    assert bench.take().rows == 1  # which looks at what is left in staging


def test_a_folder_in_use_is_not_touched(bench: SourceBench) -> None:
    with staging(bench.staging) as one, staging(bench.staging) as other:
        (one / "mine").touch()
        with staging(bench.staging):
            assert (one / "mine").exists()
            assert other.exists()
        assert one.stat().st_mode & 0o077 == 0
    assert not one.exists()


def test_no_room_is_nothing_that_is_wrong_with_the_archive(bench: SourceBench) -> None:
    bench.put("inbox/a.zip", zipped({"a.jsonl": os.urandom(1 << 20).hex().encode()}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))
    try:
        assert "staging cannot be written" in bench.refused(kind=TryLater)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
