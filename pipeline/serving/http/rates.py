"""How often each key may ask: buckets that fill evenly over a minute, one of requests and one of tokens. Clock given, no HTTP.

Buckets are made for keys that exist, so there are no more of them than keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.serving.http.problems import too_many


class Bucket:
    """Holds up to a minute's worth, and fills as time goes."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.size = per_minute
        self._left = float(per_minute)
        self._at = now

    def left(self, now: float) -> float:
        self._left = min(self.size, self._left + (now - self._at) * self.size / 60)
        self._at = now
        return self._left

    def take(self, amount: float, now: float) -> float:
        """0 when it was taken, else in how many seconds it could be. More than all of it counts as all of it."""
        amount = min(amount, self.size)
        missing = amount - self.left(now)
        if missing > 1e-9:
            return missing * 60 / self.size
        self._left -= amount
        return 0.0

    def give(self, amount: float, now: float) -> None:
        """Put back what was taken and not used; less than nothing takes it after all."""
        self._left = min(self.size, self.left(now) + amount)


@dataclass(slots=True)
class Taken:
    """Tokens that a request has reserved."""

    bucket: Bucket
    amount: float


class Rates:
    """The buckets of all keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def request(self, key: str, per_minute: int) -> dict[str, str]:
        """Count one request; what the answer's headers say of it. Raises Problem (429)."""
        bucket = self._bucket(key, "requests", per_minute)
        if wait := bucket.take(1, self._clock()):
            raise too_many(f"more than {per_minute} requests a minute", wait, kind="requests")
        return _headers("requests", bucket, self._clock())

    def tokens(self, key: str, per_minute: int, amount: int) -> tuple[Taken, dict[str, str]]:
        """Reserve what a request may use at most. Raises Problem (429)."""
        bucket = self._bucket(key, "tokens", per_minute)
        if wait := bucket.take(amount, self._clock()):
            raise too_many(f"more than {per_minute} tokens a minute", wait, kind="tokens")
        return Taken(bucket, min(amount, bucket.size)), _headers("tokens", bucket, self._clock())

    def settle(self, taken: Taken, used: int) -> None:
        """Give back what a request did not use."""
        taken.bucket.give(taken.amount - used, self._clock())

    def _bucket(self, key: str, kind: str, per_minute: int) -> Bucket:
        bucket = self._buckets.get((key, kind))
        if bucket is None or bucket.size != per_minute:
            bucket = self._buckets[key, kind] = Bucket(per_minute, self._clock())
        return bucket


def _headers(kind: str, bucket: Bucket, now: float) -> dict[str, str]:
    left = int(bucket.left(now))
    return {f"x-ratelimit-limit-{kind}": str(bucket.size), f"x-ratelimit-remaining-{kind}": str(max(left, 0))}
