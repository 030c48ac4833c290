"""What is asked of a served model and what comes back: plain values, so that the app and every engine share them. No tool enters.

An engine (serving/asked.py has the protocol) takes an Ask and gives Pieces, each of which names the release that made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.errors import Misuse, TryLater

Role = Literal["production", "canary", "shadow", "pinned"]
"""Why it answers: it holds the served stage; a share of requests is its; it answers unheard; it was asked for by name."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that is wanted. Messages, prompt (raw text to go on with) or text (to label): one of the three.

    id: unique; it decides, by its hash, who answers where shares are at play. release: the version that must answer, "7"; None
    lets the engine choose. seed: the same seed gives the same answer; None takes one from the id. logprobs: None for none, k for
    those of each token with the k likeliest beside it. schema: the answer is JSON that this JSON schema allows. json_object: the
    answer is a JSON object of any shape. tools: what the template is to offer.
    """

    id: str
    release: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    prompt: str | None = None
    text: str | None = None
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    schema: Mapping[str, Any] | None = None
    json_object: bool = False
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def drawn_by(self) -> int:
        """The seed that is used: the one that was asked for, or one that the id gives."""
        return self.seed if self.seed is not None else int.from_bytes(hashlib.sha256(self.id.encode()).digest()[:6])


@dataclass(frozen=True, slots=True)
class TokenChance:
    """A token of an answer and its log-probability before temperature and top_p. bytes: what it adds to the text; top: the
    likeliest at its place."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """Who answers: `digest` is the version's subject in the ledger, so a number that was used twice could not hide."""

    model: str
    version: str
    digest: str
    role: Role

    @property
    def name(self) -> str:
        """What a request pins it by."""
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some more of an answer: whole characters only. The last one has a `finish`, and may be empty but for it.

    finish: stop (an end token, a stop string, or JSON that is whole) or length. prompt_tokens and answer_tokens: so far.
    """

    text: str
    chances: tuple[TokenChance, ...]
    finish: Literal["stop", "length"] | None
    prompt_tokens: int
    answer_tokens: int
    release: Release


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels with their probabilities, likeliest first."""

    labels: tuple[tuple[str, float], ...]
    prompt_tokens: int
    release: Release


@dataclass(frozen=True, slots=True)
class Swap:
    """One change of who answers. seconds: of the swap itself; ready_seconds: from noticing the ledger's head to the swap."""

    role: Role
    version: str | None
    before: str | None
    at: float
    seconds: float
    ready_seconds: float


@dataclass(frozen=True, slots=True)
class Health:
    """How an engine stands. ready: a release answers what names none. waiting: asks in the queue; running: rows under way.

    alarms: what a person should know, a sentence each. counts: totals since the start, by name (answered, failed, refused,
    cancelled, tokens, swaps, …).
    """

    ready: bool
    releases: tuple[Release, ...]
    waiting: int
    running: int
    alarms: tuple[str, ...] = ()
    last_swap: Swap | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


class Full(TryLater):
    """The queue is full: nothing is wrong with the request. retry_after: seconds after which a place is likely."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(what, where=where, fix=fix)
        self.retry_after = retry_after


class NotServed(Misuse):
    """No such release is served here."""
