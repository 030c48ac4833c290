"""What is installed here, and on which Python: what a bill of materials lists and a statement names by digest."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from functools import cache

from pipeline.domain.evidence import Installed, Surroundings

_HEADER = re.compile(r"^(Name|Version|License-Expression): *(.*?)\r?$", re.MULTILINE)


def surroundings(committed: Mapping[str, str]) -> Surroundings:
    """committed: files of the run's commit by SHA-256."""
    return Surroundings(
        committed=dict(committed),
        installed=installed(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
    )


@cache
def installed() -> tuple[Installed, ...]:
    """Every distribution that Python finds, once, by name."""
    found: dict[str, Installed] = {}
    for one in importlib.metadata.distributions():
        # Read as text: the library's own parser of these takes seconds for hundreds of them.
        head = (one.read_text("METADATA") or one.read_text("PKG-INFO") or "").partition("\n\n")[0]
        said = dict(_HEADER.findall(head))
        if "Name" in said:
            key = re.sub(r"[-_.]+", "-", said["Name"]).lower()
            # The first one found is the one that is imported.
            one_of = Installed(name=said["Name"], version=said.get("Version", "0"), license=said.get("License-Expression"))
            found.setdefault(key, one_of)
    return tuple(found[key] for key in sorted(found))
