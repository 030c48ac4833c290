"""One answer under way: what was asked, what was said so far, and how it goes on. The model that makes it is lanes.py's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.domain.serving import TokenChance
from pipeline.modeling.answering.grammars import Grammar
from pipeline.modeling.answering.sampling import Choice
from pipeline.modeling.answering.saying import Saying


@dataclass(frozen=True, slots=True)
class Said:
    """What one step added to an answer. finish: why it is whole, None while it is not."""

    text: str
    chances: tuple[TokenChance, ...] = ()
    finish: Literal["stop", "length"] | None = None


@dataclass(eq=False, slots=True)
class Row:
    """An answer that is being made. name: of its adapter inside the model; digest: of that adapter. most: new tokens at the most.

    logprobs: None, or how many of the likeliest are told beside each token. tag: whatever its owner wants to find here again.
    """

    name: str
    digest: str
    prompt: list[int]
    most: int
    ends: frozenset[int]
    saying: Saying
    choice: Choice = field(default_factory=Choice)
    grammar: Grammar | None = None
    logprobs: int | None = None
    tag: Any = None
    made: list[int] = field(default_factory=list)
    _waiting: list[TokenChance] = field(default_factory=list)

    def take(self, token: int, chance: TokenChance | None) -> Said:
        """Go on by `token`."""
        self.made.append(token)
        if chance is not None:
            self._waiting.append(chance)
        whole = self.grammar.take(token) if self.grammar is not None else False
        text = "" if token in self.ends else self.saying.add(token)
        finish: Literal["stop", "length"] | None = None
        if token in self.ends or whole or self.saying.stopped:
            finish = "stop"
        elif len(self.made) >= self.most:
            finish = "length"
        if finish is not None:
            text += self.saying.end()
        if not text and finish is None:
            return Said("")
        chances, self._waiting = tuple(self._waiting), []
        return Said(text, chances, finish)


Moved = tuple[Row, "Said | Exception"]
"""A row that went on, and by what; or why it cannot."""

Bytes = Callable[[int], bytes]
