"""Results as lines for people, one function a kind of result. Nothing is printed here, and nothing is decided."""

from __future__ import annotations

from typing import Any

from pipeline.terminal import mapping, table


def outcome_lines(outcome: Any) -> list[str]:
    title = f"{outcome.run}: {outcome.ending}" + (f" as version {outcome.version}" if outcome.version else "")
    if outcome.promoted_to:
        title += f", promoted to {outcome.promoted_to} by policy"
    rows = [title, *(f"  {fact}" for fact in outcome.facts)]
    rows += [f"  no: {reason}" for reason in outcome.reasons if reason not in outcome.facts]
    return rows + [f"  {name}: {target}" for name, target in outcome.links.items()]


def release_lines(record: Any) -> list[str]:
    verb = "now held by" if record.changed else "already held by"
    before = f" (before: version {record.previous})" if record.previous and record.changed else ""
    return [f"{record.model} {record.stage}: {verb} version {record.version}{before}"]


def event_lines(event: Any) -> list[str]:
    stage = f" for {event.stage}" if event.stage else ""
    return [f"event {event.sequence}: {event.actor} {event.event} version {event.version}{stage}"]


def revocation_lines(found: Any) -> list[str]:
    title = f"{found.model} version {found.version}: {'revoked' if found.changed else 'revoked already'}"
    return [title, *(f"  {stage}: now held by {holder or 'nobody'}" for stage, holder in found.stages.items())]


def releases_lines(rows: Any) -> list[str]:
    return table(
        [
            {
                "version": row.version,
                "holds": ", ".join(row.stages) or "-",
                "registered": f"{row.registered_at:%Y-%m-%d %H:%M}",
                "by": row.registered_by,
                "marks": ", ".join(name for name in ("dirty", "revoked", "missing") if getattr(row, name)) or "-",
                "scores": row.metrics,
            }
            for row in rows
        ]
    )


def history_lines(rows: Any) -> list[str]:
    return [f"{row.event.sequence:4}  {row.event.at:%Y-%m-%d %H:%M:%S}  {row.sentence}" for row in rows] or ["nothing yet"]


def mapping_lines(found: dict[str, Any]) -> list[str]:
    return mapping(found)


def lineage_lines(lineage: Any) -> list[str]:
    held = f", holds {', '.join(lineage.stages)}" if lineage.stages else ""
    rows = [f"{lineage.model} version {lineage.version}{held}"]
    rows += [f"  {e.at:%Y-%m-%d %H:%M:%S} {e.event} {e.stage or ''} by {e.actor}: {e.reason}" for e in lineage.events]
    for node in lineage.nodes:
        rows.append(f"{'  ' * (node.depth + 1)}{node.kind} {node.digest[:12]}")
        rows += [f"{'  ' * (node.depth + 3)}{line}" for line in mapping(node.facts)]
    return rows


def audit_lines(report: Any) -> list[str]:
    rows = [f"{'ok    ' if c.ok else 'BROKEN'} {c.name}: {c.detail}" for c in report.checks]
    verdict = "verified" if report.ok else "BROKEN"
    return [*rows, f"{report.model} version {report.version}: {verdict}"]


def exported_lines(done: Any) -> list[str]:
    rows = [f"{done.model} version {done.version}: {done.files} files in {done.to}", f"  SHA-256 {done.sha256}"]
    rows += [f"  key {digest}  {path}" for path, digest in done.keys.items()]
    return [*rows, "  tell whoever verifies it these digests another way; the README.md inside says how"]


def drawn_lines(done: Any) -> list[str]:
    rows = [f"{done.model} version {done.version}: {done.nodes} records and sources drawn in {done.picture}"]
    return rows + ([f"  {done.lines} OpenLineage events in {done.events}"] if done.events else [])


def rebuilt_lines(found: Any) -> list[str]:
    rows = [f"{found.model} version {found.version}, trained again from {found.commit[:12]}"]
    rows += [f"  not as it was: {line}" for line in found.differs]
    rows += [f"  {path}: other bytes" for path in found.files]
    for m in found.metrics:
        where = "within" if m.within else "OUTSIDE"
        rows.append(f"  {m.metric}: {m.rebuilt:.4g}, recorded {m.recorded:.4g}, {where} [{m.low:.4g}, {m.high:.4g}]")
    if found.same:
        return [*rows, f"  same bytes: adapter {found.adapter}"]
    if found.comparable:
        return [*rows, f"  DIFFERENT BYTES on the same class of machine with the same libraries: {found.adapter}"]
    return [
        *rows,
        "  bytes need not repeat here, so metrics were compared: " + ("as recorded" if found.ok else "NOT as recorded"),
    ]


def at_lines(found: Any) -> list[str]:
    if found.version is None or found.event is None:
        return [f"{found.model} {found.stage} at {found.at}: nobody"]
    event, until = found.event, found.until
    rows = [f"{found.model} {found.stage} at {found.at}: version {found.version}"]
    rows.append(
        f"  since {event.at:%Y-%m-%d %H:%M:%S %Z}: {event.event} by {event.actor}, {event.reason!r} (event {event.sequence})"
    )
    if until is not None:
        rows.append(f"  until {until.at:%Y-%m-%d %H:%M:%S %Z}: {until.event} by {until.actor}, {until.reason!r}")
    return rows


def standing_lines(found: Any) -> list[str]:
    """One screen: stages, what runs, who waits, the last runs, what is wrong."""
    rows = [f"{found.model}, {_clock(found.at)}", ""]
    wide = max((len(stage) for stage in found.stages), default=0)
    for stage, held in found.stages.items():
        if held is None:
            rows.append(f"{stage.ljust(wide)}  nobody")
            continue
        rows.append(f"{stage.ljust(wide)}  version {held.version} since {_clock(held.since)} ({_ago(held.since, found.at)})")
        rows.append(f"{' ' * wide}  {held.how} by {held.by}: {held.why} (event {held.event})")
    now = found.running
    rows += ["", f"running: {now.deployment}, begun {_clock(now.began)}" if now else "running: nothing"]
    for one in found.waiting:
        wait = one.waiting
        rows.append(
            f"{'refused' if wait.refused else 'waiting'}: version {wait.version} for {wait.stage} since {_clock(wait.since)}"
        )
        rows += [f"  missing: {said}" for said in wait.missing] or ["  nothing is missing: it can be promoted"]
        rows += [f"  answer on {one.page}"] if one.page else []
    rows.append("" if not found.runs else "\nlast runs:")
    for tick in found.runs:
        made = f", version {tick.version}" if tick.version else ""
        why = f": {tick.why[0]}" if tick.why else ""
        rows.append(f"  {_clock(tick.began)}  {tick.ending}{made}{why} ({tick.deployment})")
    rows += [f"UNHEALTHY: {said}" for said in found.unhealthy] or ([] if found.unknown else ["healthy"])
    rows += [f"not known: {said}" for said in found.unknown]
    return rows + ([f"prefect: {found.prefect}"] if found.prefect else [])


def _clock(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _ago(then: Any, now: Any) -> str:
    """Roughly how long ago, for people."""
    seconds = max((now - then).total_seconds(), 0)
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return "just now" if seconds < 60 else f"{seconds:.0f} seconds"
