"""Curate: rules across the rows of a validated snapshot: which repeat, contradict, flood or stand out, and which are left out.

Rows are named and never rewritten: the split step leaves out what dropped.parquet lists. What the rules are is curation/rules/'s
knowledge; here they are asked in order, and what their policies say is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.curation.keys import KEY, Keys, hex_keys
from pipeline.curation.rules.answer_shapes import ENOUGH, strays
from pipeline.curation.rules.balance import balance
from pipeline.curation.rules.columns import Columns
from pipeline.curation.rules.contradictions import contradictions
from pipeline.curation.rules.findings import Findings
from pipeline.curation.rules.given_away import given_away
from pipeline.curation.rules.label_errors import FEWEST, judge_labels, label_errors, suspected
from pipeline.curation.rules.left_out import LeftOut, left_out, read_left_out
from pipeline.curation.rules.named_rows import pick_rows, write_dropped
from pipeline.curation.rules.near_repeats import near_repeats
from pipeline.curation.rules.odd_answers import odd_answers
from pipeline.curation.rules.planted import planted
from pipeline.curation.rules.provenance import parts, surplus
from pipeline.curation.rules.repeats import repeats
from pipeline.curation.rules.report import balance_blocks, curation_page, rule_counts
from pipeline.curation.rules.reviews import COLUMNS, write_reviews
from pipeline.curation.rules.row_table import RowTable, read_rows
from pipeline.curation.rules.rulings import Rulings
from pipeline.curation.rules.token_lengths import TokenLengths
from pipeline.curation.shards import read_tables
from pipeline.domain.curated import Curation
from pipeline.domain.data import Snapshot, ValidationReport
from pipeline.errors import Misuse
from pipeline.pages import Block, Table
from pipeline.params import CurateParams
from pipeline.ports import Progress, silent

_BATCH = 8192


def curate(
    snapshot: Snapshot,
    validation: ValidationReport,
    params: CurateParams,
    *,
    folder: Path,
    out: Path,
    scratch: Path,
    tokenizer: Path | None = None,
    reviewed: Path | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Curation:
    """Ask the rules of `params` of the snapshot in `folder`; write curation.json, curation.html, dropped.parquet and lists for
    review below `out`; return the record. The same snapshot, params and reviewed list make the same bytes.

    scratch: where large computations put files that do not outlive the step. tokenizer: the base's tokenizer.json, needed for
    caps in tokens. reviewed: the list that curate.leave_out names, wherever it was put. workers: how many processes read rows;
    what is written does not depend on it.
    A failed rule is a failed check in the record. Raises Misuse when `validation` did not pass or is of another snapshot, or the
    tokenizer or the reviewed list is missing; BadInput when the list is none; Tampered when a shard is not what was recorded.
    """
    if validation.snapshot != snapshot.digest:
        raise Misuse("this validation report is of another snapshot", where=str(folder), fix="validate this snapshot first")
    if not validation.passed:
        failed = ", ".join(check.name for check in validation.failures) or "no checks were made"
        raise Misuse(f"the snapshot did not pass validation: {failed}", where=str(folder), fix="see validation.html")
    listed = _reviewed(params, reviewed)
    lengths = _token_lengths(params, tokenizer)
    _clear(out)

    def batches(*names: str) -> Iterator[Any]:
        return read_tables(folder, snapshot.shards, names, batch_rows=_BATCH)

    table = read_rows(snapshot, batches, lengths, workers=workers, progress=progress)
    rulings = Rulings(len(table.columns))
    origins = {source.name: source.origin for source in snapshot.sources}
    _ask_what_leaves_rows_out(rulings, table, params, listed, lengths)
    _ask_near(rulings, table, params, scratch, progress)
    _ask_planted(rulings, table, params, progress)
    _ask_shares(rulings, table.columns, params, origins)
    blocks = [*_ask_answers(rulings, table, params), *_ask_labels(rulings, table, params, progress)]

    names = pick_rows(batches("id", "source", "line"), rulings.named())
    curation = Curation(
        snapshot=snapshot.digest,
        validation=validation.digest,
        params={**params.model_dump(mode="json"), "leave_out_sha256": listed.sha256 if listed else None},
        rules=rule_counts(rulings, names),
        checks=tuple(ruling.check for ruling in rulings),
        dropped=write_dropped(out / "dropped.parquet", rulings, names),
        review=write_reviews(out, rulings, table.columns.label_names, lambda rows: pick_rows(batches(*COLUMNS), rows)),
    )
    most = {"origin": params.shares.origin, "feedback": params.shares.feedback, "caller": params.shares.caller}
    shares = parts(table.columns, rulings.kept, origins, **most)
    (out / "curation.html").write_text(curation_page(snapshot, curation, shares, blocks), encoding="utf-8")
    curation.write(out / "curation.json")
    progress("curated", snapshot.rows, snapshot.rows)
    return curation


def _clear(out: Path) -> None:
    # Files here may be hard links into the data store's cache: they are unlinked and never written to.
    out.mkdir(parents=True, exist_ok=True)
    for path in (*out.glob("curation.*"), *out.glob("dropped.parquet*"), *out.glob("review_*")):
        path.unlink()


def _reviewed(params: CurateParams, path: Path | None) -> LeftOut | None:
    if params.leave_out is None:
        return None
    if path is None or not path.is_file():
        raise Misuse(f"there is no file {params.leave_out!r}", where="curate.leave_out", fix="create it, or take the key away")
    return read_left_out(path)


def _token_lengths(params: CurateParams, tokenizer: Path | None) -> TokenLengths | None:
    if params.max_input_tokens is None and params.max_output_tokens is None:
        return None
    return TokenLengths(tokenizer, most_input=params.max_input_tokens, most_output=params.max_output_tokens)


def _ask_what_leaves_rows_out(
    rulings: Rulings, table: RowTable, params: CurateParams, listed: LeftOut | None, lengths: TokenLengths | None
) -> None:
    if listed is not None:
        ids: list[Keys] = [hex_keys(batch.column("id")) for batch in table.batches("id")]
        found, absent = left_out(np.concatenate([np.zeros(0, KEY), *ids]), rulings.kept, listed)
        rulings.add("leave_out", "drop", found, observed=f"{len(found)} rows; {absent} listed ids are of no row")
    if lengths is not None:
        rulings.add("token_lengths", "drop", lengths.finish().among(rulings.kept))
    if params.contradictions != "off":
        rulings.add("contradictions", params.contradictions, contradictions(table.columns, rulings.kept))
    if params.given_away != "off":
        rulings.add("given_away", params.given_away, given_away(table.columns, rulings.kept))
    if params.repeats != "off":
        rulings.add("repeats", params.repeats, repeats(table.columns, rulings.kept))


def _ask_near(rulings: Rulings, table: RowTable, params: CurateParams, scratch: Path, progress: Progress) -> None:
    if params.near_duplicates.policy == "off":
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="near-", dir=scratch) as place:
        repeated, contradicting = near_repeats(
            table.columns,
            rulings.kept,
            lambda: table.batches("kind", "input", "output"),
            threshold=params.near_duplicates.threshold,
            scratch=Path(place),
            progress=progress,
        )
    if table.columns.label_names and params.contradictions != "off":
        # Short texts that differ in the one word that matters are common, so this is never more than a hint.
        rulings.add("near_contradictions", "warn", contradicting)
    rulings.add("near_duplicates", params.near_duplicates.policy, repeated)


def _ask_planted(rulings: Rulings, table: RowTable, params: CurateParams, progress: Progress) -> None:
    asked = params.planted
    if asked.policy == "off":
        return
    progress("looking for planted words", 0, 0)
    found, observed = planted(
        table.columns,
        rulings.kept,
        lambda: table.batches("kind", "input", "output"),
        least=asked.least_rows,
        false_alarms=asked.false_alarms,
    )
    rulings.add("planted", asked.policy, found, observed=observed)


def _ask_shares(rulings: Rulings, columns: Columns, params: CurateParams, origins: Mapping[str, str]) -> None:
    """No part of the data beyond its share. Where leaving rows out cannot help, the check fails whatever the policy says."""
    shares = params.shares
    most = {"origin": shares.origin, "feedback": shares.feedback, "caller": shares.caller}
    beyond = [part for part in parts(columns, rulings.kept, origins, **most) if part.exceeds]
    found = surplus(columns, rulings.kept, origins, **most)
    observed = "; ".join(f"{part.name} holds {part.share:.1%} of the rows, more than {part.most:.1%}" for part in beyond)
    hopeless = bool(beyond) and len(found) == int(rulings.kept.sum())
    if hopeless:
        observed += "; nothing would be left if the surplus were left out"
    rulings.add(
        "shares",
        shares.policy,
        found,
        observed=observed or "no part is beyond its share",
        expected=(
            f"of all rows, an origin at most {shares.origin:.1%}, feedback at most {shares.feedback:.1%} "
            f"and one caller's at most {shares.caller:.1%}"
        ),
        passed=not beyond or shares.policy == "warn" or (shares.policy == "drop" and not hopeless),
    )


def _ask_answers(rulings: Rulings, table: RowTable, params: CurateParams) -> list[Block]:
    """The shape and the style of free-text answers; nothing is asked where there are none."""
    answers = int(rulings.kept[table.shapes.rows].sum())
    if not answers:
        return []
    few = f"insufficient: {answers} answers, fewer than {ENOUGH}" if answers < ENOUGH else None
    if params.consistency != "off":
        rulings.add("consistency", params.consistency, strays(table.shapes, rulings.kept), observed=few)
    if params.odd_answers != "off":
        odd = odd_answers(table.batches("kind", "output"), table.style, rulings.kept)
        rulings.add("odd_answers", params.odd_answers, odd, observed=few)
    return [Table("Shapes of the answers", ("shape", "answers", "share"), table.shapes.table(rulings.kept))]


def _ask_labels(rulings: Rulings, table: RowTable, params: CurateParams, progress: Progress) -> list[Block]:
    """Labels that models doubt, and how evenly rows are spread."""
    columns = table.columns
    if params.label_errors != "off" and columns.label_names:
        doubts = judge_labels(columns, rulings.kept, lambda: table.batches("input"), progress=progress)
        found = label_errors(doubts, columns.label_names) if doubts else Findings.none()
        if doubts:
            observed = f"{len(found)} of {len(doubts.rows)} labels doubted, {int(suspected(doubts).sum())} of them suspected"
        else:
            observed = f"insufficient: fewer than 2 labels have {FEWEST} distinct texts, so none was judged"
        rulings.add("label_errors", params.label_errors, found, observed=observed)
    spread = balance(columns, rulings.kept)
    for one in spread:
        if one.by == "label":
            most = params.max_label_ratio
            rulings.add(
                "balance",
                "warn" if most is None else "block",
                Findings.none(),
                observed=one.told(),
                expected="told, never refused" if most is None else f"a ratio of at most {most:g} (curate.max_label_ratio)",
                passed=most is None or one.ratio <= most,
            )
    return balance_blocks(spread)
