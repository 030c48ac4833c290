"""What people bring: LLaMA-Factory's dataset_info.json and Axolotl's dataset types, as entries that read the rows they mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.curation.formats import Parts, read_fields, read_parts
from pipeline.params import IngestParams, SourceParams
from pipeline.params.axolotl import axolotl_entries
from pipeline.params.llama_factory import dataset_entries, local_datasets

USER = {"role": "user", "content": "q"}
SYSTEM = {"role": "system", "content": "s"}


def read(entry: dict[str, Any], row: dict[str, Any]) -> Parts:
    reading = SourceParams(**entry)
    assert reading.format != "auto"
    return read_parts(read_fields(row, reading), reading.format, reading)


def brought(said: dict[str, Any], **row: Any) -> Parts:
    [entry] = dataset_entries({"demo": {"file_name": "demo.json", **said}}, ["demo"], "data")
    assert entry["path"] == "data/demo.json"
    return read(entry, row)


ROLES = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


@pytest.mark.parametrize(
    ("said", "row", "input", "output"),
    [
        ({}, {"instruction": "q", "output": "a", "system": "unused"}, [USER], "a"),
        (
            {"columns": {"prompt": "question", "response": "response", "system": "system_prompt"}},
            {"question": "q", "response": "a", "system_prompt": "s", "input": "unused", "instruction": "unused"},
            [SYSTEM, USER],
            "a",
        ),
        ({"columns": {"prompt": "content"}}, {"content": "d"}, "", "d"),
        (
            {"formatting": "sharegpt"},
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "unused"},
            [USER],
            "a",
        ),
        (
            {"formatting": "sharegpt", "columns": {"messages": "chat", "system": "sys"}, "tags": ROLES},
            {"chat": [USER, {"role": "assistant", "content": "a"}], "sys": "s"},
            [SYSTEM, USER],
            "a",
        ),
        ({"formatting": "openai"}, {"messages": [USER, {"role": "assistant", "content": "a"}]}, [USER], "a"),
        (
            {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}},
            {"instruction": "q", "chosen": "a", "rejected": "b"},
            [USER],
            {"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]},
        ),
        (
            {
                "ranking": True,
                "formatting": "sharegpt",
                "columns": {"messages": "conversations", "chosen": "good", "rejected": "bad"},
            },
            {
                "conversations": [{"from": "human", "value": "q"}],
                "good": {"from": "gpt", "value": "a"},
                "bad": {"from": "gpt", "value": "b"},
            },
            [USER],
            {"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]},
        ),
        (
            {"formatting": "sharegpt", "columns": {"messages": "messages", "kto_tag": "label"}, "tags": ROLES},
            {"messages": [USER, {"role": "assistant", "content": "a"}], "label": False},
            [USER],
            {"answer": "a", "good": False},
        ),
        (
            {"columns": {"prompt": "prompt", "response": "completion", "kto_tag": "label"}},
            {"prompt": "q", "completion": "a", "label": True},
            [USER],
            {"answer": "a", "good": True},
        ),
    ],
)
def test_dataset_info(said: dict[str, Any], row: dict[str, Any], input: Any, output: Any) -> None:
    parts = brought(said, **row)
    assert (json.loads(parts.input) if parts.input else "") == input
    assert (parts.output if isinstance(output, str) else json.loads(parts.output)) == output


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"num_samples": 5}, "demo: the key 'num_samples' is not supported; supported are file_name"),
        ({"hf_hub_url": "x/y"}, "hf_hub_url names no local file"),
        ({"formatting": "xml"}, "formatting is 'xml'; supported are alpaca"),
        ({"columns": {"prompts": "x"}}, "columns has the key 'prompts'; supported are prompt"),
        ({"tags": {"bot_tag": "x"}}, "tags has the key 'bot_tag'; supported are role_tag"),
        ({"columns": {"prompt": 5}}, "columns must give names"),
        ({"ranking": "yes"}, "ranking must be true or false"),
        ({"split": "test"}, "split is 'test'"),
        ({"file_name": "../x.json"}, "file_name must name"),
        ({"file_name": "/etc/x.json"}, "file_name must name"),
    ],
)
def test_dataset_info_that_cannot_be_followed_is_an_error_that_names_the_key(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        brought(said)


def test_local_datasets_are_those_whose_file_is_there() -> None:
    info = {
        "here": {"file_name": "a.json"},
        "gone": {"file_name": "b.json"},
        "hub": {"hf_hub_url": "x/y", "file_name": "a.json"},
        "odd": 5,
        "words": {"file_name": "c.txt", "columns": {"prompt": "text"}},
    }
    assert local_datasets(info, {"a.json", "c.txt"}.__contains__) == ("here", "words")
    with pytest.raises(ValueError, match="no data set 'nope'; there are: 'here'"):
        dataset_entries(info, ["nope"], "")
    [entry] = dataset_entries(info, ["words"], "")
    assert (entry["path"], entry["format"], entry["sample_by"]) == ("c.txt", "text", "line")


def axolotl(said: dict[str, Any], **row: Any) -> Parts:
    [entry] = axolotl_entries([{"path": "data/x.jsonl", **said}])
    assert entry["path"] == "data/x.jsonl"
    return read(entry, row)


DIALOGUE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
PAIR = {"chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}


@pytest.mark.parametrize(
    ("said", "row", "input", "output"),
    [
        ({"type": "alpaca"}, {"instruction": "q", "output": "a", "system": "x"}, [USER], "a"),
        ({"type": "alpaca:chat", "train_on_eos": "turn"}, {"instruction": "q", "output": "a"}, [USER], "a"),
        (
            {"type": "alpaca_w_system.load_open_orca"},
            {"question": "q", "response": "a", "system_prompt": "s"},
            [SYSTEM, USER],
            "a",
        ),
        ({"type": "orcamini"}, {"question": "q", "response": "a", "system_prompt": ""}, [USER], "a"),
        ({"type": "alpaca_chat.load_qa"}, {"question": "q", "answer": "a"}, [USER], "a"),
        ({"type": "gpteacher"}, {"instruction": "q", "response": "a", "output": "x"}, [USER], "a"),
        ({"type": "oasst"}, {"INSTRUCTION": "q", "RESPONSE": "a"}, [USER], "a"),
        ({"type": "completion", "field": "body"}, {"body": "d"}, "", "d"),
        ({"type": "sharegpt"}, {"conversations": DIALOGUE}, [USER], "a"),
        (
            {
                "type": "chat_template",
                "field_messages": "conv",
                "message_property_mappings": {"role": "from", "content": "value"},
                "chat_template": "chatml",
            },
            {"conv": DIALOGUE},
            [USER],
            "a",
        ),
        (
            {
                "type": "chat_template",
                "message_field_role": "who",
                "message_field_content": "says",
                "roles": {"user": ["human", "client"], "assistant": ["gpt"]},
            },
            {"messages": [{"who": "client", "says": "q"}, {"who": "gpt", "says": "a"}]},
            [USER],
            "a",
        ),
        (
            {"type": "context_qa"},
            {"article": "A", "question": "Q", "answer": "a"},
            [{"role": "user", "content": "A\n===\nQ"}],
            "a",
        ),
        (
            {"type": "jeopardy"},
            {"question": "q", "category": "C", "answer": "a"},
            [{"role": "user", "content": "q\n\nC"}],
            "what is a",
        ),
        (
            {"type": {"field_instruction": "ask", "field_output": "say", "system_prompt": "s", "format": "[INST] {instruction}"}},
            {"ask": "q", "say": "a"},
            [SYSTEM, USER],
            "a",
        ),
        ({"type": "chatml.intel"}, {"question": "q", "system": "s", "chosen": "a", "rejected": "b"}, [SYSTEM, USER], PAIR),
        ({"type": "llama3.icr", "rl": "dpo"}, {"input": "q", "chosen": "a", "rejected": "b"}, [USER], PAIR),
        (
            {"type": "llama3.ultra"},
            {"prompt": "q", "chosen": [USER, *PAIR["chosen"]], "rejected": [USER, *PAIR["rejected"]]},
            [USER],
            PAIR,
        ),
        (
            {"type": "chatml.argilla_chat"},
            {"chosen": [USER, *PAIR["chosen"]], "rejected": [USER, *PAIR["rejected"]], "prompt": "unused"},
            [USER],
            PAIR,
        ),
        (
            {"type": "chat_template.default", "field_messages": "conv", "field_chosen": "good"},
            {"conv": [USER], "good": PAIR["chosen"][0], "rejected": PAIR["rejected"][0]},
            [USER],
            PAIR,
        ),
        (
            {"type": {"field_prompt": "ask", "field_chosen": "up", "field_rejected": "down"}},
            {"ask": "q", "up": "a", "down": "b"},
            [USER],
            PAIR,
        ),
        (
            {"type": "llama3.argilla"},
            {"instruction": "q", "completion": "a", "label": True},
            [USER],
            {"answer": "a", "good": True},
        ),
        (
            {"type": "chatml.ultra", "rl": "kto"},
            {"prompt": "q", "completion": "a", "label": False},
            [USER],
            {"answer": "a", "good": False},
        ),
        (
            {"type": "chatml.argilla_chat", "rl": "kto"},
            {"completion": [USER, *PAIR["chosen"]], "label": True},
            [USER],
            {"answer": "a", "good": True},
        ),
    ],
)
def test_axolotl_types(said: dict[str, Any], row: dict[str, Any], input: Any, output: Any) -> None:
    parts = axolotl(said, **row)
    assert (json.loads(parts.input) if parts.input else "") == input
    assert (parts.output if isinstance(output, str) else json.loads(parts.output)) == output


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"type": "reflection"}, "the type 'reflection' is not supported; supported: alpaca"),
        ({"type": "input_output"}, "'input_output' is not supported"),
        ({"type": "alpaca", "shards": 4}, "the key 'shards' is not supported; supported are path"),
        ({"type": {"field_instuction": "x"}}, "type has the key 'field_instuction'; supported are field_system"),
        ({"type": "chat_template", "roles": {"judge": ["x"]}}, "roles: supported are user"),
        ({"type": "chat_template", "roles": {"user": ["a", "b"]}}, "roles.user: one name besides"),
        ({"type": "chat_template", "roles_to_train": ["user"]}, "roles_to_train"),
        ({"type": "chat_template", "message_property_mappings": {"name": "x"}}, "message_property_mappings"),
        ({}, "type must be a name"),
        ({"type": "alpaca", "split": "test"}, "split is 'test'"),
        ({"type": "alpaca", "path": "https://x/y.jsonl"}, "web address"),
        ({"type": "alpaca", "path": "json"}, "needs data_files"),
        ({"type": "alpaca", "path": None}, "path is missing"),
    ],
)
def test_axolotl_entries_that_cannot_be_followed_are_errors_that_name_the_key(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        axolotl_entries([{"path": "data/x.jsonl", **said}])


@pytest.mark.parametrize(
    ("said", "ways"),
    [
        ({"path": "./data"}, [{"path": "./data"}]),
        ({"path": "data/x.jsonl"}, [{"path": "data/x.jsonl"}]),
        ({"path": "data/x", "ds_type": "json"}, [{"path": "data/x"}]),
        ({"path": "json", "data_files": ["a.json", "b.json"]}, [{"path": "a.json"}, {"path": "b.json"}]),
        ({"path": "data/", "ds_type": "json", "data_files": "a.json"}, [{"path": "data/a.json"}]),
        ({"path": "s3://b/x.jsonl"}, [{"objects": "s3://b/x.jsonl"}]),
        (
            {"path": "owner/name", "revision": "0" * 40, "split": "train"},
            [{"hub": "owner/name", "revision": "0" * 40, "split": "train"}],
        ),
    ],
)
def test_axolotl_paths_are_ways_in(said: dict[str, Any], ways: list[dict[str, str]]) -> None:
    entries = axolotl_entries([{"type": "alpaca", **said}])
    assert [{key: e[key] for key in e if key not in ("format", "columns")} for e in entries] == ways
    assert all(SourceParams(**entry) for entry in entries)


def test_an_axolotl_list_stands_for_its_entries_in_params() -> None:
    listed = [{"path": "a.jsonl", "type": "alpaca"}, {"path": "b.jsonl", "type": "completion"}]
    params = IngestParams(sources=["inbox", {"axolotl": listed, "license": "MIT"}])
    assert [entry if isinstance(entry, str) else (entry.path, entry.format, entry.license) for entry in params.sources] == [
        "inbox",
        ("a.jsonl", "alpaca", "MIT"),
        ("b.jsonl", "text", "MIT"),
    ]
    assert IngestParams.model_validate_json(params.model_dump_json()) == params
    for wrong, message in [({"axolotl": listed, "format": "chat"}, "not format"), ({"axolotl": 5}, "give a list")]:
        with pytest.raises(ValueError, match=message):
            IngestParams(sources=[wrong])
