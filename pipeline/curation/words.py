"""Texts as unit vectors of their words, weighted by how rare a word is, and the words that tell two sides of texts apart.

No model and no language is assumed: writing without spaces is taken by pairs of characters. Everything is made from the texts
given, so vectors of two calls do not compare.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

_WORD = re.compile(r"\w+")
_WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese are written without spaces."""
_TEXT_CHARS = 4000
_MOST_WORDS = 50_000


def words(text: str, *, signs: bool = False) -> list[str]:
    """The words of a text's first 4,000 characters, case folded; of unspaced writing, each pair of neighbours. signs: also what
    stands between words and is no space, such as §§ or ?!."""
    found: list[str] = []
    for word in (_WORD_OR_SIGN if signs else _WORD).findall(unicodedata.normalize("NFKC", text[:_TEXT_CHARS]).casefold()):
        if _UNSPACED.search(word) and len(word) > 1:
            found += [word[i : i + 2] for i in range(len(word) - 1)]
        else:
            found.append(word)
    return found


def word_vectors(texts: Sequence[str]) -> tuple[Any, list[str]]:
    """(scipy.sparse CSR matrix, texts × words, rows of length 1 or empty; the words). Words that only one text has count for
    nothing between texts, and are left out. Weights: (1 + log count) · (1 + log of texts ÷ texts with the word) (Salton & Buckley
    1988, "Term-weighting approaches in automatic text retrieval")."""
    import numpy as np
    from scipy.sparse import csr_matrix

    counted = [Counter(words(text)) for text in texts]
    having: Counter[str] = Counter()
    for counts in counted:
        having.update(counts.keys())
    kept = sorted((word for word, rows in having.items() if rows > 1), key=lambda word: (-having[word], word))[:_MOST_WORDS]
    columns = {word: column for column, word in enumerate(kept)}
    rarity = [1 + math.log(len(texts) / having[word]) for word in kept]
    indices: list[int] = []
    values: list[float] = []
    starts = [0]
    for counts in counted:
        row = {columns[word]: (1 + math.log(count)) * rarity[columns[word]] for word, count in counts.items() if word in columns}
        length = math.sqrt(sum(value**2 for value in row.values()))
        indices += sorted(row)
        values += [row[column] / length for column in sorted(row)]
        starts.append(len(indices))
    return csr_matrix(
        (np.array(values), np.array(indices, dtype=np.int64), np.array(starts)), shape=(len(texts), len(kept))
    ), kept


def telling_words(texts: Sequence[str], fresh: Sequence[bool], most: int = 12, least: int = 5) -> list[tuple[str, float, float]]:
    """The words whose shares of texts differ most between the sides: (word, share of reference texts, of fresh texts).

    least: a word that fewer texts have is not named; it may well be somebody's.
    """
    having: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for text, side in zip(texts, fresh, strict=True):
        having[bool(side)].update(set(words(text)))
    many = sum(fresh)
    few = len(texts) - many
    shares = [
        (word, having[False][word] / max(few, 1), having[True][word] / max(many, 1))
        for word in having[False].keys() | having[True].keys()
        if having[False][word] + having[True][word] >= least
    ]
    return sorted(shares, key=lambda item: (-abs(item[2] - item[1]), item[0]))[:most]
