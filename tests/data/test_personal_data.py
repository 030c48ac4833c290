"""What is found in texts as personal data or secret, what is not, and that a quick look never misses what a long one finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backends.personal_data import PatternPersonalData
from pipeline.backends.secrets import TokenSecrets
from pipeline.curation import check_digits
from pipeline.curation.redaction import redact

ALL = ("email", "phone", "card", "iban", "national_id", "ip", "url")
PERSONAL = PatternPersonalData(ALL)
SECRETS = TokenSecrets()
BASE64 = "q8Zr5Lw2Nx7Vb4Kd9Jf3Hg6Ts1Yp0Mc8Qe5Ru2Ia7Ob4Sd9Wf3Eg6Zt1Xy0" * 2


def found(text: str) -> list[tuple[str, str]]:
    return [(finding.type, text[finding.start : finding.end]) for finding in PERSONAL.find(text)]


@pytest.mark.parametrize(
    ("text", "type", "value"),
    [
        ("write to Ada.Byron+x@mail.example.co.uk.", "email", "Ada.Byron+x@mail.example.co.uk"),
        ("<ada@bücher.de>", "email", "ada@bücher.de"),
        ("mailto:o'neil@b.org?x=1", "email", "o'neil@b.org"),
        ("call +41 44 668 18 00 now", "phone", "+41 44 668 18 00"),
        ("(415) 555-0132 works", "phone", "(415) 555-0132"),
        ("415.555.0132x44", "phone", "415.555.0132x44"),
        ("1-415-555-0132", "phone", "1-415-555-0132"),
        ("001-420-335-7509", "phone", "001-420-335-7509"),
        ("meine Nummer: 030 901820", "phone", "030 901820"),
        ("06 12 34 56 78", "phone", "06 12 34 56 78"),
        ("mobile 5551234567", "phone", "5551234567"),
        ("Tel.: 69 987 88 37", "phone", "69 987 88 37"),
        ("4716952653167634", "card", "4716952653167634"),
        ("card 4716 9526 5316 7634 ok", "card", "4716 9526 5316 7634"),
        ("amex 3714-496353-98431", "card", "3714-496353-98431"),
        ("IBAN GB82 WEST 1234 5698 7654 32 please", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("de89370400440532013000", "iban", "de89370400440532013000"),
        ("my ssn is 531-21-7351", "national_id", "531-21-7351"),
        ("social security number 531217351", "national_id", "531217351"),
        ("NI AB 12 34 56 C", "national_id", "AB 12 34 56 C"),
        ("DNI 12345678Z", "national_id", "12345678Z"),
        ("NIE X1234567L", "national_id", "X1234567L"),
        ("CF RSSMRA85T10A562S", "national_id", "RSSMRA85T10A562S"),
        ("CPF 529.982.247-25", "national_id", "529.982.247-25"),
        ("AHV 756.9217.0769.85", "national_id", "756.9217.0769.85"),
        ("NIR 1 84 12 76 451 089 46", "national_id", "1 84 12 76 451 089 46"),
        ("from 8.8.8.8 at noon", "ip", "8.8.8.8"),
        ("host 2a02:908:1a2::17 down", "ip", "2a02:908:1a2::17"),
        ("see https://b.org/a?id=7.", "url", "https://b.org/a?id=7"),
    ],
)
def test_found(text: str, type: str, value: str) -> None:
    assert found(text) == [(type, value)]


@pytest.mark.parametrize(
    "text",
    [
        "logo@2x.png, @app.route, a@b, react@18.2.0",
        "2024-05-06, 6.5.2024, 12/27/1986 14:48:14, 1998-06-28 14:48, 1998-2003",
        "order 1234567890, invoice 4711-2024-001, ticket #415550132",
        "4716952653167635 fails its check digit",
        "GB82 WEST 1234 5698 7654 33 fails its check digits",
        "000-12-3456, 666-12-3456, 123-00-4567",
        "12345678A, X1234567A, RSSMRA85T10A562X, 529.982.247-26, 756.9217.0769.84, 1 84 12 76 451 089 45",
        "version 1.2.3.4, v10.20.30.40, 192.168.0.1, 127.0.0.1, 10.0.0.1, 999.1.1.1, 1.2.3.4.5",
        "std::vector, 12:30:45, ::1, fe80::1, a::b",
        "ISBN 978-3-16-148410-0",
        "3 5 12 44 100 200 300 4000",
        "48/2 = <<48/2=24>>24 and 1,000,000 - 250,000.00 = 750000",
        "pi is 3.14159265358979, e is 2.718281828",
        "AS6F-0123-45678, f47ac10b-58cc-4372-a567-0e02b2c3d479, deadbeef0123456789",
        "<EMAIL> <PHONE> <CARD> <IBAN> <NATIONAL_ID> <IP> <URL>",
    ],
)
def test_not_taken_for_personal_data(text: str) -> None:
    assert found(text) == []


def test_only_what_is_asked_for_is_found() -> None:
    text = "a@b.org, 415-555-0132, 4716952653167634, GB82WEST12345698765432, 531-21-7351, 8.8.8.8, www.b.org"
    assert [type for type, _ in found(text)] == ["email", "phone", "card", "iban", "national_id", "ip", "url"]
    for type in ALL:
        assert [finding.type for finding in PatternPersonalData([type]).find(text)][:1] == [type]


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("AKIA" + "QWERTYUIOPASDFGH", "aws_key"),
        ("ghp_" + BASE64[:36], "github_token"),
        ("github_pat_" + BASE64[:22] + "_" + BASE64[:59], "github_token"),
        ("glpat-" + BASE64[:20], "gitlab_token"),
        ("xoxb-" + "123456789012-" + BASE64[:24], "slack_token"),
        ("https://hooks.slack.com/services/" + "T00000000/B00000000/" + BASE64[:24], "slack_token"),
        ("AIza" + BASE64[:35], "google_key"),
        ("sk_live_" + BASE64[:24], "stripe_key"),
        ("sk-proj-" + BASE64[:48], "llm_key"),
        ("hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH", "huggingface_token"),
        ("npm_" + BASE64[:36], "npm_token"),
        ("pypi-" + "AgEI" + BASE64[:60], "pypi_token"),
        ("SG." + BASE64[:22] + "." + BASE64[:43], "sendgrid_key"),
        ("123456789:AA" + BASE64[:33], "telegram_token"),
        ("eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0." + BASE64[:43], "jwt"),
        ("-----BEGIN RSA PRIVATE KEY-----\n" + BASE64 + "\n-----END RSA PRIVATE KEY-----", "private_key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n" + BASE64, "private_key"),
    ],
)
def test_secrets_are_found_by_the_marks_of_their_issuers(text: str, type: str) -> None:
    around = f"use {text} here"
    assert SECRETS.suspects(around)
    (finding,) = SECRETS.find(around)
    assert (finding.type, around[finding.start : finding.end].strip()) == (type, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("postgres://app:Tr0ub4dor@db.internal:5432/x", "Tr0ub4dor"),
        ("password: aB3#fG7!kL9@", "aB3#fG7!kL9@"),
        ('API_KEY = "9f8e7d6c5b4a39281706"', "9f8e7d6c5b4a39281706"),
        ('{"client_secret": "Zx81-Qp7.Lm3_Rt5"}', "Zx81-Qp7.Lm3_Rt5"),
        ("DefaultEndpointsProtocol=https;AccountKey=" + BASE64[:86] + "==;", BASE64[:86] + "=="),
    ],
)
def test_assigned_secrets_are_found(text: str, value: str) -> None:
    assert [text[finding.start : finding.end] for finding in SECRETS.find(text)] == [value]


@pytest.mark.parametrize(
    "text",
    [
        "I forgot my password: please help, it was 12 letters",
        "password: ********, token: <TOKEN>, api_key=${API_KEY}, secret = os.environ['SECRET_2']",
        "api_key = 'YOUR_API_KEY_123', password=changeme123, token: abcdef1234567890",
        "https://user:password@example.com, https://b.org:8080/a@b",
        "skip-the-line-at-the-museum-with-4-friends, sk-learn, task-force",
        "the key: minimise 3x + 4y, monkey=banana12banana12banana12",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "commit 9f8e7d6c5b4a392817069f8e7d6c5b4a39281706 and a sha256 of " + "0123456789abcdef" * 4,
        "<AWS_KEY> <PASSWORD> <JWT> <PRIVATE_KEY> password=<PASSWORD>",
    ],
)
def test_not_taken_for_a_secret(text: str) -> None:
    assert SECRETS.find(text) == []


PARTS = (
    "a@b.org",
    "@",
    ".",
    "::",
    ":",
    "2a02",
    "8.8.8.8",
    "415",
    "-",
    " ",
    "555",
    "0132",
    "+41",
    "\n",
    "x",
    "٣",
    "www.",
    "https://",
)
WHOLE = (
    "4716952653167634",
    "GB82WEST12345698765432",
    "u:Pa5w0rdQ@h",
    "password=",
    "Xy7!kd92Lq",
    "AKIA" + "QWERTYUIOPASDFGH",
    "eyJ",
)
PIECES = st.sampled_from([*PARTS, *WHOLE, "hf_" + "a" * 34])


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(PIECES, max_size=12), before=st.text(max_size=20), after=st.text(max_size=20))
def test_a_quick_look_misses_nothing(pieces: list[str], before: str, after: str) -> None:
    text = "".join(pieces)
    for detector in (PERSONAL, SECRETS):
        findings = detector.find(text)
        if findings:
            assert detector.suspects(before + text + after)
        ends = [0, *(end for finding in findings for end in (finding.start, finding.end)), len(text)]
        assert ends == sorted(ends), "in order, and none over another"
        assert all(finding.start < finding.end for finding in findings)


@pytest.mark.parametrize(
    "text",
    [
        "1" * 200_000,
        "1 " * 100_000,
        "a@" * 100_000,
        "(1)" * 60_000,
        "a." * 90_000 + "@",
        "://:" * 50_000 + "@",
        "-----BEGIN PRIVATE KEY-----" * 7000,
        '{"a":[' + "4716952653167634," * 20000 + "0]}",
        "a@b.org 415-555-0132 " * 20000,
        "password=Xy7!kd92Lq " * 20000,
    ],
)
@pytest.mark.timeout(60)
def test_hostile_texts_take_no_longer_than_others(text: str) -> None:
    for detector in (PERSONAL, SECRETS):
        kept, marks = redact(text + " key=1", detector)
        assert kept.endswith(" key=1"), marks


@pytest.mark.parametrize(
    ("check", "valid"),
    [
        (check_digits.is_card, "4716952653167634"),
        (check_digits.is_iban, "GB82WEST12345698765432"),
        (check_digits.is_brazilian_cpf, "52998224725"),
        (check_digits.is_swiss_ahv, "7569217076985"),
        (check_digits.is_french_nir, "184127645108946"),
    ],
)
def test_every_wrong_digit_is_noticed(check: object, valid: str) -> None:
    assert check(valid)  # type: ignore[operator]
    for place, right in enumerate(valid):
        for wrong in "0123456789":
            if right.isdigit() and wrong != right:
                assert not check(valid[:place] + wrong + valid[place + 1 :])  # type: ignore[operator]


@pytest.mark.real
def test_marked_texts(real_data: Path) -> None:
    """All marked values of the types sought, and nothing else; for the table beside another library: bench/personal_data.py."""
    names = {
        "PHONE_NUMBER": "phone",
        "CREDIT_CARD": "card",
        "EMAIL_ADDRESS": "email",
        "IP_ADDRESS": "ip",
        "US_SSN": "national_id",
    }
    texts = json.loads((real_data / "pii" / "generated_small.json").read_text(encoding="utf-8"))
    detector = PatternPersonalData(sorted(set(names.values())))
    for item in texts:
        marked = {(span["start_position"], span["end_position"]) for span in item["spans"] if span["entity_type"] in names}
        assert {(finding.start, finding.end) for finding in detector.find(item["full_text"])} == marked


@pytest.mark.real
def test_ordinary_texts_hold_no_secrets(real_data: Path) -> None:
    texts = [json.loads(line)["answer"] for line in (real_data / "gsm8k" / "train.jsonl").open(encoding="utf-8")]
    texts += [
        row["output"] for row in json.loads((real_data / "formats_demo" / "alpaca_en_demo.json").read_text(encoding="utf-8"))
    ]
    assert not [text for text in texts if SECRETS.find(text)]
    assert not [text for text in texts[:7000] if PERSONAL.find(text)]
