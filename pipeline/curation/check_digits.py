"""Check digits and formats of numbers that name a person or an account: cards, bank accounts, national ids. Pure arithmetic.

Each function takes the characters without separators and says whether they can be such a number at all. Sources: ISO/IEC 7812-1
(Luhn), ISO 13616 (IBAN), and the public rules of each national id.
"""

from __future__ import annotations

_CARD_PREFIXES = (
    ((4,), (13, 16, 19)),  # Visa
    (tuple(range(51, 56)), (16,)),  # Mastercard
    (tuple(range(2221, 2721)), (16,)),
    ((34, 37), (15,)),  # American Express
    ((6011, 65, *range(644, 650)), (16, 19)),  # Discover
    ((35,), (16, 17, 18, 19)),  # JCB
    ((1800, 2131), (15,)),
    ((36, 38, 39, *range(300, 306)), (14, 16, 19)),  # Diners
    ((62,), (16, 17, 18, 19)),  # UnionPay
    ((50, *range(56, 59), 6304, 6390, 6759, 6761, 6762, 6763), (12, 13, 16, 18, 19)),  # Maestro
)
_CARD_LENGTHS = {str(prefix): lengths for prefixes, lengths in _CARD_PREFIXES for prefix in prefixes}

_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "AO CV LY MZ PT ST",
        26: "DZ IS TR",
        27: "BI CM DJ FR GR IT MC MG MR SM",
        28: "AL AZ BF BJ BY CI CY DO GT HU LB ML NI PL SN SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}

_FISCAL_ODD = dict(zip("0123456789ABCDEFGHIJ", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21) * 2, strict=True)) | dict(
    zip("KLMNOPQRSTUVWXYZ", (2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23), strict=True)
)
_SPANISH_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others."""
    odd = sum(int(digit) for digit in digits[-1::-2])
    even = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (odd + even) % 10 == 0


def is_card(digits: str) -> bool:
    """A payment card number: a network's prefix and length, and the Luhn digit."""
    lengths = next((_CARD_LENGTHS[digits[:n]] for n in (4, 3, 2, 1) if digits[:n] in _CARD_LENGTHS), ())
    return len(digits) in lengths and len(set(digits)) > 1 and luhn(digits)


def iban_length(country: str) -> int:
    """Characters of the IBANs of a country, by its two capitals; 0 where there are none."""
    return _IBAN_LENGTHS.get(country, 0)


def is_iban(text: str) -> bool:
    """An international bank account number, in capitals: the country's length, and 97 dividing what ISO 13616 says."""
    if len(text) != iban_length(text[:2]):
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def is_us_ssn(digits: str) -> bool:
    """A US social security number, or an individual taxpayer number, which begins with 9."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area[0] == "9":
        return group >= "50" and serial != "0000"
    return area not in ("000", "666") and group != "00" and serial != "0000"


def is_uk_nino(text: str) -> bool:
    """A UK national insurance number, in capitals; it has no check digit, but pairs of letters that are never given."""
    return text[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def is_spanish_id(text: str) -> bool:
    """A Spanish DNI or NIE, in capitals: the letter at the end is the number modulo 23."""
    number = text[:-1].replace("X", "0", 1).replace("Y", "1", 1).replace("Z", "2", 1)
    return _SPANISH_LETTERS[int(number) % 23] == text[-1]


def is_italian_fiscal_code(text: str) -> bool:
    """An Italian codice fiscale, in capitals: the letter at the end checks the fifteen before it."""
    odd = sum(_FISCAL_ODD[sign] for sign in text[0:15:2])
    even = sum(int(sign) if sign.isdigit() else ord(sign) - ord("A") for sign in text[1:15:2])
    return chr(ord("A") + (odd + even) % 26) == text[15]


def is_brazilian_cpf(digits: str) -> bool:
    """A Brazilian CPF: two check digits modulo 11."""
    if len(set(digits)) == 1:
        return False
    for length in (9, 10):
        total = sum(int(digit) * (length + 1 - i) for i, digit in enumerate(digits[:length]))
        if (total * 10) % 11 % 10 != int(digits[length]):
            return False
    return True


def is_swiss_ahv(digits: str) -> bool:
    """A Swiss AHV number: 756 and the check digit of an EAN-13."""
    total = sum(int(digit) * (3 if i % 2 else 1) for i, digit in enumerate(digits[:12]))
    return digits.startswith("756") and -total % 10 == int(digits[12])


def is_french_nir(text: str) -> bool:
    """A French NIR (social security number), in capitals: the key at the end is 97 less the number modulo 97."""
    number = text[:13].replace("2A", "19").replace("2B", "18") if not text[:13].isdigit() else text[:13]
    return 97 - int(number) % 97 == int(text[13:])
