"""Metrics of answers as texts: how much of what is expected stands in them, and in what manner. Strings in, numbers out."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Numbers, Statistic

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
"""Kana and Han, which are written without spaces: each character is a token of its own."""
_TOKENS = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")

_ORDERS = 4
"""BLEU counts n-grams of up to so many tokens."""


def exact_match(expected: str, answer: str) -> float:
    """1 if the texts are equal once runs of whitespace are one space and the ends are stripped. Case and signs count."""
    return float(expected.split() == answer.split())


def token_f1(expected: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the bag of tokens (Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250).

    Tokens are runs of letters, digits and underscores, without regard to case; Kana and Han characters stand alone. Unlike
    SQuAD's script, English articles are kept (answers need not be English) and signs part words instead of gluing them
    (answers may be JSON). Two texts without any token are equal: 1; one without: 0.
    """
    wanted, given = tokens(expected), tokens(answer)
    if not wanted or not given:
        return float(not wanted and not given)
    return f1(sum((Counter(wanted) & Counter(given)).values()), len(wanted), len(given))


def rouge_l(expected: str, answer: str) -> float:
    """F1 of the longest common subsequence of tokens (ROUGE-L; Lin 2004, W04-1013).

    Tokens are token_f1's, without stemming, so that it means something in other languages too; of English words the number is
    that of rouge-score. A text is one sequence, however many sentences it has.
    """
    from rapidfuzz.distance import LCSseq

    wanted, given = tokens(expected), tokens(answer)
    if not wanted or not given:
        return float(not wanted and not given)
    numbers = {token: number for number, token in enumerate(dict.fromkeys([*wanted, *given]))}
    shared = LCSseq.similarity([numbers[token] for token in wanted], [numbers[token] for token in given])
    return f1(shared, len(wanted), len(given))


def chrf(expected: str, answer: str) -> float:
    """F2 of character 1- to 6-grams, white space apart (Popović 2015, "chrF", W15-3049), as sacrebleu makes it of one sentence.

    Two texts without a visible character are equal: 1.
    """
    if not expected.split() or not answer.split():
        return float(not expected.split() and not answer.split())
    # Sums within sacrebleu may end a last bit above 100.
    return min(float(_chrf().sentence_score(answer, [expected]).score) / 100, 1.0)


def bleu(rows: SplitRows, said: Said) -> Statistic:
    """BLEU of all answers together (Papineni et al. 2002, P02-1040), as sacrebleu counts and smooths it (Post 2018, W18-6319).

    Tokens by mteval-v13a, case counts, one expected answer a row, n up to 4; where no answer at all has so many tokens, up to the
    most that one has (sacrebleu's effective order), since of short answers nothing would be left. A resample adds up the counts
    of its rows, as sacrebleu's own bootstrap does.
    """
    counts = [_bleu_counts(expected, answer) for expected, answer in zip(rows.expected, said.texts, strict=True)]
    return Statistic(np.array(counts, dtype=np.float64).reshape(len(rows), 2 + 2 * _ORDERS), _bleu_of)


def style_match(expected: str, answer: str) -> float:
    """1 - the Jensen-Shannon distance between the trigrams of the shapes of both texts; what they say does not count, how does.

    A text's shape has one sign for each run of capitals, small letters, other letters or digits, and every other character as
    itself (runs of spaces as one): "Hi, I'm Bo." is "Aa, A'a Aa.". So it tells capitals, punctuation, lists, mark-up, emoji and
    scripts. Character n-grams of this sort are what tells authors apart (Stamatatos 2009, "A Survey of Modern Authorship
    Attribution Methods"; Sapkota et al. 2015, N15-1010). The divergence is to base 2 (Lin 1991), and its square root a distance
    (Endres & Schindelin 2003).
    """
    ours, theirs = _trigrams(expected), _trigrams(answer)
    return 1 - math.sqrt(_divergence(ours, theirs))


def tokens(text: str) -> list[str]:
    """Runs of letters, digits and underscores, in small letters; Kana and Han characters stand alone."""
    return _TOKENS.findall(text.casefold())


def f1(shared: int, wanted: int, given: int) -> float:
    """Harmonic mean of shared / wanted and shared / given."""
    return 2 * shared / (wanted + given)


def _bleu_counts(expected: str, answer: str) -> list[int]:
    """Length of the answer, of what is expected; right n-grams and all n-grams, for n of 1 to 4."""
    found = _bleu().sentence_score(answer, [expected])
    return [found.sys_len, found.ref_len, *found.counts, *found.totals]


def _bleu_of(sums: Numbers) -> Numbers:
    """sacrebleu's compute_bleu with smoothing "exp" and the effective order, of many sums at once."""
    given, wanted, right, all = sums[:, 0], sums[:, 1], sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS :]
    orders = np.minimum.accumulate(all > 0, axis=1)
    halvings = np.cumsum(orders & (right <= 0), axis=1)
    smoothed = np.where(right > 0, right, 0.5**halvings)
    logs = np.log(np.divide(smoothed, all, out=np.ones_like(all), where=orders))
    used = orders.sum(axis=1)
    precision = np.exp(np.divide(logs.sum(axis=1), used, out=np.zeros(len(sums)), where=used > 0))
    ratio = np.divide(wanted, given, out=np.ones_like(given), where=given > 0)
    value = precision * np.exp(np.minimum(1 - ratio, 0.0))
    return np.asarray(np.where((right > 0).any(axis=1), np.minimum(value, 1.0), 0.0))


def _trigrams(text: str) -> Mapping[str, float]:
    shape: list[str] = []
    for character in text.strip():
        sign = _sign(character)
        if sign not in ("A", "a", "x", "0", " ") or not shape or shape[-1] != sign:
            shape.append(sign)
    whole = f"\x02{''.join(shape)}\x03"
    counts = Counter(whole[at : at + 3] for at in range(max(1, len(whole) - 2)))
    total = sum(counts.values())
    return {gram: count / total for gram, count in counts.items()}


def _sign(character: str) -> str:
    if character.isdigit():
        return "0"
    if character.isalpha():
        return "A" if character.isupper() or character.istitle() else "a" if character.islower() else "x"
    return " " if character.isspace() and character != "\n" else character


def _divergence(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Jensen-Shannon, to base 2: 0 of the same, 1 of two that share nothing."""
    grams = sorted({*ours, *theirs})
    p, q = (np.array([side.get(gram, 0.0) for gram in grams]) for side in (ours, theirs))
    middle = (p + q) / 2
    both = sum(float(np.sum(side[side > 0] * np.log2(side[side > 0] / middle[side > 0]))) for side in (p, q))
    return min(max(both / 2, 0.0), 1.0)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # It advises about single sentences, of which only the counts are taken here.
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    return BLEU(effective_order=True)
