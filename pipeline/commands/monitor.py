"""tuneline monitor: what was asked and answered since the last look, against what is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show

if TYPE_CHECKING:
    from pipeline.monitoring import Watched


def monitor(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Look at the windows of logged requests that have become full. Exit code 1 while an alarm stands."""
    world, loaded = open_world(params)
    from pipeline.monitoring import watch
    from pipeline.terminal import reporter

    watched = watch(world, loaded, progress=reporter())
    show(_shown(watched) if json else watched, json, _lines)
    raise typer.Exit(1 if watched.alarms else 0)


def _shown(watched: Watched) -> dict[str, object]:
    return {
        "reports": [report.model_dump(mode="json") for report in watched.reports],
        "alarms": [alarm.model_dump(mode="json") for alarm in watched.alarms],
        "canaries": [answer.model_dump(mode="json") for answer in watched.canaries],
        "refused_lines": watched.refused,
        "page": str(watched.page),
    }


def _lines(watched: Watched) -> list[str]:
    lines = []
    for report in watched.reports:
        lines.append(f"{report.release}, {report.requests} requests up to {report.end:%Y-%m-%d %H:%M:%S}")
        lines += [f"  {m.what.value}: {m.detail}{' (fired)' if m.fired else ''}" for m in report.measures]
    if watched.canaries:
        failed = [f"{answer.name} ({answer.why})" for answer in watched.canaries if not answer.passed]
        lines.append(f"canary prompts: {len(watched.canaries) - len(failed)} of {len(watched.canaries)} hold")
        lines += [f"  {name}" for name in failed]
    if not watched.reports:
        lines.append("no window has become full since the last look")
    lines += [f"ALARM {alarm.release}, {alarm.what.value}: {alarm.detail}" for alarm in watched.alarms]
    return [*lines, f"page: {watched.page}"]
