"""Objects of a real S3 server that checks signatures: what is new by ETag, what changes meanwhile, and keys shown nowhere."""

from __future__ import annotations

import logging
import os
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.backends.sources.objects import explained
from pipeline.backends.sources.staging import staging
from pipeline.backends.sources.ways import AllWays
from pipeline.errors import BadInput, TryLater
from pipeline.params import IngestParams
from tests.data.source_bench import S3, SourceBench, free_ports, lines, s3
from tests.data.test_sources_archives import zipped

__all__ = ["s3"]


@pytest.fixture
def bench(tmp_path: Path) -> SourceBench:
    return SourceBench(tmp_path)


@pytest.fixture
def bucket(s3: S3, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client, and the environment that a user would set. Each test has a prefix of its own in one bucket."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    client = s3.client
    prefix = f"tuneline-test/{request.node.name.replace('[', '-').replace(']', '')}"

    class Bucket:
        address = f"s3://{prefix}"

        def put(self, name: str, content: bytes) -> None:
            client.pipe(f"{prefix}/{name}", content)

        def remove(self, name: str) -> None:
            client.rm(f"{prefix}/{name}")

    return Bucket()


def test_objects_come_in_under_their_address(bench: SourceBench, bucket: Any) -> None:
    bucket.put("b/two.jsonl", lines(2))
    bucket.put("a.jsonl.zst", bytes(pa.compress(lines(1), codec="zstd", asbytes=True)))
    bucket.put("c.zip", zipped({"in/three.jsonl": lines(3)}))
    bucket.put("README.md", b"about")
    bucket.put(".hidden.jsonl", lines(9))
    bucket.put("d.jsonl.part", lines(9))
    bucket.put(".private/e.jsonl", lines(4))
    snapshot = bench.take({"objects": bucket.address, "name": "store", "license": "MIT"})
    names = ["a.jsonl.zst", "b/two.jsonl", "c.zip!in/three.jsonl"]
    assert bench.sources == [f"{bucket.address}/{name}" for name in names]
    assert bench.outputs == ["answer 1", "answer 2", "answer 3"]
    assert {(s.origin, s.license) for s in snapshot.sources} == {("store", "MIT")}
    # Who names a hidden folder means it.
    assert bench.take(f"{bucket.address}/.private").rows == 4


def test_only_what_is_new_by_its_etag_is_fetched_again(bench: SourceBench, bucket: Any) -> None:
    bucket.put("a.jsonl", lines(1))
    bucket.put("b.jsonl", lines(2))
    first = bench.take(bucket.address)
    with staging(bench.staging) as folder:
        ways = AllWays(folder)
        assert list(ways.find(IngestParams(sources=[bucket.address]), root=bench.root, as_of=None, earlier=first.sources)) == []
        assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert bench.take(bucket.address) is first
    bucket.put("b.jsonl", lines(2, 3))
    bucket.put("copy.jsonl", lines(1))  # other name, same bytes
    second = bench.take(bucket.address)
    assert [(s.name, s.accepted, s.duplicate) for s in second.batch] == [(f"{bucket.address}/b.jsonl", 1, 1)]
    assert all(source.watermark for source in second.sources)


def test_globs_and_single_objects(bench: SourceBench, bucket: Any) -> None:
    for number, name in enumerate(["x/a.jsonl", "x/y/b.jsonl", "x/c.csv", "z.jsonl"]):
        bucket.put(name, lines(number) if name.endswith("l") else b"prompt,completion\np,csv\n")
    for pattern, outputs in {
        "x/*.jsonl": ["answer 0"],
        "**/*.jsonl": ["answer 0", "answer 1", "answer 3"],
        "x/?.csv": ["csv"],
        "z.jsonl": ["answer 3"],
        "none*": [],
    }.items():
        bench.snapshot = None
        bench.take(f"{bucket.address}/{pattern}")
        assert bench.outputs == outputs, pattern


def test_newer_objects_are_left_for_later(bench: SourceBench, bucket: Any) -> None:
    bucket.put("a.jsonl", lines(1))
    assert bench.take(bucket.address, as_of=datetime(2020, 1, 1, tzinfo=UTC)).sources == ()
    assert bench.take(bucket.address).rows == 1


def test_an_object_that_changes_after_it_was_listed_is_left_for_later(bench: SourceBench, bucket: Any) -> None:
    bucket.put("a.jsonl", lines(1))
    bucket.put("b.jsonl", lines(2))
    for change in (lambda: bucket.put("b.jsonl", lines(9)), lambda: bucket.remove("b.jsonl")):
        with staging(bench.staging) as folder:
            found = AllWays(folder).find(IngestParams(sources=[bucket.address]), root=bench.root, as_of=None, earlier=())
            assert next(found).name.endswith("a.jsonl")
            change()
            with pytest.raises((TryLater, BadInput), match=r"changed while it was fetched|no such object") as caught:
                next(found)
            assert str(caught.value.where) == f"{bucket.address}/b.jsonl"


def test_what_is_wrong_is_said(bench: SourceBench, bucket: Any) -> None:
    assert "no such object" in bench.refused("s3://tuneline-test/nothing.jsonl", kind=BadInput)
    assert "no such object" in bench.refused("s3://no-such-bucket-here/x", kind=BadInput)
    bucket.put("a.jsonl", lines(*range(100)))
    bucket.put("b.jsonl", lines(1))
    assert "more than 1 objects" in bench.refused(bucket.address, kind=BadInput, max_members=1)
    bucket.put("c.jsonl", os.urandom(1 << 20).hex().encode())
    assert "ingest.max_staged_bytes" in bench.refused(bucket.address, kind=BadInput, max_staged_bytes=1 << 20)
    bucket.put("c.xlsx", b"x")
    said = bench.refused(f"{bucket.address}/*.xlsx", kind=BadInput)
    assert "kind of file is not read" in said
    bucket.put("c.zip", zipped({"../evil.jsonl": lines(1)}))
    assert f"{bucket.address}/c.zip" in bench.refused(f"{bucket.address}/c.zip", kind=BadInput)


@pytest.mark.parametrize("what", ["secret", "key", "endpoint"])
def test_keys_are_shown_nowhere(
    bench: SourceBench,
    bucket: Any,
    s3: S3,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    what: str,
) -> None:
    secret = "hunter2-hunter2"
    if what == "endpoint":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID" if what == "key" else "AWS_SECRET_ACCESS_KEY", secret)
    caplog.set_level(logging.INFO)
    with pytest.raises(TryLater if what == "endpoint" else BadInput) as caught:
        bench.take(bucket.address)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    assert bucket.address in shown
    assert secret not in shown
    assert s3.secret not in shown


def test_a_store_that_repeats_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    # Azure's and Google's libraries put signed addresses and connection strings into what they say.
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=hunter2hunter2")
    for error in (OSError("cannot reach AccountKey=hunter2hunter2"), PermissionError("no: AccountKey=hunter2hunter2")):
        said = str(explained(error, "az://box/x"))
        assert "***" in said
        assert "hunter2" not in said


def test_no_file_of_the_project_holds_a_key_or_the_endpoint(bench: SourceBench, bucket: Any, s3: S3) -> None:
    bucket.put("a.jsonl", lines(1))
    bench.take(bucket.address)
    for content in bench.files().values():
        assert not any(part.encode() in content for part in (s3.key, s3.secret, s3.endpoint))
