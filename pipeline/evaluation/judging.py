"""Which of two subjects a judge likes better, row by row. Texts in, numbers out; who the judge is stands behind ports.Judge.

A judge leans towards the answer that it reads first, or second (Zheng et al. 2023, "Judging LLM-as-a-Judge", arXiv:2306.05685,
section 3.4), so each pair is shown in both orders, and what it does not say twice is a tie. A judge can also lean towards longer
answers, and towards its own: no order mends that.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.data import ExampleKind
from pipeline.errors import Broken
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.ports import Judge, Progress, Question, silent

JUDGED = frozenset({ExampleKind.ANSWER, ExampleKind.CALL})
"""The kinds of row whose answers can be compared."""


def net_wins(
    judge: Judge, inputs: Sequence[str], candidate: Said, other: Said, *, progress: Progress = silent
) -> list[float | None]:
    """For each row 1 where the candidate won, -1 where the other did, 0 for a tie: the judge said so, or its verdicts in the two
    orders disagree, or the answers are the same up to white space (which nobody is asked). None: one verdict is missing."""
    if not len(inputs) == len(candidate) == len(other):
        raise Broken(f"{len(candidate)} and {len(other)} answers were given to {len(inputs)} rows")
    pairs = list(zip(inputs, candidate.texts, other.texts, strict=True))
    unlike = [at for at, (_, ours, theirs) in enumerate(pairs) if ours.split() != theirs.split()]
    asked = [Question(*pairs[at]) for at in unlike]
    asked += [Question(question.input, question.second, question.first) for question in asked]
    said = judge.prefer(asked, progress=progress) if asked else []
    if len(said) != len(asked):
        raise Broken(f"{judge.name} gave {len(said)} verdicts on {len(asked)} questions")
    found: list[float | None] = [0.0] * len(pairs)
    for place, at in enumerate(unlike):
        found[at] = _verdict(said[place], said[place + len(unlike)])
    return found


def judged_places(rows: SplitRows, most: int) -> list[int]:
    """The rows that are shown to a judge: at most `most` of the kinds that are answered, the first by their ids, which are hashes
    and so a fair draw that is the same for every subject and every run."""
    places = sorted(rows.places(JUDGED), key=lambda at: rows.ids[at])
    return sorted(places[:most])


def net_wins_of_rows(
    judge: Judge, rows: SplitRows, candidate: Said, other: Said, *, most: int, progress: Progress = silent
) -> list[float | None]:
    """`net_wins` of the rows drawn by `judged_places`, a number for every row of `rows`: None for those that were not drawn."""
    places = judged_places(rows, most)
    inputs = [rows.inputs[at] for at in places]
    found: list[float | None] = [None] * len(rows)
    won = net_wins(judge, inputs, candidate.only(places), other.only(places), progress=progress)
    for at, verdict in zip(places, won, strict=True):
        found[at] = verdict
    return found


def _verdict(forth: float | None, back: float | None) -> float | None:
    if forth is None or back is None:
        return None
    if forth == 1 and back == 0:
        return 1.0
    return -1.0 if forth == 0 and back == 1 else 0.0
