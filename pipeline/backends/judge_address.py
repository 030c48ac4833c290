"""Where a judge is asked, made of what the settings say. No network here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import Misuse

_WHERE = "TUNELINE_JUDGE_URL"


@dataclass(frozen=True, slots=True)
class Address:
    """url: what is posted to. host: what messages and records call it. is_loopback: whether it is this machine."""

    url: str
    host: str
    is_loopback: bool

    @classmethod
    def of(cls, said: str) -> Address:
        """From a server's address (https://HOST), a base address (https://HOST/v1, as OpenAI's clients have it) or a whole one
        (…/chat/completions). Raises Misuse for one that is none, holds a password, or would send texts in clear over a net."""
        try:
            parts = urlsplit(said.strip())
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise Misuse("this is no address", where=_WHERE) from None
        if parts.scheme not in ("http", "https") or not host:
            raise Misuse("an address begins with https:// and names a host", where=_WHERE)
        if parts.username is not None or parts.password is not None:
            raise Misuse(
                "a password does not belong into an address, which ends up in logs", where=_WHERE, fix="TUNELINE_JUDGE_KEY"
            )
        local = _is_loopback(host)
        if parts.scheme == "http" and not local:
            fix = "use https://; plain http:// is for this machine alone"
            raise Misuse(f"the key and the texts would go to {host} in clear", where=_WHERE, fix=fix)
        path = parts.path.rstrip("/")
        if not path.endswith("/chat/completions"):
            path = f"{path or '/v1'}/chat/completions"
        return cls(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), host, local)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
