"""How much personal data is found, and how much is cried wolf about: ours beside presidio's default, by type, with intervals.

    python bench/personal_data.py FOLDER/pii/generated_small.json

Two corpora. The file: texts with marked spans, as presidio-research makes them. Planted: sentences of our own with values that
Faker makes for many countries, and with numbers that are nobody's (orders, dates, sums, versions). presidio runs as its
AnalyzerEngine does where no model can be downloaded: a blank English pipeline and its default recognisers.

A marked span counts as found when a finding of its type covers at least half of its characters; a finding is right when it
overlaps a marked span of its type. Types that nobody without a language model can find are listed with what was found of them.
Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import binomtest

from pipeline.backends.personal_data import PatternPersonalData

TYPES = ("email", "phone", "card", "iban", "national_id", "ip", "url")
OURS = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "US_SSN": "national_id",
} | {
    "US_ITIN": "national_id",
    "UK_NHS": "national_id",
    "IP_ADDRESS": "ip",
    "URL": "url",
    "DOMAIN_NAME": "url",
}
"""Our names for presidio's types, of its findings and of its marks."""


class Span(NamedTuple):
    start: int
    end: int
    type: str


class Marked(NamedTuple):
    text: str
    spans: list[Span]


Find = Callable[[str], Sequence[Span]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="texts with spans, as JSON")
    parser.add_argument("--planted", type=int, default=3000, help="how many texts to make (0: none)")
    parser.add_argument("--seed", type=int, default=2)
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # presidio tells of every download that it could not make.
    searches = {"ours": _ours(), "presidio": _presidio()}
    corpora = {str(arguments.file.name): read_marked(arguments.file)}
    if arguments.planted:
        corpora["planted"] = plant(arguments.planted, arguments.seed)
    for name, texts in corpora.items():
        print(f"\n{name}: {len(texts)} texts, {sum(len(text.spans) for text in texts)} marked spans")
        print("\n".join(table(texts, searches)))
        rates = {search: speed(find, texts) for search, find in searches.items()}
        ratio = rates["ours"] / rates["presidio"]
        print(f"texts/s: ours {rates['ours']:,.0f}, presidio {rates['presidio']:,.0f}, ratio {ratio:,.0f}")


def read_marked(path: Path) -> list[Marked]:
    """The texts and spans of a file of presidio-research; types under our names where we look for them."""
    return [
        Marked(
            item["full_text"],
            [
                Span(span["start_position"], span["end_position"], OURS.get(span["entity_type"], span["entity_type"]))
                for span in item["spans"]
            ],
        )
        for item in json.loads(path.read_text(encoding="utf-8"))
    ]


def plant(count: int, seed: int) -> list[Marked]:
    """`count` texts, two in three with a value of some type, all of them with a number that is nobody's now and then."""
    from faker import Faker

    rng = random.Random(seed)
    fakers = {locale: Faker(locale) for locale in _LOCALES}
    for faker in fakers.values():
        faker.seed_instance(rng.random())
    made = []
    for _ in range(count):
        type = rng.choice(TYPES) if rng.random() < 2 / 3 else None
        before, after = rng.choice(_SENTENCES[type])
        text, spans = (f"{rng.choice(_NOBODYS).format(*_numbers(rng))} " if rng.random() < 0.5 else "") + before, []
        if type is not None:
            value = _VALUES[type](fakers, rng)
            spans = [Span(len(text), len(text) + len(value), type)]
            text += value
        made.append(Marked(text + after, spans))
    return made


def table(texts: Sequence[Marked], searches: dict[str, Find]) -> list[str]:
    """A line a type: how many were marked, and recall and precision of each search with their 95 % intervals."""
    found = {name: [list(find(text.text)) for text in texts] for name, find in searches.items()}
    marked = Counter(span.type for text in texts for span in text.spans)
    lines = [f"{'type':14}{'marked':>7}" + "".join(f"  {name + ' recall':24}{name + ' precision':24}" for name in searches)]
    for type in [*TYPES, *sorted(marked.keys() - set(TYPES))]:
        cells = ""
        for name in searches:
            caught = sum(
                any(_covers(hit, span) for hit in hits)
                for text, hits in zip(texts, found[name], strict=True)
                for span in text.spans
                if span.type == type
            )
            said = [(hit, text) for text, hits in zip(texts, found[name], strict=True) for hit in hits if hit.type == type]
            right = sum(
                any(span.type == type and hit.start < span.end and span.start < hit.end for span in text.spans)
                for hit, text in said
            )
            cells += f"  {_share(caught, marked[type]):24}{_share(right, len(said)):24}"
        lines.append(f"{type:14}{marked[type]:>7}{cells}")
    return lines


def speed(find: Find, texts: Sequence[Marked], least_seconds: float = 2.0) -> float:
    """Texts a second of this process's own time, over as many rounds as fill `least_seconds`."""
    done, started = 0, time.process_time()
    while (spent := time.process_time() - started) < least_seconds:
        for text in texts:
            find(text.text)
        done += len(texts)
    return done / spent


def _covers(hit: Span, span: Span) -> bool:
    return hit.type == span.type and 2 * (min(hit.end, span.end) - max(hit.start, span.start)) >= span.end - span.start


def _share(part: int, whole: int) -> str:
    if not whole:
        return "-"
    interval = binomtest(part, whole).proportion_ci(method="wilson")
    return f"{part / whole:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _ours() -> Find:
    detector = PatternPersonalData(TYPES)
    return lambda text: [Span(found.start, found.end, found.type) for found in detector.find(text)]


def _presidio() -> Find:
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class BlankEngine(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

        def load(self) -> None:
            """Nothing to load."""

    # Its own list of domain endings, instead of asking the network for a newer one.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR.__call__
    engine = AnalyzerEngine(nlp_engine=BlankEngine(), supported_languages=["en"])
    return lambda text: [
        Span(hit.start, hit.end, OURS.get(hit.entity_type, hit.entity_type)) for hit in engine.analyze(text, language="en")
    ]


_ENGLISH = ("en_US", "en_GB", "en_AU", "en_IN", "en_CA")
_LOCALES = (
    *_ENGLISH,
    *("de_DE", "de_AT", "de_CH", "fr_FR", "es_ES", "it_IT", "pt_BR", "pt_PT"),
    *("nl_NL", "sv_SE", "no_NO", "da_DK", "fi_FI", "pl_PL", "cs_CZ", "tr_TR"),
)
_VALUES: dict[str, Callable[..., str]] = {
    "email": lambda fakers, rng: fakers[rng.choice(_LOCALES)].email(),
    "phone": lambda fakers, rng: fakers[rng.choice(_LOCALES)].phone_number(),
    "card": lambda fakers, rng: _grouped(fakers["en_US"].credit_card_number(), rng),
    "iban": lambda fakers, rng: _in_fours(fakers[rng.choice(("de_DE", "en_GB", "fr_FR", "it_IT", "nl_NL", "es_ES"))].iban(), rng),
    "national_id": lambda fakers, rng: _national_id(fakers, rng),
    "ip": lambda fakers, rng: fakers["en_US"].ipv4_public() if rng.random() < 0.7 else "2a02:" + fakers["en_US"].ipv6()[5:],
    "url": lambda fakers, rng: fakers["en_US"].url() + rng.choice(("", "login", "a/b?id=7")),
}


def _grouped(number: str, rng: random.Random) -> str:
    return " ".join(number[i : i + 4] for i in range(0, 16, 4)) if len(number) == 16 and rng.random() < 0.5 else number


def _in_fours(iban: str, rng: random.Random) -> str:
    return " ".join(iban[i : i + 4] for i in range(0, len(iban), 4)) if rng.random() < 0.5 else iban


def _national_id(fakers: dict[str, Any], rng: random.Random) -> str:
    country = rng.choice(("US", "US", "IT", "BR", "FR", "CH", "ES"))
    if country in ("BR", "ES"):
        return fakers["pt_BR"].cpf() if country == "BR" else fakers["es_ES"].nie()
    return fakers[{"US": "en_US", "IT": "it_IT", "FR": "fr_FR", "CH": "de_CH"}[country]].ssn()


def _numbers(rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randint(1, 9) if i < 2 else rng.randint(10**i, 10 ** (i + 1) - 1) for i in range(9))


# {0}, {1}: 1 to 9. {2}: three digits, {3}: four, and so on up to nine in {8}.
_NOBODYS = (
    "Order {7} was sent on 2024-0{0}-1{1}.",
    "Invoice {5}-{2} of 1{0}/0{1}/2023 is due.",
    "The price rose from {3}.{0} to {4}.{1} in 19{0}5-20{1}0.",
    "It weighs {2} x {2} x {3} mm.",
    "Version {0}.{1}.{2}.{0} fixed it.",
    "The ISBN is 978-3-16-14{2}{0}-{1}.",
    "Flight LH{3} leaves at 1{0}:3{1} from gate {0}.",
    "Solve {3} + {4} - {5} = {6} / {2}.",
    "The numbers are {0} {2} {3} {1} {2} {4}.",
    "Ticket #{8}, parcel {7}{3}, at 4{0}.{5}, 1{1}.{5}.",
    "Commit a{0}f{7}e and hash 0x{6} differ.",
)
_SENTENCES: dict[str | None, tuple[tuple[str, str], ...]] = {
    None: (("Thanks, that answers it.", ""), ("Please cancel the order", "."), ("How do I reset it?", "")),
    "email": (("Write to ", "."), ("Mail: ", ""), ("", " asked for it again"), ("<", "> is mine")),
    "phone": (
        ("Call me at ", "."),
        ("Tel: ", ""),
        ("My mobile is ", ", after six"),
        ("Ada Byron\n", "\nLondon"),
        ("You have ", " ?"),
    ),
    "card": (("My card ", " was charged twice"), ("Pay with ", "."), ("card number: ", ", exp 04/27")),
    "iban": (("Send it to ", "."), ("IBAN: ", ""), ("My account is ", " at the bank")),
    "national_id": (("My id is ", "."), ("ID: ", ""), ("", " is on the form")),
    "ip": (("Request from ", " was blocked"), ("ping ", ""), ("Host ", ", port 443")),
    "url": (("See ", " for more"), ("(", ")"), ("Open ", ".")),
}

if __name__ == "__main__":
    main()
