"""Texts into vectors: the mean of a base's last hidden states, of unit length. Implements ports.Embedder.

Any base will do: MiniLM, which was made for it, or the one that is tuned, whose own states then show what it tells apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize
from transformers import AutoModel

from pipeline.modeling.base import check_config
from pipeline.modeling.loading import context_length, device, half_precision, inference, load_tokenizer, quiet
from pipeline.modeling.texts.encoding import encode_texts
from pipeline.modeling.texts.rows import by_length, pad
from pipeline.ports import Progress, silent

_LONGEST = 256
"""Tokens of a text that are read; what a text is about is told by its beginning."""


class TextEncoder:
    """A base without its head, read-only. path: the base's folder."""

    def __init__(self, path: Path) -> None:
        check_config(path)
        self._tokenizer = load_tokenizer(path)
        dtype = torch.bfloat16 if half_precision() else torch.float32
        options = {"dtype": dtype, "trust_remote_code": False, "local_files_only": True, "use_safetensors": True}
        with quiet():
            loaded = AutoModel.from_pretrained(path, **options)
        self._model = loaded.to(device()).eval()
        self._longest = min(_LONGEST, context_length(self._model) or _LONGEST)

    def embed(self, texts: Sequence[str], *, batch_size: int = 64, progress: Progress = silent) -> npt.NDArray[np.float32]:
        """Vectors [texts, hidden] of unit length, in the order of `texts`. A text without a token is the zero vector."""
        ids, _ = encode_texts(self._tokenizer, texts, max_length=self._longest)
        vectors = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        lengths, done = [len(i) for i in ids], 0
        for batch in by_length(lengths, batch_size):
            rows = [row for row in batch if lengths[row]]
            if rows:
                vectors[rows] = self._mean([ids[row] for row in rows])
            done += len(batch)
            progress("embedding", done, len(texts))
        return vectors

    def _mean(self, ids: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        padded = {name: tensor.to(device()) for name, tensor in pad(ids, self._tokenizer.pad_token_id).items()}
        with inference():
            states = self._model(**padded).last_hidden_state.float()
        mask = padded["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        found: npt.NDArray[np.float32] = normalize(mean, dim=-1).cpu().numpy()
        return found
