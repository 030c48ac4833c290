"""What an objective makes of one row: which of its texts become token ids, what of them is learned, what is cut, what is dropped.

Reading, counting and keeping are encoding.py's. Nothing here loads a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pipeline.domain.data import ExampleKind
from pipeline.domain.tuning import Objective
from pipeline.errors import BadInput, Misuse
from pipeline.modeling.texts.conversation import answers_of, is_good
from pipeline.modeling.texts.rows import IGNORED, Item, Row
from pipeline.modeling.texts.template import ChatTemplate, Rendered

LONG, BOUNDARY, EQUAL, BAD, EMPTY = "dropped_long", "dropped_boundary", "dropped_equal", "dropped_bad", "dropped_empty"
"""Why a row comes to nothing: its answer alone is too long; its prompt is no prefix of the whole in ids; the sides of its pair
are equal; its answer is marked bad, and only good ones are learned; it has no token."""
DROPPED = (LONG, BOUNDARY, EQUAL, BAD, EMPTY)


@dataclass(slots=True)
class Made:
    """What became of a row. items with, for each, whether it is good (kto); or `dropped`, why there are none. cut: a text lost
    some of its tokens. partly: some of its pairs were dropped. answer: its own answer as text (ppo)."""

    items: list[Item] = field(default_factory=list)
    good: list[bool | None] = field(default_factory=list)
    dropped: str = ""
    cut: bool = False
    partly: bool = False
    answer: str | None = None


Texts = Sequence[str]


class Maker:
    """Makes items of rows for one objective. room: tokens that a text may have (of a prompt, for ppo)."""

    def __init__(
        self, objective: Objective, tokenizer: Any, template: ChatTemplate | None, labels: Sequence[str], *, room: int
    ) -> None:
        self.objective = objective
        self.tokenizer = tokenizer
        self.room = room
        self._template = template
        self._labels = {label: [n] for n, label in enumerate(labels)}
        makers: dict[Objective, Callable[[Texts, Texts, Texts], list[Made]]] = {
            Objective.PRETRAIN: self._documents,
            Objective.CLASSIFY: self._labelled,
            Objective.KTO: self._judged,
            Objective.PPO: self._prompts,
        }
        self.make = makers.get(objective, self._answers if objective is Objective.SFT else self._pairs)
        """Of the columns input, output and kind of some rows, what each becomes."""

    @property
    def template(self) -> ChatTemplate:
        """The chat template. Raises Misuse when the base has none."""
        if self._template is None:
            raise Misuse(
                f"the objective {self.objective} writes conversations, and the base has no chat template",
                where="model.chat_template",
                fix="name a file with one; without one a base can be tuned on raw text (pretrain) or labels (classify)",
            )
        return self._template

    def _documents(self, inputs: Texts, outputs: Texts, kinds: Texts) -> list[Made]:
        """Each document, and its end token, in pieces. A piece begins with the token that the one before ends in, so that every
        token but a document's first is predicted once."""
        end = self.tokenizer.eos_token_id
        documents = [n for n, kind in enumerate(kinds) if kind == ExampleKind.TEXT]
        others = [n for n, kind in enumerate(kinds) if kind != ExampleKind.TEXT]
        if documents and end is None:
            raise Misuse("the tokenizer has no end token to put after a document", where="model.base")
        found: dict[int, list[int]] = {}
        if documents:
            # A document that spells a special token holds its letters, not the token.
            texts = self.tokenizer([outputs[n] for n in documents], split_special_tokens=True, verbose=False)["input_ids"]
            found |= {n: ids if ids[-1:] == [end] else [*ids, end] for n, ids in zip(documents, texts, strict=True)}
        if others:
            columns = ([values[n] for n in others] for values in (inputs, outputs, kinds))
            found |= dict(zip(others, self.template.whole_texts(*columns), strict=True))
        return [self._pieces(found[n]) for n in range(len(kinds))]

    def _pieces(self, ids: list[int]) -> Made:
        if len(ids) < 2:
            return Made(dropped=EMPTY)
        step = max(self.room - 1, 1)
        pieces = [ids[start : start + self.room] for start in range(0, len(ids) - 1, step)]
        return Made([[Row(piece, piece)] for piece in pieces], cut=len(pieces) > 1)

    def _labelled(self, inputs: Texts, outputs: Texts, kinds: Texts) -> list[Made]:
        unknown = sorted(set(outputs) - self._labels.keys())
        if unknown:
            raise BadInput(f"the label {unknown[0]!r} is none of the {len(self._labels)} labels of the splits record")
        texts = token_ids(self.tokenizer, inputs, max_length=self.room)
        return [Made([[Row(ids, self._labels[label])]], cut=cut) for (ids, cut), label in zip(texts, outputs, strict=True)]

    def _answers(self, inputs: Texts, outputs: Texts, kinds: Texts) -> list[Made]:
        """The answer, the better side of a pair, the best of a ranking, and of feedback what is good."""
        best = [answers_of(*row)[:1] for row in zip(outputs, kinds, strict=True)]
        made = []
        for (rendered,), row in zip(self._rendered(inputs, best), zip(outputs, kinds, strict=True), strict=True):
            bad = row[1] == ExampleKind.FEEDBACK and not is_good(row[0])
            made.append(Made(dropped=BAD) if bad else self._sides([rendered]))
        return made

    def _pairs(self, inputs: Texts, outputs: Texts, kinds: Texts) -> list[Made]:
        """Both sides of a preference; of a ranking each answer beside the next better one."""
        said = [answers_of(*row) for row in zip(outputs, kinds, strict=True)]
        return [_as_one([self._sides(pair) for pair in pairwise(row)]) for row in self._rendered(inputs, said)]

    def _judged(self, inputs: Texts, outputs: Texts, kinds: Texts) -> list[Made]:
        """Each answer by itself, and whether it is to be given: of pairs the better side is and the worse is not."""
        rows = list(zip(outputs, kinds, strict=True))
        made = []
        for (output, kind), sides in zip(rows, self._rendered(inputs, [answers_of(*row) for row in rows]), strict=True):
            if kind == ExampleKind.FEEDBACK:
                made.append(self._marked(sides[0], good=is_good(output)))
            else:
                made.append(_as_one([one for pair in pairwise(sides) for one in self._both(*pair)]))
        return made

    def _both(self, better: Rendered | None, worse: Rendered | None) -> list[Made]:
        if _equal(better, worse):
            return [Made(dropped=EQUAL)]
        return [self._marked(better, good=True), self._marked(worse, good=False)]

    def _marked(self, side: Rendered | None, *, good: bool) -> Made:
        made = self._sides([side])
        made.good = [good] * len(made.items)
        return made

    def _prompts(self, inputs: Texts, outputs: Texts, kinds: Texts) -> list[Made]:
        made = []
        for ids, output, kind in zip(self.template.prompts(inputs), outputs, kinds, strict=True):
            cut = ids[-self.room :]
            answer = "" if kind == ExampleKind.PROMPT else str(answers_of(output, kind)[0][-1]["content"])
            made.append(Made([[Row(cut, [])]], [None], cut=len(cut) < len(ids), answer=answer))
        return made

    def _rendered(self, inputs: Texts, said: Sequence[Sequence[Any]]) -> list[list[Rendered | None]]:
        """Every way in which each conversation goes on, in ids."""
        flat = iter(
            self.template.continued(
                [text for text, ways in zip(inputs, said, strict=True) for _ in ways], [way for ways in said for way in ways]
            )
        )
        return [[next(flat) for _ in ways] for ways in said]

    def _sides(self, sides: Sequence[Rendered | None]) -> Made:
        """One item of texts that answer one prompt, which loses its start where the longest of them leaves too little room."""
        whole = [side for side in sides if side is not None]
        if len(whole) < len(sides):
            return Made(dropped=BOUNDARY)
        if len(whole) == 2 and _equal(*whole):
            return Made(dropped=EQUAL)
        room = self.room - max(len(side.answer) for side in whole)
        if room < 1:
            return Made(dropped=LONG)
        item = [self._row(side.prompt[-room:], side, at) for at, side in enumerate(whole)]
        return Made([item], [None], cut=any(len(side.prompt) > room for side in whole))

    def _row(self, prompt: list[int], side: Rendered, at: int) -> Row:
        ids = prompt + side.answer
        if self.objective is Objective.REWARD:
            return Row(ids, [])
        if self.objective is Objective.ORPO and at == 0:
            return Row(ids, ids)  # the better text is learned whole, as its authors do
        return Row(ids, [IGNORED] * len(prompt) + side.labels)


def token_ids(tokenizer: Any, texts: Texts, *, max_length: int) -> list[tuple[list[int], bool]]:
    """Ids of texts for a classifier, each at most `max_length`, and whether it was cut for that, at its end."""
    if not texts:
        return []
    whole = tokenizer(list(texts), padding=False, truncation=False, return_attention_mask=False, verbose=False)["input_ids"]
    long = [n for n, ids in enumerate(whole) if len(ids) > max_length]
    found = [(list(ids), False) for ids in whole]
    if long:
        again = tokenizer([texts[n] for n in long], padding=False, truncation=True, max_length=max_length)["input_ids"]
        for n, ids in zip(long, again, strict=True):
            found[n] = (list(ids), True)
    return found


def _equal(better: Rendered | None, worse: Rendered | None) -> bool:
    return better is not None and worse is not None and better.answer == worse.answer


def _as_one(made: list[Made]) -> Made:
    """What a row becomes whose pairs became these; with none left, the reason of the first."""
    kept = [one for one in made if one.items]
    if not kept:
        return Made(dropped=made[0].dropped if made else EMPTY)
    items, good = [item for one in kept for item in one.items], [value for one in kept for value in one.good]
    return Made(items, good, cut=any(one.cut for one in kept), partly=len(kept) < len(made))
