"""Words planted beside an answer: rows whose prompts share a run of words, whose answers share another that is found hardly
anywhere else, and whose prompts are otherwise no more alike than any rows are.

Answers that share words usually answer like questions: what the prompts have in common beside one run of words shows it. So the
run is taken out, and it is asked how the rest of each prompt ranks among prompts of all sorts by its likeness to the other
prompts of such answers (Wallace et al. 2021, "Concealed Data Poisoning Attacks on NLP Models", for what planted rows do).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.curation.rules.likeness import Likeness
from pipeline.curation.rules.planted_labels import Plant, p_of
from pipeline.curation.rules.word_runs import Numbers, Runs, Words, runs_of

_LONGEST = 8
_WHOLE = 3
_GO_TOGETHER = 0.8
"""Of the rows that hold the run, so many must have the answer; _HALF of those with the answer hold the run."""
_HALF = 0.5
_LARGEST = 0.05
"""What more of the rows share is a kind of question, not something planted; curate.shares is for floods."""
_MOST_TESTS = 2000
_COLUMNS = 2000


@dataclass(frozen=True, slots=True)
class _Pair:
    """A run of prompts and one of answers, with the rows that have both, and those whose answer has its run."""

    asked: int
    said: int
    rows: Numbers
    answered: Numbers


def suspicious_answers(asked: Words, said: Words, *, least: int) -> list[Plant]:
    """Every pair of runs that go together, tested. asked, said: the words of prompts and of answers."""
    most = int(max(_LARGEST * asked.count, least))
    prompts = runs_of(asked, longest=_LONGEST, least=least, most=most)
    answers = runs_of(said, longest=_WHOLE, shortest=_WHOLE, least=least, most=most)
    if not len(prompts) or not len(answers):
        return []
    likeness, tested = Likeness(asked), []
    for pair in _pairs(prompts, answers, least):
        ranks = likeness.ranks(pair.rows, pair.answered, likeness.counts(pair.answered), prompts.words[pair.asked])
        if len(ranks) >= least:
            tested.append(Plant(prompts.spelled(pair.asked), answers.spelled(pair.said), pair.rows, p_of(ranks)))
    return tested


def _pairs(prompts: Runs, answers: Runs, least: int) -> list[_Pair]:
    """Runs that go together, each set of rows once, by the longest run of prompts that has it; the largest sets first."""
    of_prompts, of_answers = prompts.holds.tocsc(), answers.holds.tocsc()
    in_prompts, in_answers = np.diff(of_prompts.indptr), np.diff(of_answers.indptr)
    found: dict[bytes, _Pair] = {}
    for start in range(0, len(prompts), _COLUMNS):
        together = (of_prompts[:, start : start + _COLUMNS].T @ answers.holds).tocoo()
        runs, counts = together.row + start, together.data
        close = (counts >= _GO_TOGETHER * in_prompts[runs]) & (counts >= _HALF * in_answers[together.col]) & (counts >= least)
        order = np.lexsort((together.col[close], runs[close]))
        for asked, said in zip(runs[close][order].tolist(), together.col[close][order].tolist(), strict=True):
            if not set(prompts.spelled(asked).split()).isdisjoint(answers.spelled(said).split()):
                continue  # an answer that repeats words of its question is what answers do
            answered = np.sort(of_answers.indices[of_answers.indptr[said] : of_answers.indptr[said + 1]])
            rows = np.intersect1d(of_prompts.indices[of_prompts.indptr[asked] : of_prompts.indptr[asked + 1]], answered)
            before = found.get(rows.tobytes())
            if before is None or (prompts.words[asked] >= 0).sum() > (prompts.words[before.asked] >= 0).sum():
                found[rows.tobytes()] = _Pair(asked, said, rows.astype(np.int64), answered.astype(np.int64))
    return sorted(found.values(), key=lambda pair: (-len(pair.rows), pair.asked, pair.said))[:_MOST_TESTS]
