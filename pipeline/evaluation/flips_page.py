"""The rows that flipped, won and lost, with the answers side by side. For people; no verdict is made here."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain.measured import BASE, CANDIDATE, CHAMPION, EvaluationReport
from pipeline.evaluation.disagreements import flips
from pipeline.evaluation.rows import Predictions, SplitRows
from pipeline.evaluation.wording import counted, question, short, title_of
from pipeline.pages import Block, Pair, Pairs, Side

SHOWN_FLIPS = 10


def flip_blocks(evaluation: EvaluationReport, found: Predictions, rows: SplitRows | None) -> Iterator[Block]:
    """Against the champion, or where nobody holds production the bare base. rows: what was asked; None shows ids."""
    other = CHAMPION if CHAMPION in found.answers else BASE
    if other not in found.answers or CANDIDATE not in found.answers:
        return
    measured = evaluation.primary if (CANDIDATE, evaluation.primary) in found.scores else "accuracy"
    seen = flips(found, measured, other)
    for which, numbers, tones in (("lost", seen.lost, ("bad", "good")), ("won", seen.won, ("good", "bad"))):
        pairs = [
            Pair(
                question(rows.inputs[at]) if rows else found.ids[at],
                (
                    Side("expected", short(found.expected[at])),
                    Side(CANDIDATE, short(found.answers[CANDIDATE][at]), tones[0]),
                    Side(other, short(found.answers[other][at]), tones[1]),
                ),
            )
            for at in numbers[:SHOWN_FLIPS]
        ]
        shown = f", {len(pairs)} of them shown" if len(numbers) > len(pairs) else ""
        note = f"{counted(len(numbers))} by {title_of(measured).lower()}{shown}."
        yield Pairs(f"Rows that the candidate {which} against the {other}", pairs, note=note)
