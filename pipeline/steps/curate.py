"""Curate: rules across the rows of a validated snapshot: which repeat, contradict, flood or stand out, and which are left out.

Rows are named and never rewritten: the split step leaves out what dropped.parquet lists. What the rules are is curation/rules/'s
knowledge; here they are asked in order, and what their policies say is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.curation.keys import Keys, hex_keys
from pipeline.curation.rules.columns import LOOKED_AT, Columns, Gathering
from pipeline.curation.rules.contradictions import contradictions
from pipeline.curation.rules.left_out import LeftOut, left_out, read_left_out
from pipeline.curation.rules.named_rows import pick_rows, write_dropped
from pipeline.curation.rules.provenance import parts, surplus
from pipeline.curation.rules.repeats import repeats
from pipeline.curation.rules.report import curation_page, rule_counts
from pipeline.curation.rules.rulings import Rulings
from pipeline.curation.rules.token_lengths import TokenLengths
from pipeline.curation.shards import read_tables
from pipeline.domain.data import Curation, Snapshot, ValidationReport
from pipeline.errors import Broken, Misuse
from pipeline.params import CurateParams
from pipeline.ports import Progress, silent

_BATCH = 16_384


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
    progress: Progress = silent,
) -> Curation:
    """Ask the rules of `params` of the snapshot in `folder`; write curation.json, curation.html, dropped.parquet and lists for
    review below `out`; return the record. The same snapshot, params and reviewed list make the same bytes.

    scratch: where large computations put files that do not outlive the step. tokenizer: the base's tokenizer.json, needed for
    caps in tokens. reviewed: the list that curate.leave_out names, wherever it was put.
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

    columns = _gather(batches, snapshot, lengths, progress)
    rulings = Rulings(len(columns))
    if listed is not None:
        _leave_out(rulings, listed, batches)
    if lengths is not None:
        rulings.add("token_lengths", "drop", lengths.finish().among(rulings.kept))
    if params.contradictions != "off":
        rulings.add("contradictions", params.contradictions, contradictions(columns, rulings.kept))
    if params.repeats != "off":
        rulings.add("repeats", params.repeats, repeats(columns, rulings.kept))
    origins = {source.name: source.origin for source in snapshot.sources}
    _judge_shares(rulings, columns, params, origins)

    names = pick_rows(batches("id", "source", "line"), rulings.named())
    curation = Curation(
        snapshot=snapshot.digest,
        validation=validation.digest,
        params={**params.model_dump(mode="json"), "leave_out_sha256": listed.sha256 if listed else None},
        rules=rule_counts(rulings, names),
        checks=tuple(ruling.check for ruling in rulings),
        dropped=write_dropped(out / "dropped.parquet", rulings, names),
    )
    shares = parts(columns, rulings.kept, origins, origin=params.shares.origin, feedback=params.shares.feedback)
    (out / "curation.html").write_text(curation_page(snapshot, curation, shares, []), encoding="utf-8")
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


def _gather(
    batches: Callable[..., Iterator[Any]], snapshot: Snapshot, lengths: TokenLengths | None, progress: Progress
) -> Columns:
    gathering, done = Gathering(), 0
    for batch in batches(*LOOKED_AT):
        gathering.add(batch)
        if lengths is not None:
            lengths.add(batch)
        done += batch.num_rows
        progress("reading rows", done, snapshot.rows)
    if done != snapshot.rows:
        raise Broken(f"the shards hold {done} rows, and the snapshot says {snapshot.rows}")
    return gathering.finish()


def _leave_out(rulings: Rulings, listed: LeftOut, batches: Callable[..., Iterator[Any]]) -> None:
    ids: list[Keys] = [hex_keys(batch.column("id")) for batch in batches("id")]
    found, absent = left_out(np.concatenate([np.zeros(0, "S16"), *ids]), rulings.kept, listed)
    rulings.add("leave_out", "drop", found, observed=f"{len(found)} rows; {absent} listed ids are of no row")


def _judge_shares(rulings: Rulings, columns: Columns, params: CurateParams, origins: Mapping[str, str]) -> None:
    """No part of the data beyond its share. Where leaving rows out cannot help, the check fails whatever the policy says."""
    shares = params.shares
    most = {"origin": shares.origin, "feedback": shares.feedback}
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
        expected=f"of all rows, an origin at most {shares.origin:.1%} and feedback at most {shares.feedback:.1%}",
        passed=not beyond or shares.policy == "warn" or (shares.policy == "drop" and not hopeless),
    )
