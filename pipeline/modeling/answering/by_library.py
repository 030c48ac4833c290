"""Answers by the library's own loop, for models whose states cannot be shared (see states.py): rows wait for the longest.

Prompts of a batch are padded at their start. peft itself puts a soft prompt before the padding, so that its distance from the
text depends on the longest prompt of the batch (0.21.2: other answers than one by one); here it stands next to the text.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig

from pipeline.modeling.loading import device, virtual_tokens
from pipeline.modeling.texts.rows import pad


def answered(model: Any, prompts: list[list[int]], how: GenerationConfig) -> list[list[int]]:
    """New ids for each prompt, its end token and padding after it included."""
    batch = {k: v.to(device()) for k, v in pad(prompts, how.pad_token_id, left=True).items()}
    before = virtual_tokens(model)
    if not before:
        made = model.generate(**batch, generation_config=how)
        return list(made[:, batch["input_ids"].shape[1] :].tolist())
    if model.active_peft_config.peft_type == "PREFIX_TUNING":
        return _after_prefix(model, batch, before, how)
    return _after_vectors(model, batch, how)


def _after_vectors(model: Any, batch: dict[str, torch.Tensor], how: GenerationConfig) -> list[list[int]]:
    """Embeddings of padding, then the soft prompt, then those of the text; positions follow from the mask."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    vectors = model.get_prompt(batch_size=1)[0]
    embedded = model.get_base_model().get_input_embeddings()(ids)
    rows = [
        torch.cat([row[:padded], vectors.to(row.dtype), row[padded:]])
        for row, padded in zip(embedded, (ids.shape[1] - mask.sum(1)).tolist(), strict=True)
    ]
    longer = torch.cat([mask, torch.ones_like(mask[:, :1]).expand(-1, len(vectors))], dim=1)
    made = model.get_base_model().generate(inputs_embeds=torch.stack(rows), attention_mask=longer, generation_config=how)
    return list(made.tolist())


def _after_prefix(model: Any, batch: dict[str, torch.Tensor], before: int, how: GenerationConfig) -> list[list[int]]:
    """The prefix is what the cache holds; ids that stand for it are skipped, as the library skips what is in a cache."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    stand_in = torch.full((len(ids), before), how.pad_token_id, device=ids.device)
    made = model.get_base_model().generate(
        input_ids=torch.cat([stand_in, ids], dim=1),
        attention_mask=torch.cat([torch.ones_like(stand_in), mask], dim=1),
        past_key_values=model.get_prompt(batch_size=len(ids)),
        generation_config=how,
    )
    return list(made[:, before + ids.shape[1] :].tolist())
