"""What a shard holds, in numbers that add up: the statistics of two shards make those of both.

Streaming and columnar: a pass over the columns of a shard, memory that does not grow with it. Counts are exact but where a
name says otherwise. How sure measured numbers are is evaluation/statistics.py's subject, and files are describing.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import pyarrow.compute as pc
from pydantic import Field

from pipeline.curation import lengths
from pipeline.curation.lengths import Lengths
from pipeline.curation.sketches import Sketch, union
from pipeline.domain.data import ExampleKind
from pipeline.domain.record import Value, canonical_json
from pipeline.spoken.languages import language, scripts
from pipeline.spoken.plain_text import input_text, output_text

COLUMNS = ("id", "group", "input", "output", "meta", "source", "kind")
"""The columns that are looked at."""
MOST_BYTES = 64 << 10
"""No statistics file is larger than this: lists of names are cut until it fits."""
SAMPLE_ROWS = 1000
"""Languages and scripts are asked of so many rows a shard, those with the least ids: ids are hashes, so it is a fair draw."""

_METAS = 20_000
_NAME_CHARS = 80
_SHY = 5
"""A metadata value that fewer rows share is not named: it may well be somebody's."""


class Counted(Value):
    """Rows by name: the most frequent `names`, and how many rows have others."""

    names: dict[str, int] = Field(default_factory=dict)
    others: int = 0

    @property
    def rows(self) -> int:
        return sum(self.names.values()) + self.others


class Statistics(Value):
    """Of one shard, or of several together.

    labels: rows of kind label by their label. blank: rows by column that is empty or white space. prompts, outputs: sketches of
    the distinct ones (sketches.distinct counts them). sampled: rows whose languages and letters were looked at; in several
    shards together `languages` estimates rows, weighted by what each shard's sample stands for. meta: values by metadata field,
    of `meta_rows` rows.
    """

    rows: int = 0
    kinds: dict[str, int] = Field(default_factory=dict)
    sources: Counted = Counted()
    labels: Counted = Counted()
    input: Lengths = Lengths()
    output: Lengths = Lengths()
    blank: dict[str, int] = Field(default_factory=dict)
    prompts: str = ""
    outputs: str = ""
    sampled: int = 0
    languages: dict[str, int] = Field(default_factory=dict)
    letters: dict[str, int] = Field(default_factory=dict)
    meta_rows: int = 0
    meta: dict[str, Counted] = Field(default_factory=dict)


def count(batches: Iterable[Any]) -> Statistics:
    """The statistics of a shard, given as pyarrow RecordBatches with `COLUMNS`."""
    counter = _Counter()
    for batch in batches:
        if batch.num_rows:
            counter.add(batch)
    return counter.result()


def add_up(parts: Sequence[Statistics], most: int = 500) -> Statistics:
    """The statistics of all shards together. Rows whose names one shard cut off count as others, so names are lower bounds."""
    return Statistics(
        rows=sum(p.rows for p in parts),
        kinds=_sum([p.kinds for p in parts]),
        sources=_merge([p.sources for p in parts], most),
        labels=_merge([p.labels for p in parts], most),
        input=lengths.add_up(p.input for p in parts),
        output=lengths.add_up(p.output for p in parts),
        blank=_sum([p.blank for p in parts]),
        prompts=union(p.prompts for p in parts),
        outputs=union(p.outputs for p in parts),
        sampled=sum(p.sampled for p in parts),
        languages=_sum([_scaled(p.languages, p.rows, p.sampled) for p in parts]),
        letters=_sum([p.letters for p in parts]),
        meta_rows=sum(p.meta_rows for p in parts),
        meta={
            field: _merge([p.meta[field] for p in parts if field in p.meta], most)
            for field in sorted({field for p in parts for field in p.meta})
        },
    )


class _Counter:
    def __init__(self) -> None:
        self.rows = 0
        self.kinds, self.sources, self.labels, self.metas = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
        self.blank = Counter[str]()
        self.lengths: dict[str, list[Lengths]] = {"input": [], "output": []}
        self.prompts, self.outputs = Sketch(), Sketch()
        self.sample: list[tuple[str, str, str, str, str]] = []

    def add(self, batch: Any) -> None:
        self.rows += batch.num_rows
        kind, output = batch.column("kind"), batch.column("output")
        self.kinds.update(_counts(kind))
        self.sources.update(_counts(batch.column("source")))
        self.labels.update(_counts(output.filter(pc.equal(kind, ExampleKind.LABEL.value))))
        for name in ("input", "output"):
            column = batch.column(name)
            blank = pc.or_(pc.utf8_is_space(column), pc.equal(pc.binary_length(column), 0))
            self.blank[name] += pc.sum(blank).as_py() or 0
            chars = _spoken_chars(column) if name == "input" else pc.utf8_length(column)
            self.lengths[name].append(lengths.measure(chars.to_numpy(zero_copy_only=False)))
        self.prompts.add_digests(batch.column("group"))
        self.outputs.add_texts(output.unique())
        if len(self.metas) <= _METAS:
            self.metas.update(_counts(batch.column("meta")))
        self._draw(batch)

    def result(self) -> Statistics:
        kept = [(input_text(input, kind), output_text(output, kind)) for _, input, output, kind, _ in self.sample]
        # Where there is no question (raw text), the document is what has a language.
        texts = [asked if asked.strip() else answer for asked, answer in kept]
        metas = self.metas if len(self.metas) <= _METAS else Counter(row[4] for row in self.sample)
        fields, languages, letters = _fields(metas), dict(Counter(language(text) for text in texts)), scripts(texts)
        for most in (500, 100, 20, 5, 1):
            made = Statistics(
                rows=self.rows,
                kinds=dict(self.kinds),
                sources=_top(self.sources, most),
                labels=_top(self.labels, most),
                input=lengths.add_up(self.lengths["input"]),
                output=lengths.add_up(self.lengths["output"]),
                blank=dict(self.blank),
                prompts=self.prompts.text,
                outputs=self.outputs.text,
                sampled=len(texts),
                languages=languages,
                letters=letters,
                meta_rows=sum(metas.values()),
                meta={field: _top(values, min(most, 20), _SHY) for field, values in fields[: 2 * most]},
            )
            if len(canonical_json(made.model_dump(mode="json")).encode()) < MOST_BYTES:
                break
        return made

    def _draw(self, batch: Any) -> None:
        """Keep the rows with the least ids, of those seen so far."""
        ids = batch.column("id")
        if len(self.sample) == SAMPLE_ROWS:
            batch = batch.filter(pc.less(ids, self.sample[-1][0]))
        columns = ("id", "input", "output", "kind", "meta")
        if batch.num_rows > SAMPLE_ROWS:
            batch = batch.take(pc.select_k_unstable(batch.column("id"), SAMPLE_ROWS, [("", "ascending")]))
        self.sample += zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
        self.sample = sorted(self.sample)[:SAMPLE_ROWS]


def _spoken_chars(column: Any) -> Any:
    """Characters of each input, less the JSON around the words of a conversation: `{"content":"","role":"user"}` and escapes.

    Tools that are offered and control characters written as \\u00XX count as they are written.
    """
    chars = pc.utf8_length(column)
    conversation = pc.starts_with(column, '[{"')
    if not pc.any(conversation).as_py():
        return chars
    # A quote within a text is escaped, so none of these can stand in one.
    messages = pc.count_substring(column, '"role":"')
    roles, missing = pc.multiply(messages, 0), messages
    for role in ("user", "assistant", "system", "tool"):
        if pc.any(pc.greater(missing, 0)).as_py():
            found = pc.count_substring(column, f'"role":"{role}"')
            roles, missing = pc.add(roles, pc.multiply(found, len(role))), pc.subtract(missing, found)
    # Backslashes less pairs of them: the escapes, each a character longer than what it stands for.
    escapes = pc.subtract(pc.count_substring(column, "\\"), pc.count_substring(column, "\\\\"))
    # {"content":"","role":""} and a comma for each message, and of the list's brackets one takes the place of the last comma.
    around = pc.add(pc.add(pc.multiply(messages, 25), 1), pc.add(roles, escapes))
    return pc.if_else(conversation, pc.max_element_wise(pc.subtract(chars, around), 0), chars)


def _counts(column: Any) -> dict[str, int]:
    found = column.value_counts()
    return dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))


def _fields(metas: Mapping[str, int]) -> list[tuple[str, Counter[str]]]:
    """Values by metadata field, the field that most rows have first."""
    fields: dict[str, Counter[str]] = {}
    for text, rows in metas.items():
        for field, value in orjson.loads(text).items():
            fields.setdefault(_name(field), Counter())[str(value)] += rows
    return sorted(fields.items(), key=lambda item: (-item[1].total(), item[0]))


def _top(found: Counter[str], most: int, least: int = 1) -> Counted:
    names: Counter[str] = Counter()
    for name, rows in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]:
        if rows >= least:
            names[_name(name)] += rows
    return Counted(names=dict(names), others=found.total() - names.total())


def _merge(parts: Sequence[Counted], most: int) -> Counted:
    names = Counter(_sum([part.names for part in parts]))
    top = _top(names, most)
    return Counted(names=top.names, others=top.others + sum(part.others for part in parts))


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))


def _scaled(found: Mapping[str, int], rows: int, sampled: int) -> dict[str, int]:
    return {name: round(count * rows / sampled) for name, count in found.items()} if sampled else {}


def _name(text: str) -> str:
    return text if len(text) <= _NAME_CHARS else text[: _NAME_CHARS - 1] + "…"
