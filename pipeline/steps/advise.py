"""Advise: before any training, is this dataset likely to repay it? Four questions, each answered with its evidence.

Cheap stand-ins are asked, never the model itself: what they show is a lower bound on what tuning may reach, and is called so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.curation.sampling import draw_rows
from pipeline.domain.advice import Advice, Answer, Opinion
from pipeline.domain.data import LEARNED_KINDS, Snapshot, Task
from pipeline.domain.planning import Plan
from pipeline.errors import Misuse
from pipeline.evaluation.metrics import token_f1
from pipeline.exploring.evidence import CLOSE, Likeness, Neighbours, disagreement, lift, word_origins
from pipeline.exploring.learning_curve import Curve, classifier, neighbour, probe
from pipeline.exploring.topics import Vectors
from pipeline.pages import Block, Lines, Table, Text, page
from pipeline.params import AdviseParams
from pipeline.ports import Embedder, Progress, silent

_FEW, _WORTH = 50, 0.02
"""Fewer rows cannot be probed; an expected gain below this share of errors is not worth twice the data."""


def advise(
    snapshot: Snapshot,
    params: AdviseParams,
    *,
    folder: Path,
    out: Path,
    embedder: Embedder,
    cost: Callable[[], Plan],
    progress: Progress = silent,
) -> Advice:
    """Probe the snapshot in `folder`; write advice.json and advise.html below `out`. cost: what tuning on it would take.

    Only rows with an answer or a label are probed. Raises Misuse when there are fewer than 50 of them.
    """
    rows = [row for row in draw_rows(folder, snapshot, params.rows) if row.kind in LEARNED_KINDS[snapshot.task]]
    if len(rows) < _FEW:
        raise Misuse(
            f"{len(rows)} rows have answers or labels, too few to probe anything",
            where=str(folder),
            fix=f"bring at least {_FEW}; a few hundred tell more",
        )
    classify = snapshot.task is Task.CLASSIFY
    likeness = _equal if classify else token_f1
    prompts, answers = [row.text for row in rows], [row.output for row in rows]
    vectors = embedder.embed(prompts, progress=progress)
    progress("probing", 0, 0)
    found = Neighbours.find(vectors)
    curve = _curve(vectors, answers, likeness, params, classify=classify)
    advice = Advice(
        snapshot=snapshot.digest,
        rows=snapshot.rows,
        probed=len(rows),
        answers=(
            _enough(curve, classify=classify),
            _consistent(found, answers, likeness),
            _solvable(found, curve, prompts, answers, likeness, classify=classify),
            _costly(cost()),
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    advice.write(out / "advice.json")
    (out / "advise.html").write_text(_page(snapshot, advice, curve), encoding="utf-8")
    return advice


def _curve(vectors: Vectors, answers: list[str], likeness: Likeness, params: AdviseParams, *, classify: bool) -> Curve:
    learner = classifier(vectors, answers) if classify else neighbour(vectors, answers, likeness)
    return probe(len(answers), learner, repeats=params.repeats)


def _enough(curve: Curve, *, classify: bool) -> Answer:
    question = "Is there enough data?"
    name = "a linear classifier on embeddings" if classify else "the answer of the most similar row (token F1)"
    evidence = {
        f"{size} rows": f"error {sum(errors) / len(errors):.3f} ({min(errors):.3f} to {max(errors):.3f} over {len(errors)} draws)"
        for size, errors in zip(curve.sizes, curve.errors, strict=True)
    }
    if curve.doubled is None:
        return Answer(
            question="Is there enough data?",
            opinion=Opinion.UNCLEAR,
            because="no curve fits the probe's errors",
            evidence=evidence,
        )
    low, middle, high = curve.doubled
    evidence["twice the data"] = f"error {middle:.3f} (95 % {low:.3f} to {high:.3f}), by a power law"
    gain, least = curve.last - middle, curve.last - high
    enough = gain < _WORTH
    opinion = Opinion.YES if enough else Opinion.NO if least >= _WORTH else Opinion.UNCLEAR
    saved = f"{100 * gain:.1f} points of that away (at least {100 * least:.1f})"
    said = f"{name} errs on {curve.last:.1%}; twice the data would take {saved}"
    return Answer(question=question, opinion=opinion, because=said, evidence=evidence)


def _consistent(found: Neighbours, answers: Sequence[str], likeness: Likeness) -> Answer:
    twins, unlike = disagreement(found, answers, likeness)
    question = "Is it consistent?"
    evidence = {"near twins": f"{twins} of {len(answers)} rows (cosine at least {CLOSE})", "unlike answers": f"{unlike:.1%}"}
    if twins < 20:
        said = "hardly any two prompts are alike, so answers cannot be held against each other"
        return Answer(question=question, opinion=Opinion.UNCLEAR, because=said, evidence=evidence)
    opinion = Opinion.YES if unlike < 0.1 else Opinion.NO if unlike > 0.3 else Opinion.UNCLEAR
    said = f"rows that ask nearly the same are answered {unlike:.1%} differently; at least half of that no model can learn"
    return Answer(question=question, opinion=opinion, because=said, evidence=evidence)


def _solvable(
    found: Neighbours,
    curve: Curve,
    prompts: Sequence[str],
    answers: Sequence[str],
    likeness: Likeness,
    *,
    classify: bool,
) -> Answer:
    question = "Can tuning solve it?"
    gain, low, high = lift(found, answers, likeness)
    common = Counter(answers).most_common(1)[0][1] / len(answers)
    evidence = {
        "above chance": f"{gain:+.3f} (95 % {low:+.3f} to {high:+.3f}) more like a neighbour's answer than a random one's",
        "most frequent answer": f"{common:.1%}",
        "cheap learner": f"{1 - curve.last:.1%} right",
    }
    if not classify:
        copied, near, nowhere = word_origins(prompts, answers, found)
        evidence["words of answers"] = (
            f"{copied:.0%} in the prompt, {near:.0%} in a similar row's answer, {nowhere:.0%} in neither"
        )
    if low <= 0:
        said = "similar prompts do not have similar answers: nothing here shows that the prompt tells the answer"
        return Answer(question=question, opinion=Opinion.NO, because=said, evidence=evidence)
    if not classify and nowhere > 0.5:
        said = f"{nowhere:.0%} of the answers' words stand in neither prompt nor similar rows: facts are for retrieval"
        return Answer(question=question, opinion=Opinion.UNCLEAR, because=said, evidence=evidence)
    said = "similar prompts have similar answers, so there is something to learn; measure against the cheap learner"
    return Answer(question=question, opinion=Opinion.YES, because=said, evidence=evidence)


def _costly(plan: Plan) -> Answer:
    seconds, asked = plan.seconds, [stage.as_asked for stage in plan.stages if stage.as_asked is not None]
    peak = max((one.memory.value for one in asked), default=0.0)
    hours = f"{seconds.value / 3600:.2g} hours on this machine ({seconds.low / 3600:.2g} to {seconds.high / 3600:.2g})"
    said = f"about {hours}, {peak / 2**30:.1f} GiB; tuneline plan says more"
    evidence = {
        "base": f"{plan.weights / 1e6:.1f} million weights",
        "machine": f"{plan.room / 2**30:.1f} GiB free ({plan.bound})",
    }
    for stage in plan.stages:
        evidence[stage.name] = f"{stage.items:,} rows of {stage.tokens:.0f} tokens, {stage.steps:,} steps, {stage.asked}"
    opinion = Opinion.YES if plan.fits and seconds.value < 24 * 3600 else Opinion.NO
    return Answer(question="Is it affordable here?", opinion=opinion, because=said, evidence=evidence)


def _equal(a: str, b: str) -> float:
    return float(a == b)


def _page(snapshot: Snapshot, advice: Advice, curve: Curve) -> str:
    tones = {Opinion.YES: "good", Opinion.NO: "bad", Opinion.UNCLEAR: "warn"}
    points = [(float(n), sum(e) / len(e)) for n, e in zip(curve.sizes, curve.errors, strict=True)]
    series = {"cheap learner": points}
    if curve.doubled:
        series["twice the data, by a power law"] = [points[-1], (2.0 * curve.sizes[-1], curve.doubled[1])]
    blocks: list[Block] = [
        Text(
            "What this is",
            f"Dataset {snapshot.dataset}, snapshot {snapshot.digest}.\n{advice.probed} of {advice.rows} rows probed.",
        ),
        Table(
            "Answers",
            ("question", "opinion", "because"),
            [(a.question, a.opinion.value, a.because) for a in advice.answers],
            tones={i: tones[a.opinion] for i, a in enumerate(advice.answers)},
        ),
        Lines("Error by size of the data", series, x_label="rows", y_label="error"),
        *(Table(f"Evidence: {a.question}", ("what", "seen"), list(a.evidence.items())) for a in advice.answers),
    ]
    verdict = " ".join(f"{a.question} {a.opinion.value.capitalize()}." for a in advice.answers)
    return page(f"Advice on {snapshot.dataset}", verdict, True if advice.fine else None, blocks)
