"""Jinja templates of a task file, filled in for its rows: in a process of its own, sandboxed, with bounds on time and memory.

Templates are data from elsewhere. The sandbox keeps them from code; that they end, and within memory, only a process that can be
ended makes sure of.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import BadInput

LONGEST = 16_384
"""Characters of a template."""
SECONDS, MEGABYTES = 30, 1024
MOST_MADE = 128 << 20
"""Characters of all that is made."""
_CHILD = Path(__file__).with_name("templates_child.py")


def filled(templates: Mapping[str, str], rows: Sequence[Mapping[str, Any]], where: str) -> dict[str, list[str]]:
    """Each template, by its key, filled in for every row. Raises BadInput for one that is too long, wrong, or does not end."""
    for key, template in templates.items():
        if len(template) > LONGEST:
            raise BadInput(f"the template is longer than {LONGEST} characters", where=f"{where} {key}")
    if not templates:
        return {}
    asked = json.dumps(
        {"templates": dict(templates), "rows": list(rows), "most": MOST_MADE, "bytes": MEGABYTES << 20, "seconds": SECONDS}
    )
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_CHILD)],
            input=asked,
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS + 5,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BadInput(f"the templates are not done after {SECONDS} s", where=where, fix="take the loops out of them") from None
    try:
        said = json.loads(done.stdout) if done.returncode == 0 else {}
    except ValueError:
        said = {}
    if "problem" in said:
        raise BadInput(
            said["problem"], where=f"{where} {said['key']}", fix="only plain Jinja over the row's own fields is filled in"
        )
    if "made" not in said:
        fix = "take loops and long repetitions out of them"
        raise BadInput(f"the templates need more than {SECONDS} s or {MEGABYTES} MiB", where=where, fix=fix)
    made: dict[str, list[str]] = said["made"]
    return made
