"""Bad candidates at the desk that labels whose adapter was damaged, swapped, forged or made slow."""

from __future__ import annotations

from pipeline.domain.gating import GateDecision
from pipeline.errors import Broken, Tampered
from pipeline.modeling.adapters.handshake import WEIGHTS
from tests.drills.gate_bad_labels import good, relabelled
from tests.drills.gate_candidates import Bad, Trial
from tests.drills.gate_tampering import Tensors, copied, cut, edited, flipped, other_base, recorded, says, widened
from tests.drills.gate_worlds import Tuned, World

ONE_LORA, EVERY_LORA = "layer.2.attention.self.query", ".lora_B."


def no_effect_forged(world: World) -> Tuned:
    found = edited(world, good(world), "no-effect-forged", zeroed)
    keys = [key for key in _keys(found) if EVERY_LORA in key]
    return says(found, untouched=sorted(keys))


def _keys(tuned: Tuned) -> list[str]:
    from safetensors.torch import load_file

    return sorted(load_file(tuned.adapter / WEIGHTS))


def flipped_unrecorded(at: float) -> Trial:
    def trial(world: World) -> Tuned:
        found = copied(world, good(world), "flipped")
        flipped(found.adapter / WEIGHTS, at)
        return found

    return trial


def cut_file(share: float, *, record: bool) -> Trial:
    def trial(world: World) -> Tuned:
        found = copied(world, good(world), "cut")
        cut(found.adapter / WEIGHTS, share)
        return recorded(found) if record else found

    return trial


def other_rank(world: World) -> Tuned:
    return says(copied(world, good(world), "other-rank"), rank=4, alpha=8)


def foreign_tensor(world: World) -> Tuned:
    def change(tensors: Tensors) -> Tensors:
        key = next(key for key in sorted(tensors) if ONE_LORA in key and ".lora_B." in key)
        return tensors | {key.replace("layer.2", "layer.27"): tensors[key].clone()}

    return edited(world, good(world), "foreign", change)


def tensor_lost(world: World) -> Tuned:
    return edited(world, good(world), "lost", lambda tensors: {k: v for k, v in tensors.items() if ONE_LORA not in k})


def extra_file(world: World) -> Tuned:
    found = copied(world, good(world), "extra")
    (found.adapter / "setup.py").write_text("print('hello')\n")
    return recorded(found)


def wrong_base(world: World) -> GateDecision:
    found = good(world)
    return world.decided(found, world.evaluated(found, base=other_base(world, "other-base")))


def trained_on_other_base(world: World) -> Tuned:
    return world.trained("other-base", base=other_base(world, "other-base-trained"), max_steps=2)


def labels_rotated(world: World) -> Tuned:
    """Right weights under the wrong names: the names of the labels, moved on by one."""
    return says(copied(world, good(world), "rotated"), labels=[*world.labels[1:], world.labels[0]])


def too_large(world: World) -> Tuned:
    return edited(
        world, good(world), "too-large", lambda tensors: {k: v * 1e25 if EVERY_LORA in k else v for k, v in tensors.items()}
    )


def far_slower(world: World) -> Tuned:
    return widened(world, good(world), "slow", 1536)


def swapped_while_measured(other: Trial) -> Trial:
    """Another adapter is copied over the candidate's while it is measured: what is served later is not what was measured."""

    def trial(world: World) -> GateDecision:
        found, comes = copied(world, good(world), "swapped"), other(world)
        assert isinstance(comes, Tuned)
        done: list[str] = []

        def progress(what: str, at: int, total: int) -> None:
            if what.startswith("suite ") and not done:
                done.append(what)
                for file in comes.adapter.iterdir():
                    (found.adapter / file.name).write_bytes(file.read_bytes())

        measured = world.evaluated(found, progress=progress)
        assert done
        return world.decided(found, measured)

    return trial


def holding(value: float, *, where: str = ONE_LORA) -> Trial:
    def change(tensors: Tensors) -> None:
        key = next(key for key in sorted(tensors) if where in key)
        tensors[key].view(-1)[3] = value

    return lambda world: edited(world, good(world), "holding", change)


def zeroed(tensors: Tensors) -> None:
    for key in tensors:
        if EVERY_LORA in key:
            tensors[key].zero_()


BAD: tuple[Bad, ...] = (
    Bad("nan-in-a-lora", Broken, holding(float("nan")), "holds NaN or Inf"),
    Bad("inf-in-the-head", Broken, holding(float("inf"), where="classifier"), "holds NaN or Inf"),
    Bad("weights-too-large", Broken, too_large, "no finite logits"),
    Bad("zero-effect", Broken, lambda world: edited(world, good(world), "no-effect", zeroed), "all zeros"),
    Bad("zero-effect-forged", Broken, no_effect_forged, "leaves the base's logits as they were"),
    Bad("truncated", Tampered, cut_file(0.6, record=False), "recorded digest"),
    Bad("truncated-and-recorded", Broken, cut_file(0.6, record=True), "not a whole safetensors file"),
    Bad("bit-flipped-early", Tampered, flipped_unrecorded(0.1), "recorded digest"),
    Bad("bit-flipped-late", Tampered, flipped_unrecorded(0.93), "recorded digest"),
    Bad("another-rank", Broken, other_rank, "has the shape"),
    Bad("foreign-tensor", Broken, foreign_tensor, "belongs to no module of this base"),
    Bad("tensor-lost", Broken, tensor_lost, "is missing"),
    Bad("code-beside-it", Broken, extra_file, "can run code"),
    Bad("measured-on-another-base", Broken, wrong_base, "other weights"),
    Bad("trained-on-another-base", Broken, trained_on_other_base, "other weights"),
    Bad("labels-rotated", "thresholds.accuracy", labels_rotated),
    Bad("far-slower", "ceilings.slower_than_champion", far_slower, alone=True),
    Bad(
        "swapped-for-a-bad-one",
        "parity.served",
        swapped_while_measured(lambda world: world.trained("shuffled", relabelled(1.0, 1))),
    ),
    Bad("swapped-for-a-like-one", "parity.served", swapped_while_measured(lambda world: world.trained("labels-seed-3", seed=3))),
)
