"""Secrets in texts: keys and tokens by the marks that their issuers put into them, passwords in addresses and assignments.

The marks are public: issuers chose them so that leaks can be found. Nothing is asked of any network, and a secret without mark or
assignment is not guessed at from its randomness. Implements ports.Detector.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from pipeline.curation.redaction import without_overlaps
from pipeline.ports import Finding

# type: (a text that must stand in it, the whole of it). Looked for in this order; what is found first keeps its place.
_MARKED: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "private_key",
        ("PRIVATE KEY",),
        # Up to its end; or, where that was cut off, what looks like its body.
        r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:[^-]|-(?!----)){0,20000}-----END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----"
        r"|(?:(?:\\[rn]|\s){0,8}[A-Za-z0-9+/=]{16,})*)",
    ),
    ("jwt", ("eyJ",), r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}"),
    ("aws_key", ("AKIA", "ASIA", "ABIA", "ACCA"), r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("github_token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"(?<!\w)gh[pousr]_[A-Za-z0-9]{36,255}"),
    ("github_token", ("github_pat_",), r"(?<!\w)github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    ("gitlab_token", ("glpat-", "gldt-", "glrt-"), r"(?<![\w-])gl(?:pat|dt|rt)-[\w-]{20,}"),
    ("slack_token", ("xox",), r"(?<![\w-])xox[abeoprs](?:\.xox[bp])?-(?:[0-9]{1,}-)?[A-Za-z0-9-]{20,}"),
    ("slack_token", ("hooks.slack.com",), r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{30,}"),
    ("google_key", ("AIza",), r"(?<![\w-])AIza[\w-]{35}(?![\w-])"),
    ("google_key", ("GOCSPX-",), r"(?<![\w-])GOCSPX-[\w-]{28}(?![\w-])"),
    ("stripe_key", ("_live_", "_test_"), r"(?<!\w)[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("llm_key", ("sk-",), r"(?<![\w-])sk-(?=[\w-]{0,200}[0-9])[A-Za-z0-9](?:[\w-]{30,})(?![\w-])"),
    ("huggingface_token", ("hf_",), r"(?<!\w)hf_[A-Za-z0-9]{34,}(?!\w)"),
    ("npm_token", ("npm_",), r"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)"),
    ("pypi_token", ("pypi-",), r"(?<![\w-])pypi-AgEI[\w-]{50,}"),
    ("sendgrid_key", ("SG.",), r"(?<!\w)SG\.[\w-]{22}\.[\w-]{43}(?![\w-])"),
    ("telegram_token", (":AA",), r"(?<!\w)[0-9]{8,10}:AA[\w-]{33}(?![\w-])"),
    ("digitalocean_token", ("_v1_",), r"(?<!\w)do[opr]_v1_[a-f0-9]{64}(?!\w)"),
    ("databricks_token", ("dapi",), r"(?<!\w)dapi[a-f0-9]{32}(?:-[0-9])?(?!\w)"),
    ("shopify_token", ("shp",), r"(?<!\w)shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}(?!\w)"),
    ("age_key", ("AGE-SECRET-KEY-1",), r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    ("azure_key", ("AccountKey=", "SharedAccessKey="), r"(?<=AccessKey=|ccountKey=)[A-Za-z0-9+/]{43,86}={1,2}"),
)
_COMPILED = tuple((type, needles, re.compile(pattern)) for type, needles, pattern in _MARKED)
# All of them but private keys hold so many characters of this class in a row, which words hardly ever do.
_LETTERS = bytes(ord("a") if chr(i).isascii() and (chr(i).isalnum() or chr(i) in "_-.+/=") else ord(" ") for i in range(256))
_RUN = b"a" * 20
_DIGITS = b"0123456789"
_WITHOUT_DIGITS = ("PRIVATE KEY", "hf_", "AKIA", "ASIA", "ABIA", "ACCA")
"""Those that may hold no digit stand out by these; all others hold one."""

# user:password@ in an address, whatever the scheme.
_ADDRESS = re.compile(r"(?<![\w+.-])[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/@\"'<>]{0,64}:(?P<value>[^\s/@\"'<>]{3,128})@(?=[\w\[])")
_NAMES = ("passw", "pwd", "secret", "token", "key")
_KEY_OF = re.compile(r"(?:api|access|account|auth|private|encryption|signing)[_-]?\Z", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?:passw(?:or)?d|pwd|secret|token|key)(?:[_-](?:key|id|value))?[\"']?\s{0,3}(?::=|=>|=|:)\s{0,3}"
    r"(?P<quote>[\"'`]?)(?P<value>[^\s\"'`,;<>(){}\[\]]{8,512})(?P=quote)",
    re.IGNORECASE,
)
_STAND_INS = re.compile(
    r"\$|%[a-z(]|\*{3}|\.{3}|x{4}|your|example|sample|placeholder|change|insert|dummy|fake|redacted|process\.env|os\.environ|getenv|"
    r"0123456|1234567|abcdef|password|secret|token",
    re.IGNORECASE,
)
_LEAST_BITS = 2.75
"""Shannon entropy of the characters of an assigned value, in bits a character: words repeat letters, made-up values less so."""


class TokenSecrets:
    """Finds keys and tokens by issuer (`aws_key`, `github_token`, …), `private_key`, `jwt`, and `password`: a value after a name
    that says so, or in an address."""

    def suspects(self, texts: str) -> bool:
        data = texts.encode("utf-8", "replace")
        if len(data.translate(None, _DIGITS)) == len(data):
            for needle in _WITHOUT_DIGITS:  # A loop, since any() costs more than all of the looking.
                if needle in texts:
                    return True
        elif _RUN in data.translate(_LETTERS) or _may_assign(texts) or "PRIVATE KEY" in texts:
            return True
        return "://" in texts and "@" in texts

    def find(self, text: str) -> list[Finding]:
        if not self.suspects(text):
            return []
        found = [
            [Finding(*match.span(), type) for match in pattern.finditer(text)]
            for type, needles, pattern in _COMPILED
            if any(needle in text for needle in needles)
        ]
        assigned = [match for match in _ADDRESS.finditer(text) if _is_password(match["value"])] if "://" in text else []
        assigned += [match for match in _assignments(text) if _is_value(match["value"])]
        found.append([Finding(*match.span("value"), "password") for match in assigned])
        return without_overlaps(found)


def _may_assign(text: str) -> bool:
    if ":" not in text and "=" not in text:
        return False
    lowered = text.lower()
    return any(name in lowered for name in _NAMES)


def _assignments(text: str) -> Iterator[re.Match[str]]:
    """Values that follow a name. The names are looked for first, since a pattern for all of them is slow to fail."""
    lowered = text.lower() if text.isascii() else text.encode("utf-8", "replace").lower().decode("utf-8")  # As long as the text.
    for name in _NAMES:
        place = lowered.find(name)
        while place >= 0:
            match = _ASSIGNED.match(text, place)
            if match and (name != "key" or _KEY_OF.search(text, max(0, place - 12), place)):
                yield match
            place = lowered.find(name, place + 1)


def _is_password(value: str) -> bool:
    """Whether what stands between : and @ of an address is a password, and not what stands for one in a manual."""
    return value.lower() not in ("password", "pass", "pwd", "secret") and not _STAND_INS.search(value)


def _is_value(value: str) -> bool:
    """Whether an assigned value was made up by a machine or a careful person: letters and digits, and hardly any repeats."""
    if _STAND_INS.search(value) or value.startswith(("http", "/", "./", "--")):
        return False
    if not (any(sign.isdigit() for sign in value) and any(sign.isalpha() for sign in value)):
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares) >= _LEAST_BITS
