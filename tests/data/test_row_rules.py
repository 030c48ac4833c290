"""The rules of `clean`: what each does to a row, that JSON stays JSON, that once is enough, and that nothing private is kept."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.formats import Parts, read_parts
from pipeline.curation.lines import RAW_CAP
from pipeline.curation.placeholders import find_placeholders
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.row_rules import RowRules
from pipeline.domain.data import example_id
from pipeline.params.ingest import CleanParams, Reading
from pipeline.wiring import row_rules

AWS = "AKIA" + "QWERTYUIOPASDFGH"  # In two pieces, lest a scanner of this repository take it for one.
TYPES = ("email", "phone", "card", "iban", "national_id", "ip", "url")


def rules(**clean: Any) -> RowRules:
    return row_rules(CleanParams(**clean))


def read(format: str = "prompt_completion", group_by: str | None = None, **row: Any) -> Parts:
    return read_parts(row, format, Reading(group_by=group_by))


def answer(text: str) -> Parts:
    return read(prompt="why?", completion=text)


def apply_unless_blank(cleaner: RowRules, parts: Parts) -> Parts | None:
    """The cleaned parts; None when nothing that can be seen was in a text. No other refusal is let pass."""
    try:
        return cleaner.apply(parts)
    except Rejected as refusal:
        if refusal.code is not Code.BLANK:
            raise
        return None


@pytest.mark.parametrize(
    ("clean", "text", "wanted", "altered"),
    [
        ({}, "plain, with\ttabs\r\nand lines", "plain, with\ttabs\r\nand lines", {}),
        ({}, "e\u0301", "é", {"normalised": 1}),
        ({}, "ﬁne", "ﬁne", {}),
        ({"unicode": "nfkc"}, "ﬁne １２", "fine 12", {"normalised": 1}),
        ({"unicode": "off"}, "e\u0301", "e\u0301", {}),
        ({}, "a\x07b\x7fc\x9d", "abc", {"stripped_controls": 1}),
        ({}, "one\x0ctwo\u2028three\x85four", "one\ntwo\nthree\nfour", {"stripped_controls": 1}),
        ({}, "evil\u202e txt.exe", "evil txt.exe", {"stripped_controls": 1}),
        ({}, "ze\u200bro \u2060wi\ufeffdth so\u00adft", "zero width soft", {"stripped_controls": 1}),
        (
            {},
            "Z\u0351\u036b\u0343\u032a\u0302\u036b\u033dA\u0334\u0335\u031c\u0330\u0354\u0344!",
            "ZA!",
            {"stripped_controls": 1},
        ),
        ({}, "hi\U000e0068\U000e0069\U000e007f", "hi", {"stripped_controls": 1}),
        ({}, "a\ufe01\ufe02\ufe03b", "ab", {"stripped_controls": 1}),
        ({}, "p\u200daypal", "paypal", {"stripped_controls": 1}),
        ({}, "e\u200b\u0301", "é", {"stripped_controls": 1, "normalised": 1}),
        ({"control_characters": "off"}, "a\x07b", "a\x07b", {}),
        ({}, "Dear {{Name}}, [INSERT DATE]", "Dear {{Name}}, [INSERT DATE]", {"warned.placeholder": 2}),
        ({"placeholders": "off"}, "Dear {{Name}}", "Dear {{Name}}", {}),
        ({}, f"use {AWS}", f"use {AWS}", {"warned.aws_key": 1}),
        ({"secrets": "redact"}, f"use {AWS}", "use <AWS_KEY>", {"redacted.aws_key": 1}),
        ({}, "mail a@b.org", "mail a@b.org", {}),
        ({"personal_data": "warn"}, "mail a@b.org", "mail a@b.org", {"warned.email": 1}),
        ({"personal_data": "redact"}, "a@b.org or c@d.org", "<EMAIL> or <EMAIL>", {"redacted.email": 2}),
        ({"personal_data": "redact", "personal_types": ("phone",)}, "a@b.org", "a@b.org", {}),
        ({"personal_data": "redact"}, "call +41 44 668 18 00", "call <PHONE>", {"redacted.phone": 1}),
        ({"personal_data": "redact"}, "a@\u200bb.org", "<EMAIL>", {"redacted.email": 1, "stripped_controls": 1}),
    ],
)
def test_a_text_ends_as(clean: dict[str, Any], text: str, wanted: str, altered: dict[str, int]) -> None:
    cleaner = rules(**clean)
    parts = cleaner.apply(answer(text))
    assert parts.output == wanted
    assert cleaner.take_altered() == dict(sorted(altered.items()))
    assert cleaner.take_altered() == {}
    assert parts.id == example_id(parts.input, parts.output)


@pytest.mark.parametrize(
    "text",
    [
        "می‌خواهم",
        "क्‍ष",
        "👩‍👩‍👧 ❤️ 1️⃣",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "Tiếng Việt",
        "שָׁל֑וֹם",
        "葛\U000e0100",
    ],
    ids=["persian", "hindi", "emoji", "flag", "vietnamese", "hebrew", "ideograph"],
)
def test_what_a_language_or_a_font_needs_stays(text: str) -> None:
    assert rules(unicode="off").apply(answer(text)).output == text


@pytest.mark.parametrize(
    ("clean", "row", "code"),
    [
        ({"control_characters": "refuse"}, {"completion": "a\u202eb"}, Code.CONTROL),
        ({"placeholders": "refuse"}, {"completion": "Dear [Your Name]"}, Code.PLACEHOLDER),
        ({"personal_data": "refuse"}, {"completion": "a@b.org"}, Code.PERSONAL_DATA),
        ({"personal_data": "refuse"}, {"contact": "a@b.org"}, Code.PERSONAL_DATA),
        ({"secrets": "refuse"}, {"completion": AWS}, Code.SECRET),
        ({}, {"completion": "\u200b\u2060"}, Code.BLANK),
        ({}, {"prompt": "\ufeff"}, Code.BLANK),
        ({}, {"note": "1", "no\u200bte": "2"}, Code.DUPLICATE_KEY),
    ],
)
def test_a_row_is_refused(clean: dict[str, Any], row: dict[str, str], code: Code) -> None:
    cleaner = rules(**clean)
    with pytest.raises(Rejected) as refusal:
        cleaner.apply(read(**{"prompt": "why?", "completion": "so", **row}))
    assert refusal.value.code == code
    assert cleaner.take_altered() == {}, "what is refused counts as quarantined, not as altered"


def test_a_refusal_tells_types_and_counts_and_no_more() -> None:
    with pytest.raises(Rejected) as refusal:
        rules(personal_data="refuse").apply(read(prompt="a@b.org", completion="c@d.org or 415-555-0132", meta="e@f.org"))
    assert refusal.value.reason == "holds 3 email, 1 phone; its text is not kept"


def test_a_row_without_anything_to_do_comes_back_itself() -> None:
    parts = read(prompt="Grüße, 30 Kisten?", completion="Yes: 12, by 2024-05-06.", week="7")
    assert rules(personal_data="redact", secrets="redact").apply(parts) is parts


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("classification", {"text": "a@b.org", "label": "spam"}),
        (
            "chat",
            {
                "messages": [
                    {"role": "system", "content": "a@b.org"},
                    *({"role": r, "content": "a@b.org"} for r in ("user", "assistant")),
                ]
            },
        ),
        ("preference", {"prompt": "a@b.org", "chosen": "say a@b.org", "rejected": "no a@b.org"}),
        ("feedback", {"prompt": "a@b.org", "completion": "a@b.org", "label": True}),
        ("text", {"text": "write to a@b.org"}),
        ("prompt", {"prompt": "a@b.org"}),
    ],
)
def test_texts_change_and_json_does_not(format: str, row: dict[str, Any]) -> None:
    before = read(format, **row, contact="a@b.org")
    after = rules(personal_data="redact").apply(before)
    for column in ("input", "output", "meta"):
        assert getattr(after, column) == getattr(before, column).replace("a@b.org", "<EMAIL>")
    assert (after.kind, after.id) == (before.kind, example_id(after.input, after.output))
    assert "a@b.org" not in "".join(after)


def test_numbers_in_tool_calls_are_looked_at() -> None:
    call = {"name": "pay", "arguments": {"card": 4716952653167634, "cents": 1500, "note": "for a@b.org"}}
    output = json.dumps({"content": "", "tool_calls": [{"type": "function", "function": call}]})
    before = Parts("0" * 32, "1" * 32, '[{"content":"pay","role":"user"}]', output, "{}", "call")
    made = json.loads(rules(personal_data="redact").apply(before).output)["tool_calls"][0]["function"]["arguments"]
    assert made == {"card": "<CARD>", "cents": 1500, "note": "for <EMAIL>"}


def test_an_answer_that_is_json_stays_json() -> None:
    text = '{"mail": "a@b.org", "card": 4716952653167634, "log": "key \\"' + AWS + '\\" leaked", "n": [1, 2]}'
    made = rules(personal_data="redact", secrets="redact").apply(answer(text)).output
    assert json.loads(made) == {"mail": "<EMAIL>", "card": "<CARD>", "log": 'key "<AWS_KEY>" leaked', "n": [1, 2]}


def test_a_group_follows_the_input_that_made_it_and_no_other() -> None:
    cleaner = rules(personal_data="redact")
    one, two = (cleaner.apply(read(prompt=f"I am {who}@b.org", completion=who)) for who in ("ada", "bob"))
    assert one.group == two.group
    apart = [cleaner.apply(read(group_by="who", prompt="hi", completion="ho", who=f"{who}@b.org")) for who in ("ada", "bob")]
    assert apart[0].group != apart[1].group, "or all customers would become one"
    assert apart[0].meta == apart[1].meta == '{"who":"<EMAIL>"}'


UNSEEN = "\x00\x1f\x85\u00ad\u200b\u200c\u200d\u202e\ufeff\ufe0f\u0338\u0344\u037a\u3164\U000e0067"
NASTY = UNSEEN + 'aé \n①ﬁ👩❤\U0001f3f4{}[]"\\:,<>@.-170'
PRIVATE = (
    "a@b.org",
    "415-555-0132",
    "+41446681800",
    "4716952653167634",
    "GB82WEST12345698765432",
    "531-21-7351",
    "8.8.8.8",
    "2a02::1",
)
SECRET = (AWS, "https://u:Pa5w0rdQ@h.org/x", "password=Xy7!kd92Lq")
PIECES = st.sampled_from(
    [*NASTY, "e\u0301", "\u0301" * 4, "\u0344" * 3, *PRIVATE, *SECRET, "<EMAIL>", "<PHONE>", "{{name}}", "www.b.org"]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=24).map("".join), st.text(max_size=40)).filter(str.strip)


@settings(max_examples=300, deadline=None)
@given(texts=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), form=st.sampled_from(["nfc", "nfkc", "off"]))
def test_twice_changes_no_more_than_once(texts: tuple[str, str, str, str], form: Any) -> None:
    system, prompt, said, note = texts
    turns = [{"role": "system", "content": system}, {"role": "user", "content": prompt}, {"role": "assistant", "content": said}]
    cleaner = rules(unicode=form, personal_data="redact", secrets="redact", personal_types=TYPES)
    once = apply_unless_blank(cleaner, read("chat", messages=turns, note=note))
    if once is None:
        return
    cleaner.take_altered()
    assert cleaner.apply(once) is once
    assert not {name for name in cleaner.take_altered() if name != "warned.placeholder"}
    assert [turn["role"] for turn in json.loads(once.input)] == ["system", "user"]
    assert set(json.loads(once.meta)) <= {"note"}


def test_rules_survive_pickling() -> None:
    cleaner = pickle.loads(pickle.dumps(rules(personal_data="redact")))
    assert cleaner.apply(answer("a@b.org")).output == "<EMAIL>"


def test_quarantine_and_snapshot_hold_nothing_private(bench: Any) -> None:
    bench.put(
        "rows.jsonl",
        '{"prompt": "I am ada@secret.org", "completion": "hi"}\n'
        '{"prompt": "broken ada@secret.org", "completion": \n'
        '{"prompt": "broken ada\\u0040secret.org", "completion": "\n'
        '{"prompt": "no answer", "completion": "", "from": "ada@secret.org"}\n'
        '{"prompt": "key ' + AWS + '", "completion": "hi"}\n'
        '{"prompt": "fine", "completion": "hi"}\n',
    )
    bench.put("latin.jsonl", b'{"prompt": "caf\xe9 ada@secret.org", "completion": "hi"}\n')
    snapshot = bench.take(rules=rules(personal_data="refuse", secrets="refuse"))
    assert snapshot.rows == 1
    assert sorted(bench.codes) == ["bad_json", "bad_json", "bad_utf8", "blank", "personal_data", "secret"]
    for row in bench.quarantine:
        if row.code in ("personal_data", "secret", "bad_utf8"):
            assert (row.raw, bool(row.raw_bytes)) == ("", True)
        else:
            assert "<EMAIL>" in row.raw
    everything = b"".join(bench.bytes_of_snapshot().values()) + "".join(str(example) for example in bench.examples).encode()
    for private in (b"secret.org", AWS.encode(), b"YWRhQHNlY3JldC5vcmc"):
        assert private not in everything


def test_half_a_finding_at_the_end_of_what_is_kept_is_left_out(bench: Any) -> None:
    start = '{"prompt": "'
    long = start + "x" * (RAW_CAP - len(start) - 8) + " ada.byron@secret.org" + "x" * 100
    bench.put("rows.jsonl", long + "\n" + '{"prompt": "a", "completion": "b"}\n')
    bench.take(rules=rules(personal_data="redact"))
    (row,) = bench.quarantine
    assert row.raw.startswith(start + "xxx")
    assert "ada" not in row.raw
    assert row.raw_bytes == len(long)


def test_what_rules_did_is_counted_by_source(bench: Any) -> None:
    bench.put("a.jsonl", [{"prompt": "mail a@b.org", "completion": "c@d.org {{x}}"}, {"prompt": "e\u0301", "completion": "x"}])
    bench.put("b.jsonl", [{"prompt": "plain", "completion": "words"}])
    snapshot = bench.take(rules=rules(personal_data="redact"))
    assert [source.altered for source in snapshot.sources] == [
        {"normalised": 1, "redacted.email": 2, "warned.placeholder": 1},
        {},
    ]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_nul_in_metadata_never_comes_in(bench: Any, kind: str) -> None:
    if kind == "jsonl":
        bench.put(
            "rows.jsonl", [{"prompt": "a", "completion": "b", "note": "x\0y"}, {"prompt": "c", "completion": "d", "note": "z"}]
        )
    elif kind == "csv":
        bench.put("rows.csv", "prompt,completion,note\na,b,x\0y\nc,d,z\n")
    else:
        table = pa.table({"prompt": ["a", "c"], "completion": ["b", "d"], "note": ["x\0y", "z"]})
        pq.write_table(table, bench.inbox / "rows.parquet")
    bench.take(rules=rules())
    assert bench.codes == ["nul"]
    assert [example.meta for example in bench.examples] == ['{"note":"z"}']


def test_lone_surrogates_never_come_in(bench: Any) -> None:
    bench.put("rows.jsonl", '{"prompt": "a \\ud800", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    bench.take(rules=rules())
    assert bench.codes == ["lone_surrogate"]


@pytest.mark.real
def test_naughty_strings_come_out_clean_and_stay_so(real_data: Path) -> None:
    cleaner, strange = rules(personal_data="redact", secrets="redact"), "\u202e\u200b\ufeff\u2066\x07\x00"
    for path in sorted((real_data / "naughty_strings").glob("*.json")):
        for text in json.loads(path.read_text(encoding="utf-8")):
            if not text.strip() or "\0" in text:
                continue
            once = apply_unless_blank(cleaner, answer(text))
            if once is not None:
                assert not set(strange) & set(once.output)
                assert cleaner.apply(once) is once


@pytest.mark.real
def test_ordinary_data_is_left_alone(real_data: Path) -> None:
    cleaner = rules(secrets="refuse", placeholders="refuse")
    lines = (real_data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:2000]
    for line in lines:
        row = json.loads(line)
        cleaner.apply(read(prompt=row["question"], completion=row["answer"]))
    assert set(cleaner.take_altered()) <= {"normalised", "stripped_controls"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Dear {{Customer Name}}, your {{order.id}} is due.", ["{{Customer Name}}", "{{order.id}}"]),
        ("Hi [Your Name], on [INSERT DATE] or [date and time]", ["[Your Name]", "[INSERT DATE]", "[date and time]"]),
        ("Hi <your name>, from <company name>", ["<your name>", "<company name>"]),
        ("Lorem ipsum dolor", ["Lorem ipsum"]),
        ("Use `{{ value }}` or\n```\n<p>{{ name }}</p> [NAME]\n```", []),
        ("see [your account](https://b.org) and [1], [x for x in names], ${HOME}, <name>, {name}", []),
        ("[Your table is ready. Please come.]", []),
        ("<EMAIL> <PHONE> <AWS_KEY>", []),
    ],
)
def test_leftovers_of_templates(text: str, found: list[str]) -> None:
    assert find_placeholders(text) == found
