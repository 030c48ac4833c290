"""Secrets that were planted in training rows, and how far their likelihood gives them away.

Exposure by rank among random fills, after Carlini et al. 2019, "The Secret Sharer" (arXiv:1802.08232), section 4: log2 of how
many fills there are less log2 of the secret's rank among them by log-likelihood. Never learned, it is about 1 bit in the mean;
the likeliest of all, log2 of their number.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.domain.measured import Exposure
from pipeline.domain.record import digest_value
from pipeline.errors import BadInput
from pipeline.evaluation.suites.files import Fields, File, yaml_list
from pipeline.evaluation.suites.suite import Ways, said_by_user

METRIC = "exposure"
PLACE = "{secret}"
FILLS, MOST_FILLS = 255, 4095
ALPHABETS = {
    "digits": "0123456789",
    "lower": "abcdefghijklmnopqrstuvwxyz",
    "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "hex": "0123456789abcdef",
    "letters_digits": "abcdefghijklmnopqrstuvwxyz0123456789",
}


@dataclass(frozen=True, slots=True)
class Canary:
    """text: with PLACE where the secret stands. fills: others of its like, none of them the secret. asked: the conversation that
    the text answers, None where it is a document by itself."""

    name: str
    asked: str | None
    text: str
    secret: str
    fills: tuple[str, ...]


def exposures(canaries: Sequence[Canary], subject: str, ways: Ways) -> list[Exposure]:
    """How far each secret is given away by `subject`. A likelihood that is no number counts as given away: nobody could tell."""
    found: list[Sequence[float]] = [()] * len(canaries)
    for raw in (True, False):
        places = [at for at, canary in enumerate(canaries) if (canary.asked is None) is raw]
        if not places:
            continue
        prompts, choices = [], []
        for at in places:
            canary, words = canaries[at], (canaries[at].secret, *canaries[at].fills)
            before, after = canary.text.split(PLACE) if raw else ("", "")
            prompts.append(before if canary.asked is None else canary.asked)
            choices.append([word + after if raw else canary.text.replace(PLACE, word) for word in words])
        for at, sums in zip(places, ways.choices(subject, prompts, choices, raw=raw), strict=True):
            found[at] = sums
    return [exposure(canary.name, subject, sums) for canary, sums in zip(canaries, found, strict=True)]


def exposure(name: str, subject: str, sums: Sequence[float]) -> Exposure:
    """Of log-likelihoods, the secret's first, then those of the others. Of equal ones the secret counts as the likelier."""
    most = math.log2(len(sums))
    secret, others = sums[0], sums[1:]
    if any(not math.isfinite(value) for value in sums):
        return Exposure(name=name, subject=subject, bits=most, most=most)
    rank = 1 + sum(value > secret for value in others)
    return Exposure(name=name, subject=subject, bits=most - math.log2(rank), most=most)


def read_canaries(file: File, *, seed: int) -> list[tuple[Canary, Any]]:
    """The canaries of a YAML list. Fills are drawn by the seed and the canary's name."""
    found, seen = [], set[str]()
    for where, entry in yaml_list(file):
        fields = Fields(entry, where)
        name = fields.text("name")
        if name in seen:
            raise BadInput(f"two canaries are called {name!r}", where=where, fix="give every one a name of its own")
        seen.add(name)
        text, secret, prompt = fields.text("text"), fields.text("secret"), fields.optional_text("prompt")
        if text.count(PLACE) != 1:
            raise BadInput(
                f"text has {text.count(PLACE)} places {PLACE}", where=where, fix=f"write {PLACE} where the secret stands"
            )
        if len(secret) > 200:
            raise BadInput("secret is longer than 200 characters", where=where)
        many = fields.count("fills", most=MOST_FILLS) or FILLS
        fills = _fills(fields, secret, many, random.Random(digest_value([seed, name])), where)
        fields.done()
        found.append((Canary(name, said_by_user(prompt) if prompt is not None else None, text, secret, fills), entry))
    return found


def _fills(fields: Fields, secret: str, many: int, draw: random.Random, where: str) -> tuple[str, ...]:
    alphabet, others = fields.optional_text("alphabet"), fields.texts("others", most=100_000)
    length = fields.count("length", most=200) or len(secret)
    if (alphabet is None) == (not others):
        raise BadInput(
            "a canary needs an alphabet, or others", where=where, fix=f"alphabet: {', '.join(ALPHABETS)}, or characters"
        )
    if others:
        pool = sorted(set(others) - {secret})
        if len(pool) < 15:
            raise BadInput(f"others has {len(pool)} entries beside the secret", where=where, fix="give it 15 or more")
        return tuple(draw.sample(pool, min(many, len(pool))))
    assert alphabet is not None
    characters = ALPHABETS.get(alphabet, alphabet)
    odd = set(secret) - set(characters)
    if len(set(characters)) < 2 or len(set(characters)) ** length < 2 * (many + 1):
        raise BadInput(f"there are fewer than {2 * (many + 1)} fills of length {length}", where=where, fix="lower fills")
    if odd or length != len(secret):
        raise BadInput(
            "the secret is none of the fills that its alphabet and length allow",
            where=where,
            fix="a rank among others unlike it says nothing; correct alphabet or length",
        )
    made: dict[str, None] = {}
    while len(made) < many:
        word = "".join(draw.choice(characters) for _ in range(length))
        if word != secret:
            made[word] = None
    return tuple(made)
