"""Phone numbers in texts. Numbers written for the world are checked by `phonenumbers`; others by how they are written and what
stands beside them, since a run of digits may be anything. What becomes of a number is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# One separator between digits, or a bracket with one: lists of numbers have commas or longer gaps.
_NUMBER = re.compile(
    r"(?<![\w@#$€£¥=^/\\.,*+-])(?:\+(?=[0-9(]))?\(?[0-9](?:(?:[ .\-/\u00a0)(]|\)[ \-]| \()?[0-9]){6,24}+"
    r"(?P<extension> ?(?:x|ext\.?|extension) ?[0-9]{1,5})?(?!\w|[-.,/:][0-9]|%)",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"(?:\b(?:phone|tel|telephone|fon|telefon|telefono|teléfono|téléphone|handy|móvil|movil|cell|cellphone|mobile|mob|fax|whatsapp|sms|"
    r"hotline|call|calling|dial|ring|reach|contact)\b|☎|📞|📱)[^0-9\n]{0,32}\Z",
    re.IGNORECASE,
)
_AFTER = re.compile(r" ?\(?(?:office|fax|mobile|cell|home|work|desk|phone|tel)\b", re.IGNORECASE)
_MONTHS, _DAYS = range(1, 13), range(1, 32)


def find_phones(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where phone numbers stand in text[start:end], their extensions included; the words around may lie outside."""
    for match in _NUMBER.finditer(text, start, end):
        number = match.group()[: match.start("extension") - match.start()] if match["extension"] else match.group()
        if _is_phone(number, match["extension"] is not None or _is_said(text, *match.span())):
            yield match.span()


def _is_said(text: str, start: int, end: int) -> bool:
    """Whether the words around text[start:end] speak of phones."""
    return bool(_BEFORE.search(text, max(0, start - 48), start) or _AFTER.match(text, end, end + 12))


def _is_phone(number: str, said: bool) -> bool:
    """number: digits and separators. said: whether the words around it speak of phones."""
    groups = re.findall(r"[0-9]+", number)
    digits = "".join(groups)
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 3 or _is_date(groups) or _is_other(groups):
        return False
    if number.startswith("+"):
        return _is_possible(f"+{digits}")
    if digits.startswith("00") and len(digits) >= 10 and _is_possible(f"+{digits[2:]}"):
        return True
    lengths = [len(group) for group in groups]
    if said:
        return len(groups) > 1 or len(digits) >= 8
    dense = min(lengths[1:], default=0) >= 2 and len(groups) <= 6
    if number.startswith("(") and number[2:7].count(")") == 1:
        return dense and len(groups) >= 2 and lengths[0] >= 2
    if lengths[-3:] == [3, 3, 4] and groups[:-3] in ([], ["1"]):
        # 415-555-0100, but not the list 200 300 4000.
        return groups[-3][0] > "1" and groups[-2][0] > "1" and any(sign in number for sign in "-.(")
    return (
        digits[0] == "0"
        and digits[1] != "0"
        and dense
        and 2 <= lengths[0] <= 5
        and 9 <= len(digits) <= 12
        and "/" not in number[6:]
    )


def _is_possible(number: str) -> bool:
    """Whether some country's plan has numbers of this length; its validity is not asked, since made-up numbers are data too."""
    import phonenumbers

    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return False


def _is_date(groups: list[str]) -> bool:
    if len(groups) < 3:
        # 1998-2003: two years.
        return len(groups) == 2 and all(len(group) == 4 and group[:2] in ("18", "19", "20") for group in groups)
    first, second, third = groups[:3]
    if len(first) == 4:
        return len(second) <= 2 and len(third) <= 2 and int(second) in _MONTHS and int(third) in _DAYS
    small = len(first) <= 2 and len(second) <= 2 and int(first) in _DAYS and int(second) in _DAYS
    return small and len(third) == 4 and third[:2] in ("18", "19", "20")


def _is_other(groups: list[str]) -> bool:
    """Book numbers, US social security numbers."""
    lengths = [len(group) for group in groups]
    return ("".join(groups).startswith(("978", "979")) and sum(lengths) == 13) or lengths == [3, 2, 4]
