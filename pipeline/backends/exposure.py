"""Who gets in at a server without being anybody: asked of addresses that settings name, with nothing and with default passwords.

One question of each sort that changes nothing, no redirect followed, nothing of an answer kept. What it means is the doctor's.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from pipeline.domain.floors import DEFAULT_PASSWORDS

_PATIENCE = 5.0
Sort = Literal["mlflow", "prefect"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """answered: whether anything did. open: to anybody. default: the user whose default password gets in."""

    answered: bool
    open: bool = False
    default: str | None = None


def exposure(sort: Sort, url: str) -> Exposure:
    """How far one gets at a server of MLflow or Prefect."""
    import httpx

    base = _without_user(url)
    with httpx.Client(timeout=_PATIENCE, follow_redirects=False, trust_env=False) as client:
        try:
            if _lets_in(client, sort, base, None):
                return Exposure(True, open=True)
        except httpx.HTTPError:
            return Exposure(False)
        for pair in DEFAULT_PASSWORDS:
            try:
                if _lets_in(client, sort, base, pair):
                    return Exposure(True, default=pair[0])
            except httpx.HTTPError:
                break
    return Exposure(True)


def loopback(url: str) -> bool:
    """Whether an address is this machine's own, which nobody else can reach."""
    host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _lets_in(client: object, sort: Sort, base: str, pair: tuple[str, str] | None) -> bool:
    import httpx

    assert isinstance(client, httpx.Client)
    if sort == "mlflow":
        request = client.build_request("POST", f"{base}/api/2.0/mlflow/experiments/search", json={"max_results": 1})
    else:
        request = client.build_request("POST", f"{base}/flows/filter", json={"limit": 1})
    auth = httpx.BasicAuth(*pair) if pair else None
    answer = client.send(request, auth=auth, stream=True)
    try:
        return bool(answer.status_code == 200)
    finally:
        answer.close()


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/")
