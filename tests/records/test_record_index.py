"""The record index: what is in a shard is found, by id and by text, and nothing else; what it is made of names nobody."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from record_kit import KEY, example

from pipeline.backends.record_index import FileIndex, build
from pipeline.backends.record_key import project_key
from pipeline.curation.formats import level
from pipeline.curation.row_texts import row_texts
from pipeline.domain.data import messages_to_input
from pipeline.domain.privacy import asked, keyed, text_name
from pipeline.errors import Broken, Misuse


def rows(index: FileIndex, name: str, *records: str) -> list[int]:
    return index.rows(name, [asked(KEY, record, level).digest for record in records])


def test_every_row_is_found_by_id_by_prompt_and_by_answer(make_snapshot: Any, make_index: Any) -> None:
    examples = [example(i) for i in range(40)]
    folder, snapshot = make_snapshot(examples[:25], examples[25:])
    index = make_index(folder, snapshot)
    for number, one in enumerate(examples):
        shard, row = (0, number) if number < 25 else (1, number - 25)
        name = snapshot.shards[shard].sha256[:16]
        for record in (one.id, json.loads(one.input)[0]["content"], one.output, f"  {one.output.upper()}\n"):
            assert rows(index, name, record) == [row], record
            assert rows(index, snapshot.shards[1 - shard].sha256[:16], record) == []


def test_rows_that_share_a_text_are_all_found_and_several_records_at_once(make_snapshot: Any, make_index: Any) -> None:
    examples = [example(i, output="Thank you." if i % 3 == 0 else f"No {i}.") for i in range(20)]
    folder, snapshot = make_snapshot(examples)
    index, name = make_index(folder, snapshot), snapshot.shards[0].sha256[:16]
    shared = [i for i in range(20) if i % 3 == 0]
    assert rows(index, name, "thank you.") == shared
    assert rows(index, name, examples[4].id, "Thank You.", examples[3].id) == sorted({4, *shared})
    assert index.rows(name, []) == []


def test_the_index_holds_no_text_and_no_id_and_another_key_finds_nothing(
    make_snapshot: Any, make_index: Any, tmp_path: Path
) -> None:
    examples = [example(i) for i in range(10)]
    folder, snapshot = make_snapshot(examples)
    make_index(folder, snapshot)
    (path,) = (tmp_path / "index").glob("*.idx")
    content = path.read_bytes()
    for one in examples:
        for trace in (one.output.encode(), one.id.encode(), bytes.fromhex(one.id)):
            assert trace not in content
    other = FileIndex(tmp_path / "index", bytes(32))
    assert not other.has(path.stem)
    with pytest.raises(Broken, match="not indexed"):
        other.rows(path.stem, [keyed(bytes(32), examples[0].id)])


def test_the_same_shard_makes_the_same_bytes_and_a_cut_index_is_made_again(
    make_snapshot: Any, make_index: Any, tmp_path: Path
) -> None:
    folder, snapshot = make_snapshot([example(i) for i in range(30)])
    index, name = make_index(folder, snapshot), snapshot.shards[0].sha256[:16]
    path = tmp_path / "index" / f"{name}.idx"
    whole = path.read_bytes()
    build(folder / snapshot.shards[0].path, tmp_path / "again.idx", KEY)
    assert (tmp_path / "again.idx").read_bytes() == whole
    path.write_bytes(whole[:-3])
    assert not index.has(name)
    index.add(name, folder / snapshot.shards[0].path)
    assert path.read_bytes() == whole


@given(st.integers(0, 2**63), st.lists(st.binary(min_size=16, max_size=16), max_size=60))
def test_digests_are_in_order_whatever_their_first_bytes(seed: int, digests: list[bytes]) -> None:
    import numpy as np

    from pipeline.backends.record_index import _in_order

    same_half = [seed.to_bytes(8, "big") + one[8:] for one in digests]
    for given_digests in (digests, same_half):
        keys = np.frombuffer(b"".join(given_digests), "S16")
        ordered = [bytes(given_digests[i]) for i in _in_order(keys)]
        assert ordered == sorted(given_digests)


def test_the_texts_of_a_row_of_each_kind() -> None:
    asked_for = [{"content": "be kind", "role": "system"}, {"content": "hello", "role": "user"}]
    chat = messages_to_input(asked_for)
    tools = json.dumps({"messages": asked_for, "tools": [{"name": "secret tool"}]})
    reply = [{"content": "hi", "role": "assistant"}]
    call = {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"who": "Ann", "and": [{"who": "Bob"}, 5]}}}]}
    cases = {
        "answer": ((chat, "hi"), ["hello", "hi"]),
        "call": ((tools, json.dumps(call)), ["hello", "Ann", "Bob"]),
        "label": (("[a text that looks like JSON", "spam"), ["[a text that looks like JSON"]),
        "preference": ((chat, json.dumps({"chosen": reply, "rejected": reply})), ["hello", "hi"]),
        "feedback": ((chat, json.dumps({"answer": "hi", "good": True})), ["hello", "hi"]),
        "ranking": ((chat, json.dumps({"answers": ["a", "b"]})), ["hello", "a", "b"]),
        "text": (("", "a document"), ["a document"]),
        "prompt": ((chat, ""), ["hello"]),
    }
    for kind, (columns, texts) in cases.items():
        assert row_texts(*columns, kind) == texts, kind


def test_the_key_is_made_once_is_private_and_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    key = project_key(path)
    assert len(key) == 32
    assert project_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["key"]
    assert project_key(path, SecretStr("ab" * 32)) == b"\xab" * 32
    for wrong in ("ab", "zz" * 32, ""):
        with pytest.raises(Misuse, match="TUNELINE_RECORD_KEY"):
            project_key(path, SecretStr(wrong))
    path.write_bytes(key[:5])
    with pytest.raises(Broken, match="damaged"):
        project_key(path)


def test_what_a_record_may_be() -> None:
    id = example(1).id
    assert asked(KEY, id, level).kind == "id"
    assert asked(KEY, f" {id}\n", level) == asked(KEY, id, level)
    by_text = asked(KEY, "Some  Text", level)
    assert by_text.digest == keyed(KEY, text_name("some text"))
    assert asked(KEY, f"keyed:{by_text.digest}", level).digest == by_text.digest
    for wrong in ("", " \n", "keyed:12", "keyed:" + "g" * 32):
        with pytest.raises(Misuse):
            asked(KEY, wrong, level)
