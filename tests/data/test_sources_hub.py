"""Hugging Face datasets: on disk, made by the real library; and of a hub, for which a small server on loopback stands."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from pipeline.backends.sources.ways import AllWays
from pipeline.domain.data import Task
from pipeline.errors import BadInput, TryLater
from pipeline.params import IngestParams
from tests.data.source_bench import SourceBench, free_ports, lines

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def bench(tmp_path: Path) -> SourceBench:
    return SourceBench(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets that the library itself has saved: of several splits, of one, and as Parquet files."""
    import datasets

    folder = tmp_path_factory.mktemp("saved")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    whole = datasets.DatasetDict()
    for split in ("train", "test"):
        rows = {"text": [f"{split} {n}" for n in range(5)], "label": [0, 1, 1, 0, -1]}
        whole[split] = datasets.Dataset.from_dict(rows, features, split=split)
    whole.save_to_disk(folder / "splits")
    whole["train"].save_to_disk(folder / "one", num_shards=2)
    for split, data in whole.items():
        data.to_parquet(folder / "files" / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "files" / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "files" / "loader.py").write_text("raise SystemExit('code of a dataset was run')")
    return folder


@pytest.mark.parametrize(
    ("folder", "more", "names"),
    [
        ("splits", {}, ["test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]),
        ("splits", {"split": "train"}, ["train/data-00000-of-00001.arrow"]),
        ("one", {}, ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]),
        ("one", {"split": "train"}, ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]),
        ("files", {}, ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]),
        ("files", {"split": "train"}, ["data/train-00000-of-00001.parquet"]),
        ("files", {"files": "data/test-*"}, ["data/test-00000-of-00001.parquet"]),
    ],
)
def test_local_datasets(bench: SourceBench, saved: Path, folder: str, more: dict[str, str], names: list[str]) -> None:
    (bench.root / "sets").mkdir()
    for path in (saved / folder).rglob("*"):
        if path.is_file():
            bench.put(f"sets/{folder}/{path.relative_to(saved / folder)}", path.read_bytes())
    snapshot = bench.take({"hub": f"./sets/{folder}", **more}, task=Task.CLASSIFY)
    assert bench.sources == [f"sets/{folder}/{name}" for name in names]
    assert {source.origin for source in snapshot.sources} == {f"sets/{folder}"}
    splits = ["train"] if folder == "one" else [split for split in ("test", "train") if split in "".join(names)]
    labels = {(f"{split} {n}", label) for split in splits for n, label in enumerate(["no", "yes", "yes", "no"])}
    assert {(example.input, example.output) for example in bench.examples} == labels
    # The row without a label says so.
    assert [row.code for row in bench.quarantine] == ["blank"] * len(splits)


def test_local_datasets_that_are_none(bench: SourceBench, saved: Path) -> None:
    (bench.root / "sets").symlink_to(saved)
    assert "no split 'dev'" in bench.refused({"hub": "./sets/splits", "split": "dev"}, kind=BadInput)
    assert "the split train, not test" in bench.refused({"hub": "./sets/one", "split": "test"}, kind=BadInput)
    assert "there are: data/test" in bench.refused({"hub": "./sets/files", "files": "*.csv"}, kind=BadInput)
    bench.put("odd/dataset_dict.json", json.dumps({"splits": ["../../secret"]}))
    assert "is called '../../secret'" in bench.refused({"hub": "./odd"}, kind=BadInput)
    bench.put("odd/dataset_dict.json", "[]")
    assert "describes no saved dataset" in bench.refused({"hub": "./odd"}, kind=BadInput)


class Hub:
    """What of the hub's API a download uses, for one dataset at one commit. `asked` are the paths that were asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(path)
                hub.tokens.add(self.headers.get("Authorization"))
                name = path.removeprefix(f"/datasets/owner/set/resolve/{COMMIT}/")
                if path == f"/api/datasets/owner/set/tree/{COMMIT}":
                    tree = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in hub.files.items()]
                    self._send(json.dumps(tree).encode(), {"Content-Type": "application/json"})
                elif name in hub.files:
                    etag = hashlib.sha1(hub.files[name]).hexdigest()
                    self._send(hub.files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
                else:
                    self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

            def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants as constants

    files = {
        "train/a.jsonl": lines(1),
        "test.jsonl": lines(2),
        "README.md": b"about",
        "set.py": b"raise SystemExit",
        ".x.jsonl": b"",
    }
    one = Hub(files)
    # The library reads its environment when it is imported, which other tests have done.
    for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_CACHE", str(tmp_path / "cache")), ("HF_HUB_DISABLE_XET", True)):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", one.url)
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2hunter2")
    yield one
    one.server.shutdown()
    one.server.server_close()


def entry(**more: Any) -> dict[str, Any]:
    return {"hub": "owner/set", "revision": COMMIT} | more


def test_data_files_of_the_hub_at_a_commit(bench: SourceBench, hub: Hub) -> None:
    snapshot = bench.take(entry(), as_of=datetime(2020, 1, 1, tzinfo=UTC))
    assert bench.sources == [f"hub/owner/set@{COMMIT[:12]}/{name}" for name in ("test.jsonl", "train/a.jsonl")]
    assert bench.outputs == ["answer 2", "answer 1"]
    assert {(s.origin, s.watermark) for s in snapshot.sources} == {("owner/set", COMMIT)}
    assert not any(path.endswith((".py", ".md")) for path in hub.asked)
    assert all(COMMIT in path for path in hub.asked)
    # A commit does not change, so that nothing of it is asked for again.
    hub.asked.clear()
    assert bench.take(entry(), as_of=datetime(2020, 1, 1, tzinfo=UTC)) is snapshot
    assert hub.asked == [f"/api/datasets/owner/set/tree/{COMMIT}"]
    ways = AllWays(bench.inbox)
    assert list(ways.find(IngestParams(sources=[entry()]), root=bench.root, as_of=None, earlier=snapshot.sources)) == []
    assert not any(b"hunter2" in content for content in bench.files().values() if content)


def test_a_split_or_files_of_the_hub(bench: SourceBench, hub: Hub) -> None:
    bench.take(entry(split="train"))
    assert bench.outputs == ["answer 1"]
    bench.take(entry(files="*.jsonl", name="rest"))
    assert bench.outputs == ["answer 1", "answer 2"]


def test_a_hub_that_refuses_or_does_not_answer(bench: SourceBench, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (entry(hub="owner/other"), entry(revision="f" * 40)):
        said = bench.refused(wrong, kind=BadInput)
        assert "no such dataset, commit or file" in said
        assert "hunter2" not in said
    hub.files = {"set.py": b"raise SystemExit"}
    assert "code of a dataset is never run" in bench.refused(entry(), kind=BadInput)
    hub.files = {"a.jsonl": b"x" * (2 << 20)}
    assert "ingest.max_staged_bytes" in bench.refused(entry(), kind=BadInput, max_staged_bytes=1 << 20)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library tries five times, and waits between them
    assert "the hub cannot be read" in bench.refused(entry(), kind=TryLater)


def test_offline_means_that_the_hub_is_not_asked(bench: SourceBench, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = bench.refused(entry(), kind=BadInput)
    assert "HF_HUB_OFFLINE is set" in said
    assert "name its folder as hub: ./FOLDER" in said
    assert hub.asked == []
