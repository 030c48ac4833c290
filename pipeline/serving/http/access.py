"""Who asks, and what they may: keys, scopes and rates before anything of a request is read.

Without keys a loopback address answers questions of anybody on the machine, but moves no release. A page in a browser is
somebody else: it is told by the Host it names, which must be a loopback name then.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import HTTPConnection

from pipeline.params.serve import RateParams
from pipeline.serving.http.keys import KeyFile, Scope
from pipeline.serving.http.problems import Problem
from pipeline.serving.http.rates import Rates, Taken

_LONGEST_TOKEN = 256
_MOVES: frozenset[Scope] = frozenset({"approve", "promote"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. An empty id is anybody, where no key is needed."""

    id: str
    name: str
    requests: int
    tokens: int


class Access:
    """Lets callers in. needs_keys: even where the key file is empty."""

    def __init__(self, keys: KeyFile, rates: RateParams, *, needs_keys: bool, rate_book: Rates | None = None) -> None:
        self._keys = keys
        self._rates = rates
        self._book = rate_book or Rates()
        self._needs_keys = needs_keys

    @property
    def open(self) -> bool:
        """Whether anybody may ask. A file whose keys are all revoked is not empty: revoking opens no door."""
        return not self._needs_keys and not self._keys.all()

    def caller(self, request: HTTPConnection, *scopes: Scope) -> Caller:
        """Who asks, having one of `scopes`. Raises Problem: 401 without a key that holds, 403 where it lacks the scope."""
        if self.open and not _MOVES.issuperset(scopes):
            if not is_loopback(_host(request.headers.get("host", ""))):
                raise Problem(403, "wrong_host", "without API keys only requests to a loopback name are answered")
            return Caller("", "anybody", self._rates.requests_per_minute, self._rates.tokens_per_minute)
        token = _token(request.headers.get("authorization", ""))
        key = self._keys.holder(token) if token else None
        if key is None:
            raise _unknown("this needs an API key" if not token else "there is no such API key")
        if why := key.why_not(datetime.now(UTC)):
            raise _unknown(f"this API key {why}")
        if not set(scopes) & set(key.scopes):
            raise Problem(403, "missing_scope", f"this API key lacks the scope {' or '.join(scopes)}", kind="permission_error")
        rates = self._rates
        requests = key.requests_per_minute or rates.requests_per_minute
        return Caller(key.id, key.name, requests, key.tokens_per_minute or rates.tokens_per_minute)

    def count_request(self, caller: Caller) -> dict[str, str]:
        """Count a request; headers that tell of the rate. Raises Problem (429)."""
        return self._book.request(caller.id, caller.requests)

    def reserve(self, caller: Caller, tokens: int) -> tuple[Taken, dict[str, str]]:
        """Reserve tokens; headers that tell of the rate. Raises Problem (429)."""
        return self._book.tokens(caller.id, caller.tokens, tokens)

    def settle(self, taken: Taken, used: int) -> None:
        self._book.settle(taken, used)


def is_loopback(host: str) -> bool:
    """Whether a host, as a person or a Host header names it, is this machine alone. No name is looked up."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(header: str) -> str:
    """The host of a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def _token(header: str) -> str:
    kind, _, token = header.partition(" ")
    token = token.strip()
    return token if kind.lower() == "bearer" and len(token) <= _LONGEST_TOKEN else ""


def _unknown(what: str) -> Problem:
    return Problem(401, "invalid_api_key", f"{what}; send Authorization: Bearer KEY", headers={"www-authenticate": "Bearer"})
