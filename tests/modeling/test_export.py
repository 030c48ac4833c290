"""A release taken elsewhere: what plain libraries load answers as the release does, or nothing is written."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modeling_kit import model_params, train_params
from tuner_kit import LABELS, SHAPES, edit_weights, load, logits_of, make, ref_of

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.data import Task
from pipeline.domain.exporting import Exported, Form
from pipeline.domain.model import TrainingRun
from pipeline.domain.record import describe_files
from pipeline.domain.release import EventKind, ModelVersion
from pipeline.domain.tuning import Output
from pipeline.errors import Misuse, Tampered
from pipeline.steps.export import export


class Shop:
    """A project's stores with registered versions, their adapters made in a moment."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root, self.base = root, base
        self.ledger = SqlLedger(root / "ledger.db", patience=30)
        self.records: dict[str, TrainingRun] = {}
        self.count = 0

    def artifacts(self, name: str, version: str) -> Path:
        return self.root / version

    def record(self, version: ModelVersion, digest: str) -> tuple[str, str]:
        return self.records[digest].to_json(), "the archive"

    def add(self, output: Output = Output.TEXT, *, start: Path | None = None, **keys: Any) -> str:
        """Make and register a version; its number."""
        self.count += 1
        adapter = self.root / str(self.count) / "artifacts" / "adapter"
        make(self.base, adapter, output, by=0.05, start=start, **keys)
        training = TrainingRun(
            splits="1" * 64,
            task=Task.CLASSIFY if output is Output.LABEL else Task.GENERATE,
            base=ref_of(self.base, output),
            params={"train": train_params(**keys).model_dump(mode="json")},
            adapter=describe_files(adapter),
            steps=1,
            train_loss=1.0,
            eval_loss=None,
            train_rows=1,
            trainable_parameters=1,
            versions={},
            starts="2" * 64,
            stages=(),
        )
        self.records[training.digest] = training
        record = ModelVersion(
            name="tiny",
            version=str(self.count),
            run_id="r",
            training=training.digest,
            evaluation="3" * 64,
            decision="4" * 64,
            adapter_digest=training.adapter_digest,
            files=describe_files(self.root / str(self.count)),
            commit="c" * 40,
            tag="t",
            dirty=False,
        )
        self.event(EventKind.REGISTERED, record.version, record.digest, record.to_json())
        return record.version

    def event(self, kind: EventKind, version: str, subject: str, record: str | None = None) -> None:
        known = self.ledger.events("tiny")
        words = {"stage": None, "leaves": None, "actor": "ada", "reason": "why not", "at": datetime(2026, 3, 1, tzinfo=UTC)}
        self.ledger.append("tiny", kind, expected=len(known), version=version, subject=subject, record=record, **words)

    def export(self, version: str, form: Form, out: Path, output: Output = Output.TEXT, **more: Any) -> Exported:
        stores = {"ledger": self.ledger, "registry": SimpleNamespace(artifacts=self.artifacts), "archive": self}
        params = model_params(self.base, "classify" if output is Output.LABEL else "generate")
        return export(version, form, out, model=params, find_base=lambda _: self.base, **stores, **more)


@pytest.fixture(scope="module")
def shop(tiny_base, tmp_path_factory):
    return Shop(tmp_path_factory.mktemp("shop"), tiny_base)


def adapter_of(shop: Shop, version: str) -> Path:
    return shop.root / version / "artifacts" / "adapter"


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "qlora", "qdora", "full", "last_layers"])
def test_merged_weights_answer_as_the_release_in_the_plain_library(name, shop, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    version = shop.add(**SHAPES[name])
    said = shop.export(version, Form.MERGED, tmp_path / "out")
    assert said.ok
    assert [one.form for one in said.compared] == [Form.MERGED]
    assert said.compared[0].logits < 1e-5
    assert said.compared[0].agreement == 1.0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.allclose(logits_of(plain), logits_of(load(adapter_of(shop, version), shop.base)), atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == (shop.base / "chat_template.jinja").read_text()
    assert str(shop.base) not in (tmp_path / "out" / "config.json").read_text()
    assert Exported.read(tmp_path / "out" / "export.json") == said
    assert {f.path for f in said.files} == {p.name for p in (tmp_path / "out").iterdir()} - {"export.json"}


def test_a_lora_on_tuned_weights_is_merged_with_them(shop, tmp_path):
    first = shop.add(**SHAPES["full"])
    version = shop.add(start=adapter_of(shop, first))
    assert shop.export(version, Form.MERGED, tmp_path / "out").compared[0].logits < 1e-5
    with pytest.raises(Misuse, match="lies on tuned weights"):
        shop.export(version, Form.ADAPTER, tmp_path / "adapter")


def test_a_classifier_keeps_its_labels(tiny_base, tmp_path):
    from transformers import AutoModelForSequenceClassification

    shop = Shop(tmp_path, tiny_base)
    version = shop.add(Output.LABEL, **SHAPES["lora"])
    assert shop.export(version, Form.MERGED, tmp_path / "out", Output.LABEL).ok
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert tuple(plain.config.id2label.values()) == LABELS
    assert plain.config.pad_token_id == 0


def test_the_command_finds_base_and_version_and_tells_what_it_compared(shop, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from pipeline.__main__ import app
    from pipeline.commands import export as command
    from pipeline.params import Params

    stores = {"ledger": shop.ledger, "registry": SimpleNamespace(artifacts=shop.artifacts), "archive": shop}
    root = SimpleNamespace(root=shop.base.parent)
    world = SimpleNamespace(git=root, project=root, **stores)
    # Params may name another base by now: the version's own is taken.
    params = Params(model=model_params("./gone"))
    monkeypatch.setattr(command, "open_world", lambda _: (world, params))
    version = shop.add(**SHAPES["lora"])
    ask = ["export", f"v{version}", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ask)
    assert done.exit_code == 0, done.output
    assert f"tiny version {version} as merged (float32): {tmp_path / 'out'}" in done.output
    assert (tmp_path / "out" / "model.safetensors").is_file()
    done = CliRunner().invoke(app, [*ask[:-1], str(tmp_path / "four"), "--form", "quantized", "--bound", "0", "--json"])
    assert done.exit_code == 1
    assert [one["form"] for one in json.loads(done.stdout)["compared"]] == ["merged", "quantized"]
    assert not (tmp_path / "four").exists()


@pytest.mark.parametrize("name", ["lora", "qlora", "prompt", "prefix"])
def test_an_adapter_is_what_plain_peft_loads(name, shop, tmp_path):
    said = shop.export(shop.add(**SHAPES[name]), Form.ADAPTER, tmp_path / "out")
    assert said.compared[0].logits == 0.0
    files = {"adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "export.json"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == files


def test_quantised_weights_are_near_enough_or_not_written(shop, tmp_path):
    from transformers import AutoModelForCausalLM

    version = shop.add(**SHAPES["lora"])
    said = shop.export(version, Form.QUANTIZED, tmp_path / "out", bound=0.5)
    assert said.ok
    assert [one.form for one in said.compared] == [Form.MERGED, Form.QUANTIZED]
    assert said.compared[0].logits < 1e-5 < said.compared[1].logits < 0.5
    assert said.precision == "nf4"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").is_loaded_in_4bit
    assert not (tmp_path / "out" / "merged").exists()
    said = shop.export(version, Form.QUANTIZED, tmp_path / "refused", bound=said.compared[1].logits / 2)
    assert not said.ok
    assert not (tmp_path / "refused").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"out"}  # and nothing lies beside it


def test_a_merge_that_went_wrong_is_not_written(shop, tmp_path, monkeypatch):
    """The weights of one layer are lost on the way."""
    from pipeline.modeling.adapters import merging

    def lossy(base: Path, admitted: Any, folder: Path) -> None:
        whole(base, admitted, folder)
        edit_weights(
            folder, lambda t: {k: v * (0.9 if "layers.1.mlp.down" in k else 1) for k, v in t.items()}, "model.safetensors"
        )

    whole = merging.write_merged
    monkeypatch.setattr(merging, "write_merged", lossy)
    said = shop.export(shop.add(**SHAPES["lora"]), Form.MERGED, tmp_path / "out")
    assert not said.ok
    assert said.compared[0].logits > said.bound == 0.001
    assert list(tmp_path.iterdir()) == []


def test_sixteen_bits_are_written_where_the_base_has_them(tiny_base, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    half = Path(shutil.copytree(tiny_base, tmp_path / "half"))
    weights = load_file(half / "model.safetensors")
    save_file({k: v.bfloat16() for k, v in weights.items()}, half / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((half / "config.json").read_text()) | {"dtype": "bfloat16"}
    (half / "config.json").write_text(json.dumps(config))
    shop = Shop(tmp_path, half)
    said = shop.export(shop.add(), Form.MERGED, tmp_path / "out")
    assert (said.ok, said.precision, said.bound) == (True, "bfloat16", 0.05)
    assert 1e-4 < said.compared[0].logits < 0.05
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}


def test_what_cannot_be_exported_is_refused_with_the_reason(shop, tmp_path):
    prompt, full = shop.add(**SHAPES["prompt"]), shop.add(**SHAPES["full"])
    for version, form, said in (
        (prompt, Form.MERGED, "a soft prompt stands before the text"),
        (full, Form.ADAPTER, "there is no adapter to give away"),
        ("99", Form.MERGED, "there is no version '99'"),
    ):
        with pytest.raises(Misuse, match=said):
            shop.export(version, form, tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(Misuse, match="is there already"):
        shop.export(prompt, Form.ADAPTER, tmp_path / "there")
    shop.event(EventKind.REVOKED, full, "5" * 64)
    with pytest.raises(Misuse, match="was revoked"):
        shop.export(full, Form.MERGED, tmp_path / "out")
    path = adapter_of(shop, prompt) / "adapter_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Tampered, match="does not have the recorded digest"):
        shop.export(prompt, Form.ADAPTER, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
