"""The page that shows what the rules across rows found. Rulings and numbers in, blocks out; no file is written."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.curation.rules.balance import Balance
from pipeline.curation.rules.named_rows import NamedRows
from pipeline.curation.rules.provenance import Part
from pipeline.curation.rules.rulings import Ruling, Rulings
from pipeline.domain.curated import Curation, RuleCount
from pipeline.domain.data import Snapshot
from pipeline.pages import Block, Links, Table, Text, page

_SHOWN = 200


def rule_counts(rulings: Rulings, names: NamedRows) -> tuple[RuleCount, ...]:
    """What each rule found, with a few samples."""
    return tuple(
        RuleCount(
            rule=ruling.rule,
            policy=ruling.policy,
            found=len(ruling.found),
            dropped=len(ruling.dropped),
            samples=samples(ruling, names),
        )
        for ruling in rulings
    )


def samples(ruling: Ruling, names: NamedRows) -> tuple[str, ...]:
    """`source:line: reason`, and the line of the row that is repeated or contradicted."""
    shown = ruling.shown
    others = names.where(shown.others)
    return tuple(
        f"{where}: {shown.reason(at)}" + (f" ({others[at]})" if shown.others[at] >= 0 else "")
        for at, where in enumerate(names.where(shown.rows))
    )


def curation_page(snapshot: Snapshot, curation: Curation, shares: Sequence[Part], blocks: Sequence[Block]) -> str:
    """The whole page as HTML. blocks: what single rules have to show."""
    left = snapshot.rows - curation.dropped.rows
    if curation.passed:
        verdict = f"{left} of {snapshot.rows} rows go on; {curation.dropped.rows} were left out."
    else:
        verdict = f"The run ends here: {', '.join(check.name for check in curation.failures)}."
    found = Table(
        "Rules, in the order in which they were asked",
        ("rule", "policy", "found", "left out", "seen", "verdict"),
        [
            (count.rule, count.policy, count.found, count.dropped, check.observed, "passed" if check.passed else "failed")
            for count, check in zip(curation.rules, curation.checks, strict=True)
        ],
        note="Each rule sees what those before it left.",
        tones={
            at: "bad" if not check.passed else "warn" if count.found else "good"
            for at, (count, check) in enumerate(zip(curation.rules, curation.checks, strict=True))
        },
    )
    whole = [
        Text("What this is", f"Dataset {snapshot.dataset}, task {snapshot.task}.\nSnapshot {snapshot.digest}."),
        found,
        *(Table(f"Found: {count.rule}", ("row",), [(s,) for s in count.samples]) for count in curation.rules if count.samples),
        *blocks,
        Table(
            "Where the rows come from",
            ("part", "rows", "share", "at most"),
            [(part.name, part.rows, part.share, part.most) for part in shares],
            tones={at: "bad" for at, part in enumerate(shares) if part.exceeds},
        ),
    ]
    if curation.review:
        whole.append(Links("Lists to look through", [(file.path, file.path) for file in curation.review]))
    return page(f"Curation of {snapshot.dataset}", verdict, curation.passed, whole)


def balance_blocks(spread: Sequence[Balance]) -> list[Block]:
    """How rows are spread over labels, sources and kinds, and what weights would even them out."""
    return [
        Table(
            f"Rows by {one.by}",
            (one.by, "rows", "suggested weight of a row"),
            [(name, rows, weight) for (name, rows), weight in zip(one.counts, one.weights(), strict=True)][:_SHOWN],
            note=f"{one.told()}. The weights make shares grow with the square root of the rows; nothing is weighed by them here.",
        )
        for one in spread
    ]
