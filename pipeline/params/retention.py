"""The section `retention`: what `tuneline gc` removes, and what it never does. docs/retention.md is the guide.

How long requests and feedback are kept is said where they are made, in `serve`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.params.section import Count, Section

Days = Annotated[float, Field(ge=0, le=36_500)]


class RetentionParams(Section):
    """Registered versions, with the runs, records and data behind them, stay for ever."""

    keep_runs: Count = 20
    """The newest so many runs stay, whatever came of them: refused, invalid, data alone."""
    keep_days: Days = 30.0
    """Runs, folders, checkpoints, caches and pages that are younger than this stay."""
    rollback_window: Count = 3
    """Of each stage, so many holders back, and what waits to be promoted: their data lies here, and not in the remote alone."""
    flow_days: Days = 30.0
    """Ended flow runs in Prefect that are older are removed."""
