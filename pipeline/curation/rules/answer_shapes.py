"""Which shape answers have: JSON or not and with which keys, lists, code, scripts. Shown two, a model learns to guess.

Only free-text answers are looked at. Parsing is asked for where a text begins like JSON; everything else is columnar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from pipeline.curation.rules.columns import Codes, Names
from pipeline.curation.rules.findings import Findings, Mask, findings
from pipeline.domain.data import ExampleKind
from pipeline.domain.record import canonical_json

ENOUGH = 20
"""With fewer answers nothing is said of them: one of five is no stray."""
_MAIN_SHARE = 0.9
"""A shape that so many answers share is the shape of the dataset, and the others stray from it."""
_KEY_SETS = 1000
_SHAPES = {
    "bullet or numbered list": r"(?m)^\s*([-*•]|\d+[.)])\s+\S",
    "code block": "```",
    "ends a sentence": r"[.!?…。！？]\W*$",
}
_SCRIPTS = {
    "Latin": r"\p{Latin}",
    "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}",
    "Arabic": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Devanagari": r"\p{Devanagari}",
    "Thai": r"\p{Thai}",
    "Hangul": r"\p{Hangul}",
    "Han and kana": r"[\p{Han}\p{Hiragana}\p{Katakana}]",
}
_NO_SCRIPT = "no letters of a known script"
_WORDINGS = (
    "its answer is no JSON, as {:.1%} of the answers are",
    "its answer is JSON, and {:.1%} of the answers are not",
    "its answer's JSON has other keys than {:.1%} of the JSON answers have",
    "its answer is in another script than {:.1%} of the answers",
)


@dataclass(frozen=True, slots=True)
class AnswerShapes:
    """The shapes of answers. rows: which rows they are of, ascending. json: which parse as an object or array. keys: number of
    the set of keys, -1 for what is no JSON. scripts: number of the script of most letters. shapes: name to truth values."""

    rows: npt.NDArray[np.int64]
    json: Mask
    keys: Codes
    key_names: tuple[str, ...]
    scripts: Codes
    shapes: dict[str, Mask]

    def table(self, kept: Mask) -> list[tuple[str, int, float]]:
        """(shape, how many of the kept answers have it, their share), in a fixed order."""
        chosen = kept[self.rows]
        named = {"JSON object or array": self.json, **self.shapes}
        for number, name in enumerate((*_SCRIPTS, _NO_SCRIPT)):
            named[f"script: {name}"] = self.scripts == number
        total = max(int(chosen.sum()), 1)
        counts = [(name, int((mask & chosen).sum())) for name, mask in named.items()]
        return [(name, count, count / total) for name, count in counts if count or not name.startswith("script")]


def strays(shapes: AnswerShapes, kept: Mask) -> Findings:
    """Kept answers in another shape than most: JSON or not, whichever is rarer; other keys; another script.

    Keys and scripts are judged where nine in ten answers agree. Fewer than ENOUGH answers give no findings.
    """
    chosen = np.flatnonzero(kept[shapes.rows])
    codes, shares = np.full(len(chosen), -1), np.zeros(len(_WORDINGS))
    json = shapes.json[chosen]
    scripts = shapes.scripts[chosen]
    asked = [
        (1, json, np.ones(len(chosen), np.bool_), 0.5),
        (2, shapes.keys[chosen], json, _MAIN_SHARE),
        (3, scripts, scripts < len(_SCRIPTS), _MAIN_SHARE),
    ]
    for code, numbers, among, least in asked:
        if int(among.sum()) < ENOUGH:
            continue
        counts = np.bincount(numbers[among])
        main = int(counts.argmax())
        shares[code] = counts[main] / counts.sum()
        if shares[code] >= least:
            codes[among & (numbers != main) & (codes < 0)] = code
    # Of the first question there are two answers: JSON is the rule, or the exception.
    if len(json) and json.mean() > 0.5:
        codes[codes == 1], shares[0] = 0, shares[1]
    found = codes >= 0
    return findings(shapes.rows[chosen[found]], _WORDINGS, codes=codes[found], values=shares[codes[found]])


class ShapeCounting:
    """Makes AnswerShapes of batches that come one after the other (`add`), with the columns kind and output."""

    def __init__(self) -> None:
        self._seen = 0
        self._keys = Names()
        self._parts: list[tuple[Any, ...]] = []

    def add(self, batch: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        answers = np.flatnonzero(pc.equal(batch.column("kind"), ExampleKind.ANSWER.value).to_numpy(zero_copy_only=False))
        texts = batch.column("output").take(pa.array(answers))
        keys = self._key_sets(texts)
        shapes = [_mask(pc.match_substring_regex(texts, pattern)) for pattern in _SHAPES.values()]
        self._parts.append((answers + self._seen, keys, _script_codes(texts), *shapes))
        self._seen += batch.num_rows

    def finish(self) -> AnswerShapes:
        types = (np.int64, np.int32, np.int32, *(np.bool_ for _ in _SHAPES))
        columns: list[Any] = [
            np.concatenate([np.zeros(0, type), *(part[at] for part in self._parts)]).astype(type, copy=False)
            for at, type in enumerate(types)
        ]
        rows, keys, scripts = columns[:3]
        return AnswerShapes(rows, keys >= 0, keys, self._keys.listed, scripts, dict(zip(_SHAPES, columns[3:], strict=True)))

    def _key_sets(self, texts: Any) -> Codes:
        """The number of each answer's set of keys, -1 where it is no JSON. Beyond a thousand sets all others share a number."""
        import pyarrow as pa
        import pyarrow.compute as pc

        codes = np.full(len(texts), -1, np.int32)
        likely = np.flatnonzero(_mask(pc.match_substring_regex(texts, r"^\s*[\[{]")))
        names = [_keys_of(text) for text in texts.take(pa.array(likely)).to_pylist()]
        parsed = [at for at, name in enumerate(names) if name is not None]
        known = [names[at] for at in parsed]
        if len(self._keys.listed) > _KEY_SETS:
            listed = set(self._keys.listed)
            known = [name if name in listed else "other keys" for name in known]
        codes[likely[parsed]] = self._keys.encode(pa.array(known, pa.string()))
        return codes


def _keys_of(text: str) -> str | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return canonical_json(sorted(value)) if isinstance(value, dict) else "array" if isinstance(value, list) else None


def _script_codes(texts: Any) -> Codes:
    """The script that most letters of each text are of. ASCII is Latin where it has letters."""
    import pyarrow as pa
    import pyarrow.compute as pc

    codes = np.where(_mask(pc.match_substring_regex(texts, "[A-Za-z]")), 0, len(_SCRIPTS)).astype(np.int32)
    foreign = np.flatnonzero(~_mask(pc.string_is_ascii(texts)))
    if len(foreign):
        some = texts.take(pa.array(foreign))
        counted = [pc.count_substring_regex(some, pattern).to_numpy(zero_copy_only=False) for pattern in _SCRIPTS.values()]
        counts = np.stack(counted)
        codes[foreign] = np.where(counts.max(axis=0) > 0, counts.argmax(axis=0), len(_SCRIPTS))
    return codes


def _mask(column: Any) -> Mask:
    mask: Mask = column.to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask
