"""One side of one cell of bench/train.py, in a process of its own: laps as lines of JSON (see data_laps.py).

    python bench/train_side.py SPEC        a JSON object; bench/train.py writes it

Laps: imports; ready, all that comes before the first step (base, adapter, rows, the reference's log-probabilities); train, the
steps. The loss on held-out rows is measured afterwards, for every side by the same few lines below.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from data_laps import Laps
from train_rows import Shape, Text, texts, tokens

HELD = 64


def main(spec: dict[str, Any]) -> None:
    warnings.simplefilter("ignore")
    laps = Laps()
    import datasets
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    ours = spec["side"] == "ours"
    if ours:
        import train_ours as side
    else:
        import train_peers as side  # type: ignore[no-redef]
        import trl  # noqa: F401
    laps.lap("imports")
    rows = list(texts(spec["rows"], Shape(**spec["shape"]), spec["vocabulary"], seed=spec["seed"]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec["base"])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token
    torch.manual_seed(spec["seed"])
    clock = _clock()
    trainer = side.build(spec, rows, tokenizer, clock)
    model = trainer.model
    weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    laps.lap("ready", trained=weights)
    if spec["gpu"]:
        torch.cuda.reset_peak_memory_stats()
    trainer.run() if ours else trainer.train()
    facts = {"tokens": tokens(rows, spec["objective"]), "steps": trainer.state.global_step}
    facts |= {"step_seconds": clock.seconds, "step_cpu": clock.cpu}
    if spec["gpu"]:
        facts |= {"gpu_mb": torch.cuda.max_memory_allocated() / 1e6, "device": torch.cuda.get_device_name(0)}
    laps.lap("train", **facts)
    held = list(texts(HELD, Shape(**spec["shape"]), spec["vocabulary"], seed=spec["seed"] + 1000))
    laps.lap("held", loss=held_loss(model, held, spec["objective"]))


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Seconds, by the clock and of all processors, from before the first step to after the last: no evaluation and no
        checkpoint lies between."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._start, self._used = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds, self.cpu = time.perf_counter() - self._start, time.process_time() - self._used

    return Clock()


def held_loss(model: Any, rows: list[Text], objective: str) -> float:
    """Mean loss: over tokens of answers (sft), over texts (classify), over pairs beside the model without its adapter (dpo)."""
    import torch
    from torch.nn.functional import cross_entropy, logsigmoid

    model.eval()
    where = next(model.parameters()).device

    def logits(ids: list[int]) -> torch.Tensor:
        asked = torch.tensor([ids], device=where)
        return model(input_ids=asked, attention_mask=torch.ones_like(asked)).logits[0].float()

    def answer_loss(prompt: list[int], answer: list[int]) -> torch.Tensor:
        said = logits(prompt + answer)[len(prompt) - 1 : -1]
        return cross_entropy(said, torch.tensor(answer, device=where), reduction="sum")

    def margin(row: Text) -> torch.Tensor:
        return answer_loss(row.prompt, row.worse) - answer_loss(row.prompt, row.answer)

    with torch.no_grad(), torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
        if objective == "classify":
            losses = [cross_entropy(logits(row.prompt + row.answer), torch.tensor(row.label, device=where)) for row in rows]
            return float(torch.stack(losses).mean())
        if objective == "sft":
            total = torch.stack([answer_loss(row.prompt, row.answer) for row in rows]).sum()
            return float(total / sum(len(row.answer) for row in rows))
        after = torch.stack([margin(row) for row in rows])
        with model.disable_adapter():
            before = torch.stack([margin(row) for row in rows])
        return float(-logsigmoid(0.1 * (after - before)).mean())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main(json.loads(sys.argv[1]))
