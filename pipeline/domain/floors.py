"""Versions below which a dependency has a hole that matters here, and why. A table of facts; comparing is the doctor's work."""

from __future__ import annotations

FLOORS: tuple[tuple[str, str, str], ...] = (
    ("transformers", "5.3", "CVE-2026-4372: a model's config runs code from the hub although trust_remote_code is off"),
    ("torch", "2.10", "CVE-2026-24747 and CVE-2025-32434: loading weights runs code, weights_only or not"),
    ("mlflow", "3.11", "CVE-2026-4137 world-writable temporary folders, CVE-2026-2614 reading any file"),
    ("prefect", "3.6.22", "CVE-2026-3514 paths that end in health need no password, CVE-2026-7723 neither do events"),
    ("ray", "2.54", "CVE-2026-27482; and CVE-2023-48022, which only a token closes"),
    ("vllm", "0.19", "CVE-2026-34756: one request asks for any number of answers"),
)

UNFIXED: tuple[tuple[str, str], ...] = (
    (
        "diskcache",
        "CVE-2025-69872: whoever writes to its folder runs code; ours lies in the state folder, for its owner alone",
    ),
)
"""Holes that no version closes: what keeps them shut is looked at instead."""

DEFAULT_PASSWORDS: tuple[tuple[str, str], ...] = (
    ("admin", "password"),
    ("admin", "password1234"),
    ("admin", "admin"),
    ("admin", "pass"),
    ("mlflow", "mlflow"),
    ("prefect", "prefect"),
    ("postgres", "postgres"),
    ("minioadmin", "minioadmin"),
    ("any", "any"),
)
"""What manuals and images come with. Tried only against addresses that settings name, and looked for in those settings."""
