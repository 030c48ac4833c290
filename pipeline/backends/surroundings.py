"""What is installed here, and on which Python: what a bill of materials lists and a statement names by digest."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping

from pipeline.domain.evidence import Installed, Surroundings


def surroundings(committed: Mapping[str, str]) -> Surroundings:
    """committed: files of the run's commit by SHA-256."""
    return Surroundings(
        committed=dict(committed),
        installed=installed(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
    )


def installed() -> tuple[Installed, ...]:
    """Every distribution that Python finds, once, by name."""
    found: dict[str, Installed] = {}
    for one in importlib.metadata.distributions():
        name = one.metadata["Name"]
        if name:
            key = re.sub(r"[-_.]+", "-", name).lower()
            license = one.metadata["License-Expression"] if "License-Expression" in one.metadata else None
            # The first one found is the one that is imported.
            found.setdefault(key, Installed(name=name, version=one.version or "0", license=license))
    return tuple(found[key] for key in sorted(found))
