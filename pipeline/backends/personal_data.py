"""Personal data in texts, by pattern, check digit and, for phones, the numbering plans of `phonenumbers`. No model, no network.

What a pattern cannot tell stays unfound: names, organisations, streets and towns need a model that knows languages. Implements
ports.Detector; what becomes of a finding is for curation/row_rules.py.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence

from pipeline.backends.phone_numbers import find_phones
from pipeline.curation import check_digits
from pipeline.curation.redaction import without_overlaps
from pipeline.ports import Finding

Span = tuple[int, int]

_DIGITS = b"0123456789"
_FEWEST_DIGITS = 6
# All numbers sought lie in such a stretch: digits with little between them. The patterns proper look no further than around it.
_STRETCH = re.compile(r"[0-9](?:[ .\-/()A-Z\u00a0]{0,6}[0-9]){5,}+")
_MARGIN_BEFORE, _MARGIN_AFTER = 8, 18

_LOCAL = re.compile(r"[\w.%+'-]{1,64}")
_DOMAIN = re.compile(r"(?:\w[\w-]{0,62}\.)+(?:[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})(?![\w-])", re.IGNORECASE)
# What stands after an @ may be the size of a picture or the version of a file.
_FILE_ENDS = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".css", ".js", ".json", ".html")
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>\"'`{}|\\^]{3,2000}", re.IGNORECASE)
_CARD = re.compile(r"(?<![\w.,+-])[0-9](?:[ -]?[0-9]){11,18}+(?![\w]|[-.,][0-9])")
_CARD_GROUPS = {(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 5)}
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,31}", re.IGNORECASE)
_IPV4 = re.compile(r"[0-9][0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\.?\w)")
_IPV6 = re.compile(r"[23][0-9a-f]{0,3}:[0-9a-f:]{2,35}(?![\w:])", re.IGNORECASE)
_NOT_BEFORE_ADDRESS = re.compile(r"(?:[\w.:]|(?:version|release|ver\.?|v)\s?)\Z", re.IGNORECASE)
_SSN_SAID = re.compile(r"(?:\bssn\b|social security)[^0-9]{0,24}\Z", re.IGNORECASE)

_NATIONAL_IDS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (re.compile(r"(?<![\w.-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![\w-])"), check_digits.is_us_ssn),
    (
        re.compile(r"(?<!\w)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D](?!\w)"),
        check_digits.is_uk_nino,
    ),
    (re.compile(r"(?<![\w-])(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-HJ-NP-TV-Z](?![\w-])"), check_digits.is_spanish_id),
    (re.compile(r"(?<!\w)[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z](?!\w)"), check_digits.is_italian_fiscal_code),
    (re.compile(r"(?<![\w.])[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}(?![\w-])"), check_digits.is_brazilian_cpf),
    (re.compile(r"(?<![\w.])756\.?[0-9]{4}\.?[0-9]{4}\.?[0-9]{2}(?!\w)"), check_digits.is_swiss_ahv),
    (
        re.compile(r"(?<![\w.])[12] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}(?!\w)"),
        check_digits.is_french_nir,
    ),
)
_BARE_SSN = re.compile(r"(?<![\w.-])[0-9]{3} ?[0-9]{2} ?[0-9]{4}(?![\w-])")
_SEPARATORS = re.compile(r"[ .\-/]")


class PatternPersonalData:
    """Finds the types it was made for, of `email`, `url`, `iban`, `card`, `national_id`, `ip` and `phone`."""

    def __init__(self, types: Sequence[str]) -> None:
        self._types = [type for type in _FINDERS if type in types]
        self._numbers = [type for type in _NUMBERS if type in types]

    def suspects(self, texts: str) -> bool:
        data = texts.encode("utf-8", "replace")
        digits = len(data) - len(data.translate(None, _DIGITS))
        return (
            digits >= _FEWEST_DIGITS
            or b"@" in data
            or (digits >= 4 and data.count(b".") >= 3)
            or (digits > 0 and b"::" in data)
            or ("url" in self._types and (b"://" in data or b"www." in data.lower()))
        )

    def find(self, text: str) -> list[Finding]:
        if not self.suspects(text):
            return []
        found = [[Finding(*span, type) for span in _FINDERS[type](text)] for type in self._types]
        if self._numbers:
            windows = list(_windows(text))
            found += [
                [Finding(*span, type) for window in windows for span in _NUMBERS[type](text, *window)] for type in self._numbers
            ]
        return without_overlaps(found)  # The types come in order of certainty.


def _windows(text: str) -> Iterator[Span]:
    """Where numbers long enough may stand, with what touches them; no two of these overlap."""
    start, end = 0, -1
    for match in _STRETCH.finditer(text):
        first, last = max(0, match.start() - _MARGIN_BEFORE), match.end() + _MARGIN_AFTER
        if first > end >= 0:
            yield start, end
        if first > end:
            start = first
        end = last
    if end >= 0:
        yield start, end


def _emails(text: str) -> Iterator[Span]:
    at = text.find("@")
    while at >= 0:
        # Read backwards from the sign, so that no text makes the search start over at each of its letters.
        local = _LOCAL.match(text[max(0, at - 64) : at][::-1])
        domain = _DOMAIN.match(text, at + 1) if local else None
        if local and domain and not domain.group().lower().endswith(_FILE_ENDS):
            name = local.group()[::-1].lstrip(".'-%+")
            if name:
                yield at - len(name), domain.end()
        at = text.find("@", at + 1)


def _urls(text: str) -> Iterator[Span]:
    for match in _URL.finditer(text):
        yield match.start(), match.start() + len(match.group().rstrip(".,;:!?)]"))


def _addresses(text: str) -> Iterator[Span]:
    """Network addresses that lead to somebody: those of private networks and of the machine itself do not."""
    patterns = [_IPV4] if text.count(".") >= 3 else []
    if "::" in text or text.count(":") >= 7:
        patterns.append(_IPV6)
    for pattern in patterns:
        for match in pattern.finditer(text):
            if _NOT_BEFORE_ADDRESS.search(text, max(0, match.start() - 10), match.start()):
                continue
            try:
                address = ipaddress.ip_address(match.group())
            except ValueError:
                continue
            if address.is_global:
                yield match.span()


def _ibans(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _IBAN.finditer(text, start, end):
        length, after, compact = check_digits.iban_length(match.group()[:2].upper()), match.start(), ""
        while len(compact) < length and after < match.end():
            compact += text[after].upper() if text[after].isalnum() else ""
            after += 1
        if length and check_digits.is_iban(compact) and not text[after : after + 1].isalnum():
            yield match.start(), after


def _cards(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _CARD.finditer(text, start, end):
        groups = re.split("[ -]", match.group())
        if (len(groups) == 1 or tuple(map(len, groups)) in _CARD_GROUPS) and check_digits.is_card("".join(groups)):
            yield match.span()


def _national_ids(text: str, start: int, end: int) -> Iterator[Span]:
    for pattern, holds in _NATIONAL_IDS:
        for match in pattern.finditer(text, start, end):
            if holds(_SEPARATORS.sub("", match.group())):
                yield match.span()
    for match in _BARE_SSN.finditer(text, start, end):
        digits = match.group().replace(" ", "")
        if check_digits.is_us_ssn(digits) and _SSN_SAID.search(text, max(0, match.start() - 60), match.start()):
            yield match.span()


_FINDERS: dict[str, Callable[[str], Iterator[Span]]] = {"email": _emails, "url": _urls, "ip": _addresses}
_NUMBERS: dict[str, Callable[[str, int, int], Iterator[Span]]] = {
    "iban": _ibans,
    "card": _cards,
    "national_id": _national_ids,
    "phone": find_phones,
}
