"""Subjects that also tell the plain values that their last answers were made of, for whoever remembers them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.modeling.answering.generate import Subjects


class Telling(Subjects):
    """raw: what the last call came to, a JSON value a row."""

    raw: Sequence[Any] = ()

    def _once(
        self, what: str, name: str, settings: dict[str, Any], rows: Sequence[Any], make: Callable[[list[int]], list[Any]]
    ) -> tuple[list[Any], int]:
        found, known = super()._once(what, name, settings, rows, make)
        self.raw = found
        return found, known
