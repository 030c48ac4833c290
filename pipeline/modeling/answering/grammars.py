"""Answers that are JSON of a given shape: which tokens may come next, by llguidance. No model enters here.

A schema is compiled before its row is queued; then each step asks the row's matcher for a mask of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import BadInput, Misuse

_LONGEST = 1 << 16
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
# One blank between tokens at the most: models that are unsure write blanks for ever.
_BLANKS: Any = {"whitespace_pattern": "[ \\n]{0,1}"}


class Grammars:
    """Schemas in a tokenizer's tokens. vocabulary: how wide logits are. ends: ids that end an answer."""

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Sequence[int]) -> None:
        from llguidance.hf import from_tokenizer

        self._vocabulary = vocabulary
        try:
            self._tokens = from_tokenizer(tokenizer, n_vocab=max(vocabulary, len(tokenizer)), eos_token=sorted(ends))
        except ValueError as error:
            raise Misuse(f"this base's tokenizer cannot be held to a schema: {error}") from error

    def of_schema(self, schema: Mapping[str, Any]) -> Grammar:
        """A matcher of a JSON schema. Raises BadInput when the schema is none, is too large, or asks what cannot be held to."""
        from llguidance import LLMatcher

        try:
            text = json.dumps(schema)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"the schema is no JSON: {error}", where="schema") from error
        if len(text) > _LONGEST:
            raise BadInput(f"the schema has {len(text)} characters; {_LONGEST} are allowed", where="schema")
        try:
            matcher = LLMatcher(self._tokens, LLMatcher.grammar_from_json_schema(text, defaults=_BLANKS), log_level=0)
        except ValueError as error:
            raise BadInput(f"the schema cannot be used: {_first_line(str(error))}", where="schema") from error
        if matcher.is_error():
            raise BadInput(f"the schema cannot be used: {_first_line(matcher.get_error())}", where="schema")
        return Grammar(matcher, self._vocabulary)

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to a text."""
        return bytes(self._tokens.decode_bytes([token]))


class Grammar:
    """One answer that is held to a schema."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which ids may come next, [vocabulary]. Raises BadInput when the schema leads nowhere."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed: npt.NDArray[np.bool_] = bits[: self._vocabulary].astype(bool)
        if self._matcher.is_error() or not allowed.any():
            said = self._matcher.get_error() or "nothing may follow"
            raise BadInput(f"the schema leads nowhere: {_first_line(said)}", where="schema")
        return allowed

    def take(self, token: int) -> bool:
        """Go on by a token that was allowed; whether the answer is whole now and nothing may follow."""
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped())


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0][:300]
