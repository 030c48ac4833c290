"""Licences of data: what a licence allows, and whether a policy accepts it. No file is read here, and no law is spoken.

A policy is a list of SPDX ids and of the classes below. Ids are those that `packaging` knows (the SPDX list); what an id allows
is told by the one table here, which holds the licences that data is found under. A licence that is in no class is accepted by
name alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

LicenseClass = Literal[
    "own", "public-domain", "permissive", "share-alike", "no-derivatives", "noncommercial", "unlicensed", "any"
]
"""own: yours, as `license: own` says, or among your files and databases by default. public-domain: no conditions. permissive:
name the authors. share-alike: works made of it go under the same terms. no-derivatives: pass it on unchanged or not at all.
noncommercial: no use for money. unlicensed: from a public place, and nobody says what is allowed. any: all, and unknown ones."""

CLASSES: tuple[LicenseClass, ...] = get_args(LicenseClass)

ACCEPTED: tuple[str, ...] = ("own", "public-domain", "permissive", "share-alike")
"""What is accepted unless params say otherwise: nothing that forbids use for money or derived works, nothing of unknown terms."""

OWN = frozenset({"own", "proprietary"})
"""How `license` says that the data is yours."""

_NOTHING = frozenset({"", "none", "other", "unknown", "noassertion", "unlicensed"})
_PUBLIC_DOMAIN = re.compile(r"CC0-1\.0|CC-P(?:DDC|DM-1\.0)|PDDL-1\.0|Unlicense|0BSD|MIT-0|DL-DE-ZERO-2\.0|NIST-PD(?:-fallback)?")
_PERMISSIVE = re.compile(
    r"CC-BY-\d.*|ODC-By-1\.0|CDLA-Permissive-.*|[OC]-UDA-1\.0|DL-DE-BY-2\.0|etalab-2\.0|OGL-.*|NLOD-.*|"
    r"MIT|Apache-2\.0|BSD-[123]-Clause(?:-.*)?|ISC|Zlib|BSL-1\.0|PostgreSQL|Python-2\.0|PSF-2\.0|NCSA|AFL-3\.0|ECL-2\.0|UPL-1\.0|Artistic-2\.0"
)
_SHARE_ALIKE = re.compile(
    r"CC-BY-SA-.*|ODbL-1\.0|CDLA-Sharing-.*|GFDL-.*|[AL]?GPL-.*|MPL-2\.0|EPL-[12]\.0|EUPL-.*|OSL-3\.0|LPPL-.*|FreeBSD-DOC"
)
_NONCOMMERCIAL = re.compile(r"CC-BY-NC(?:-.*)?|PolyForm-(?:Noncommercial|Small-Business)-.*|BUSL-1\.1|SSPL-1\.0")
_NO_DERIVATIVES = re.compile(r"CC-BY-(?:NC-)?ND-.*")
_LONGEST = 200
"""Characters of a licence text that are looked at: names are shorter, and expressions are parsed by recursion."""
_WORDS = re.compile(r"[()]|[^\s()]+")


def canonical_license(license: str) -> str:
    """The SPDX spelling of an id or expression; `own`; or LicenseRef-NAME where SPDX does not know it, as SPDX asks for."""
    said = license.strip()[:_LONGEST]
    if said.lower() in OWN:
        return "own"
    try:
        return canonicalize_license_expression(said)
    except InvalidLicenseExpression:
        return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", said).strip("-")


def license_classes(license: str | None, *, public: bool = False) -> frozenset[str]:
    """The classes that one SPDX id is in; for None `own`, or `unlicensed` when it came from a `public` place.

    Those of a licence that forbids something name only that: CC-BY-NC-SA-4.0 is noncommercial, and share-alike no longer
    helps it. An id that the table does not hold is in none.
    """
    if license is None or license.strip().lower() in _NOTHING:
        return frozenset({"own"}) if license is None and not public else frozenset({"unlicensed"})
    id = canonical_license(license)
    if id == "own":
        return frozenset({"own"})
    forbids = {"noncommercial": _NONCOMMERCIAL, "no-derivatives": _NO_DERIVATIVES}
    asks = {"public-domain": _PUBLIC_DOMAIN, "permissive": _PERMISSIVE, "share-alike": _SHARE_ALIKE}
    forbidden = frozenset(name for name, ids in forbids.items() if ids.fullmatch(id))
    return forbidden or frozenset(name for name, ids in asks.items() if ids.fullmatch(id))


def check_license(license: str | None, accepted: Sequence[str] = ACCEPTED, *, public: bool = False) -> str | None:
    """What is wrong with taking in data under `license`, in one sentence; None when the policy `accepted` allows it.

    license: an SPDX id or expression, `own`, or None when nothing is said. public: it comes from where anyone may publish (a
    hub, a web address), so that saying nothing does not mean that it is the user's own. Of `A OR B` one must be accepted, of
    `A AND B` both. A licence that is in several classes needs all of them accepted, or to be named itself.
    """
    if "any" in accepted:
        return None
    names = {entry if entry in CLASSES else canonical_license(entry) for entry in accepted}
    if license is None or license.strip().lower() in _NOTHING:
        if license_classes(license, public=public) <= names:
            return None
        return "no licence is said" if license is None else f"its licence is said to be {license.strip()!r}, which allows nothing"
    said = canonical_license(license)
    if said in names or _holds(said, names):
        return None
    found = license_classes(said)
    if said == "own":
        return "it is your own data, which clean.licenses does not accept"
    if found:
        return f"its licence {said} is {' and '.join(sorted(found))}, which clean.licenses does not accept"
    return f"its licence {said} is not among clean.licenses"


def license_fix(license: str | None) -> str:
    """What the user can do about what `check_license` said."""
    if license is None:
        return "say it in the entry of ingest.sources, e.g. license: CC-BY-4.0, or license: own if the data is yours"
    return "leave the source out, or, if you may use it, add the licence or its class to clean.licenses (docs/cleaning.md)"


def policy_problem(entry: str) -> str | None:
    """Why `entry` can be no entry of clean.licenses: it is neither a class nor an id that SPDX knows (LicenseRef-… is free)."""
    if entry in CLASSES or entry.strip().lower() in OWN:
        return None
    try:
        canonicalize_license_expression(entry)
    except InvalidLicenseExpression:
        return f"{entry!r} is neither an SPDX id nor one of {', '.join(CLASSES)}; other licences are written LicenseRef-NAME"
    return None


def _holds(expression: str, names: set[str]) -> bool:
    """Whether the policy `names` accepts an SPDX expression: OR binds loosest, then AND; an exception (WITH) allows more."""
    words = _WORDS.findall(expression)
    at = 0

    def alternatives() -> bool:
        nonlocal at
        held = together()
        while at < len(words) and words[at] == "OR":
            at += 1
            held = together() or held
        return held

    def together() -> bool:
        nonlocal at
        held = one()
        while at < len(words) and words[at] == "AND":
            at += 1
            held = one() and held
        return held

    def one() -> bool:
        nonlocal at
        word, at = words[at], at + 1
        if word == "(":
            held = alternatives()
            at += 1
            return held
        if at < len(words) and words[at] == "WITH":
            at += 2
        classes = license_classes(word)
        return word in names or (bool(classes) and classes <= names)

    return alternatives()
