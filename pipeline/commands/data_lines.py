"""Snapshots, their differences and their drift as lines for people. Nothing is printed or decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.terminal import table

if TYPE_CHECKING:
    from pipeline.domain.drift import DriftReport, Shift
    from pipeline.domain.snapshots import CountChange, SnapshotDiff
    from pipeline.steps.snapshots import LogRow, QuarantinePage, Shown

_NAMES = 8
_CHARS = 160


def log_lines(rows: tuple[LogRow, ...]) -> list[str]:
    return table(
        [
            {
                "run": row.number,
                "kind": row.kind,
                "when": f"{row.at:%Y-%m-%d %H:%M}",
                "snapshot": row.snapshot[:12],
                "rows": f"{row.rows:,}",
                "added": "?" if row.added is None else f"{row.added:+,}",
                "fresh files": row.fresh,
                "quarantined": f"{row.quarantined:,}",
                "forgotten": row.forgotten,
                "verdict": row.verdict,
            }
            for row in rows
        ]
    )


def shown_lines(shown: Shown) -> list[str]:
    lines = [f"{shown.run} ({shown.kind}), {shown.at:%Y-%m-%d %H:%M}, snapshot {shown.digest}"]
    if shown.card is not None:
        # The front matter is for machines.
        return [*lines, "", *shown.card.split("\n---\n", 1)[-1].strip().splitlines()]
    snapshot = shown.snapshot
    lines.append(f"{snapshot.rows:,} rows, {snapshot.quarantined:,} quarantined, {len(snapshot.sources)} files; it has no card")
    return lines


def diff_lines(found: SnapshotDiff) -> list[str]:
    lines = [
        f"{found.before[:12]} → {found.after[:12]}: {found.rows_before:,} rows → {found.rows_after:,}",
        f"rows: {found.added:,} added, {found.removed:,} removed"
        + (f", {found.forgotten:,} forgotten" if found.forgotten else ""),
        f"shards: {found.shards_kept} the same, {found.shards_added} added, {found.shards_removed} removed",
    ]
    lines += [f"  + {_plain(place)}" for place in found.samples_added] + [
        f"  - {_plain(place)}" for place in found.samples_removed
    ]
    lines += [f"source added: {_plain(name)}" for name in found.sources_added[:_NAMES]] + _more(found.sources_added)
    lines += [f"source removed: {_plain(name)}" for name in found.sources_removed[:_NAMES]] + _more(found.sources_removed)
    for what, changes in (("kinds", found.kinds), ("labels", found.labels), ("languages", found.languages)):
        lines += _changes(what, changes)
    lines += _changes("quarantined", found.quarantine)
    lines += [f"{name} characters: {was:g} → {now:g}" for name, (was, now) in found.lengths.items()]
    lines += [f"params {key}: {was!r} → {now!r}" for key, (was, now) in found.params.items()]
    return lines if len(lines) > 3 or found.before != found.after else [f"{found.before[:12]}: the same snapshot"]


def quarantine_lines(page: QuarantinePage) -> list[str]:
    lines = []
    for row in page.rows:
        begin = row.raw[:_CHARS] if row.raw_encoding == "utf-8" else f"base64 {row.raw[:_CHARS]}"
        lines += [f"{_plain(row.source)}:{row.line}  {row.code}: {_plain(row.reason)}", f"    {begin!r}"]
    last = page.skipped + len(page.rows)
    shown = f"rows {page.skipped + 1} to {last} of {page.matching}" if page.rows else f"none of {page.matching} rows"
    more = f"; more: --skip {last}" if last < page.matching else ""
    return [*lines, f"{page.run}: {shown}{more}"]


def drift_lines(report: DriftReport) -> list[str]:
    from pipeline.evaluation.drift_page import verdict

    lines = [verdict(report)]
    sides = f"{report.fresh_rows:,} rows of {report.fresh}, {report.reference_rows:,} of {report.reference}"
    lines.append(f"{sides}; {report.fresh_compared:,} and {report.reference_compared:,} compared")
    if report.refused:
        lines.append(f"{report.refused:,} rows of traffic could not be read")
    if report.shifts:
        lines += table(
            [
                {
                    "aspect": shift.aspect,
                    "effect": f"{shift.effect:.3f}",
                    "adjusted p": f"{shift.adjusted:.4f}",
                    "drift": "yes" if shift.drifted else "no",
                    "before → now": _told(shift),
                }
                for shift in report.shifts
            ]
        )
    return lines


def _told(shift: Shift) -> str:
    if shift.reference is not None and shift.fresh is not None:
        return f"median {shift.reference:g} → {shift.fresh:g}"
    named = shift.names[:3] if shift.drifted else ()
    return ", ".join(f"{_plain(n.name)} {n.reference:.0%} → {n.fresh:.0%}" for n in named)


def _changes(what: str, changes: tuple[CountChange, ...]) -> list[str]:
    if not changes:
        return []
    named = ", ".join(f"{_plain(c.name)} {c.before:,} → {c.after:,}" for c in changes[:_NAMES])
    return [f"{what}: {named}{', …' if len(changes) > _NAMES else ''}"]


def _more(names: tuple[str, ...]) -> list[str]:
    return [f"  … and {len(names) - _NAMES} more (--json lists all)"] if len(names) > _NAMES else []


def _plain(text: str) -> str:
    """Names come from the data: what would steer a terminal is shown as its code."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
