"""Rows longer than what is to be trained on, counted in tokens of the base by its own tokenizer.json; no model is loaded.

What a chat template puts around messages is not counted, and neither are special tokens: the caps are about what people wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.curation.rules.findings import Findings, findings
from pipeline.curation.rules.meaning import texts_of
from pipeline.domain.data import ExampleKind
from pipeline.errors import Misuse

_WORDINGS = (
    "its input has {:.0f} tokens, more than curate.max_input_tokens",
    "its output has {:.0f} tokens, more than curate.max_output_tokens",
)


class TokenLengths:
    """Counts the tokens of batches that come one after the other (`add`), with the columns kind, input and output.

    Labels are not counted, since they are picked and not written. Raises Misuse when there is no tokenizer.json at `tokenizer`,
    or it is none.
    """

    def __init__(self, tokenizer: Path | None, *, most_input: int | None, most_output: int | None) -> None:
        self._tokenizer = _load(tokenizer)
        self._most = (most_input, most_output)
        self._rows = 0
        self._found: list[tuple[int, int, int]] = []

    def add(self, batch: Any) -> None:
        kinds = batch.column("kind").to_pylist()
        rows = zip(kinds, batch.column("input").to_pylist(), batch.column("output").to_pylist(), strict=True)
        texts = [texts_of(*row) for row in rows]
        long: dict[int, tuple[int, int]] = {}
        for side, most in enumerate(self._most):
            if most is None:
                continue
            counted = [i for i, kind in enumerate(kinds) if side == 0 or kind != ExampleKind.LABEL]
            for row, count in self._longer([texts[i][side] for i in counted], counted, most):
                long.setdefault(row, (side, count))
        self._found += [(self._rows + row, *long[row]) for row in sorted(long)]
        self._rows += len(kinds)

    def finish(self) -> Findings:
        """The rows beyond a cap; a row whose input and output both are is found for its input."""
        columns = np.array(self._found, np.int64).reshape(-1, 3)
        return findings(columns[:, 0], _WORDINGS, codes=columns[:, 1], values=columns[:, 2])

    def _longer(self, texts: Sequence[str], rows: Sequence[int], most: int) -> list[tuple[int, int]]:
        # No tokenizer makes more tokens than bytes of a text that is ASCII, so most short texts need not be looked at.
        doubtful = [i for i, text in enumerate(texts) if len(text) >= most or not text.isascii()]
        encoded = self._tokenizer.encode_batch_fast([texts[i] for i in doubtful], add_special_tokens=False)
        counts = [(rows[i], len(one.ids)) for i, one in zip(doubtful, encoded, strict=True)]
        return [(row, count) for row, count in counts if count > most]


def _load(path: Path | None) -> Any:
    from tokenizers import Tokenizer

    fix = "use a base that has a tokenizer.json, or drop curate.max_input_tokens and curate.max_output_tokens"
    if path is None or not path.is_file():
        raise Misuse(
            "lengths in tokens need the base's tokenizer.json, and there is none", where=str(path or "model.base"), fix=fix
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for whatever is wrong with the file
        raise Misuse(f"this tokenizer.json cannot be read: {error}", where=str(path), fix=fix) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
