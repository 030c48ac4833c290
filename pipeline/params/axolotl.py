"""Axolotl's `datasets` entries as entries of ingest.sources, by the names of their `type`: people can bring what they have.

Pure: an entry as their YAML has it in, one as params would spell it out. What is about rendering (chat templates, prompt formats,
which tokens end a turn) is left out, since here the base model's chat template does that; whatever else is not understood is an
error that names the key. Checked against Axolotl 0.19 (prompt_strategies/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_INSTRUCTION = {"instruction": "instruction", "input": "input", "output": "output", "system": ""}
_ALPACA: dict[str, dict[str, str]] = {
    "alpaca": _INSTRUCTION,
    "alpaca_chat": _INSTRUCTION,
    "alpaca_instruct": _INSTRUCTION,
    "alpaca_w_system": _INSTRUCTION | {"system": "system"},
    "alpaca_w_system.load_open_orca": {"instruction": "question", "output": "response", "system": "system_prompt", "input": ""},
    "alpaca_chat.load_qa": {"instruction": "question", "output": "answer", "system": "", "input": ""},
    "alpaca_chat.load_camel_ai": {"instruction": "message_1", "output": "message_2", "system": "", "input": ""},
    "gpteacher": _INSTRUCTION | {"output": "response"},
    "oasst": {"instruction": "INSTRUCTION", "output": "RESPONSE", "system": "", "input": ""},
    "summarizetldr": {"instruction": "article", "output": "summary", "system": "", "input": ""},
    "nomic_gpt4all": {"instruction": "prompt", "output": "response", "system": "", "input": ""},
}
"""Types whose rows are an instruction and its answer: our fields, and theirs; '' where there is none."""
_SAME = {
    "alpaca_chat.load_concise": "alpaca",
    "alpaca_chat.load_no_prompt": "alpaca",
    "alpaca_instruct.load_no_prompt": "alpaca",
    "alpaca_w_system.load_instruct": "alpaca_w_system",
    "alpaca_w_system.load_chat": "alpaca_w_system",
    "alpaca_w_system.load_open_orca_chatml": "alpaca_w_system.load_open_orca",
    "orcamini": "alpaca_w_system.load_open_orca",
}
_COMPOSED: dict[str, dict[str, str]] = {
    "context_qa": {"instruction": "{article}\n===\n{question}", "output": "{answer}"},
    "context_qa.load_v2": {"instruction": "Context: {context}\nQuestion: {question}\n", "output": "Answer: {answer}"},
    "jeopardy": {"instruction": "{question}\n\n{category}", "output": "what is {answer}"},
}
"""Types whose rows are put together from several fields."""
_PAIRS: dict[str, dict[str, str]] = {
    "default": {},
    "argilla_chat": {"prompt": ""},
    "icr": {"prompt": "input"},
    "intel": {"prompt": "question"},
    "prompt_pairs": {},
    "ultra": {},
}
_FEEDBACK: dict[str, dict[str, str]] = {
    "argilla": {"prompt": "instruction"},
    "argilla_chat": {"prompt": ""},
    "intel": {"prompt": "question"},
    "prompt_pairs": {},
    "ultra": {},
}
_FAMILIES = ("chatml", "llama3", "chat_template")
_KTO_ONLY = ("argilla",)

_RENDERING = (
    "chat_template",
    "chat_template_jinja",
    "conversation",
    "train_on_eos",
    "train_on_eot",
    "train_on_inputs",
    "trust_remote_code",
    "preprocess_shards",
)
"""Keys that say nothing about what a row means."""
_SOURCE = ("path", "type", "ds_type", "data_files", "revision", "split", "rl")
_MESSAGES = (
    "field_messages",
    "field_tools",
    "field_chosen",
    "field_rejected",
    "message_property_mappings",
    "message_field_role",
    "message_field_content",
    "roles",
    "roles_to_train",
)
_DEFINED = {
    "field_system": "system",
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "field_prompt": "prompt",
    "field_chosen": "chosen",
    "field_rejected": "rejected",
    "field_completion": "completion",
    "field_label": "label",
}
_FORMS = ("format", "no_input_format", "system_format", "prompt_format", "chosen_format", "rejected_format", "completion_format")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILE = re.compile(r"\.[a-z]{2,7}(\.gz|\.zst)?$")
_ROLES = {"user": {"user", "human"}, "assistant": {"assistant", "gpt"}, "system": {"system"}, "tool": {"tool", "observation"}}
_TAG_OF = {"user": "user_tag", "assistant": "assistant_tag", "system": "system_tag", "tool": "observation_tag"}


def axolotl_entries(datasets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries of ingest.sources that a list of Axolotl's data sets stands for. A key `rl`, which Axolotl has beside the list,
    says dpo (the default) or kto where a type's name alone does not.

    Raises ValueError naming the entry and the key that cannot be understood.
    """
    if not isinstance(datasets, Sequence) or isinstance(datasets, str):
        raise ValueError("axolotl: give a list, as `datasets` in its YAML")
    entries: list[dict[str, Any]] = []
    for number, said in enumerate(datasets, start=1):
        place = f"axolotl entry {number}"
        if not isinstance(said, Mapping):
            raise ValueError(f"{place}: this is no entry with a path and a type")
        if unknown := [key for key in said if key not in (*_RENDERING, *_SOURCE, *_MESSAGES, "field")]:
            known = ", ".join((*_SOURCE, *_MESSAGES, "field"))
            raise ValueError(f"{place}: the key {unknown[0]!r} is not supported; supported are {known}")
        reading = _reading(said, place)
        entries += [{**way, **reading} for way in _ways_in(said, place)]
    return entries


def _reading(said: Mapping[str, Any], place: str) -> dict[str, Any]:
    type, rl = said.get("type"), said.get("rl")
    if isinstance(type, Mapping):
        return _defined(type, rl, place)
    if not isinstance(type, str):
        raise ValueError(f"{place}: type must be a name, or the fields of a type of your own")
    name = type.split(":")[0]
    name = _SAME.get(name, name)
    if name in _ALPACA:
        return {"format": "alpaca", "columns": _ALPACA[name]}
    if name in _COMPOSED:
        return {"format": "alpaca", "compose": _COMPOSED[name], "columns": {"input": "", "system": ""}}
    if name in ("completion", "pretrain"):
        return {"format": "text", "columns": {"text": str(said.get("field", "text"))}}
    if name in ("chat_template", "sharegpt") and rl is None:
        return _messages(said, name, place)
    family, _, form = name.partition(".")
    if family in _FAMILIES and rl != "kto" and form in _PAIRS:
        return _pairs(said, family, form, place)
    if family in _FAMILIES and (rl == "kto" or form in _KTO_ONLY) and form in _FEEDBACK:
        return {"format": "feedback", "columns": _FEEDBACK[form]}
    known = [*_ALPACA, *_SAME, *_COMPOSED, "completion", "pretrain", "chat_template", "sharegpt"]
    known += [f"{family}.{form}" for family in _FAMILIES for form in {**_PAIRS, **_FEEDBACK}]
    raise ValueError(
        f"{place}: the type {type!r} is not supported{' with rl ' + str(rl) if rl else ''}; supported: {', '.join(known)}"
    )


def _messages(said: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    if said.get("roles_to_train", ["assistant"]) not in (["assistant"], ["gpt"], ["assistant", "gpt"], ["gpt", "assistant"]):
        raise ValueError(f"{place}: roles_to_train: only the assistant's last message is trained on")
    ours, usual = ("messages", "messages") if name == "chat_template" else ("conversations", "conversations")
    columns = {ours: str(said.get("field_messages", usual))}
    if "field_tools" in said:
        columns["tools"] = str(said["field_tools"])
    format = "chat" if name == "chat_template" else "sharegpt"
    return {"format": format, "columns": columns, **_tags(said, place)}


def _pairs(said: Mapping[str, Any], family: str, form: str, place: str) -> dict[str, Any]:
    columns = dict(_PAIRS[form])
    if family == "chat_template" and form == "default":
        columns["messages"] = str(said.get("field_messages", "messages"))
        columns["prompt"] = ""
    for field in ("chosen", "rejected"):
        if f"field_{field}" in said:
            columns[field] = str(said[f"field_{field}"])
    return {"format": "preference", "columns": columns, **_tags(said, place)}


def _defined(type: Mapping[str, Any], rl: Any, place: str) -> dict[str, Any]:
    """A type of people's own: names of fields. Its formats are rendering, which the chat template does."""
    if unknown := [key for key in type if key not in (*_DEFINED, *_FORMS, "system_prompt")]:
        raise ValueError(f"{place}: type has the key {unknown[0]!r}; supported are {', '.join((*_DEFINED, 'system_prompt'))}")
    columns = {_DEFINED[key]: str(value) for key, value in type.items() if key in _DEFINED and value}
    entry: dict[str, Any] = {"columns": columns}
    if type.get("system_prompt"):
        entry["constants"] = {"system": str(type["system_prompt"])}
    if "chosen" in columns or "rejected" in columns or rl in ("dpo", "orpo", "ipo"):
        return entry | {"format": "preference"}
    if "completion" in columns or "label" in columns or rl == "kto":
        return entry | {"format": "feedback"}
    return entry | {"format": "alpaca"}


def _tags(said: Mapping[str, Any], place: str) -> dict[str, Any]:
    mapping = said.get("message_property_mappings") or {}
    if not isinstance(mapping, Mapping) or set(mapping) - {"role", "content"}:
        raise ValueError(f"{place}: message_property_mappings: supported are role and content")
    tags: dict[str, str] = {}
    for key in ("role", "content"):
        if name := mapping.get(key, said.get(f"message_field_{key}")):
            tags[f"{key}_tag"] = str(name)
    roles = said.get("roles") or {}
    if not isinstance(roles, Mapping) or set(roles) - set(_TAG_OF):
        raise ValueError(f"{place}: roles: supported are {', '.join(_TAG_OF)}, each with a list of names")
    for role, names in roles.items():
        new = [str(name) for name in ([names] if isinstance(names, str) else names) if name not in _ROLES[role]]
        if len(new) > 1:
            raise ValueError(f"{place}: roles.{role}: one name besides {' and '.join(sorted(_ROLES[role]))} is supported")
        if new:
            tags[_TAG_OF[role]] = new[0]
    return {"tags": tags} if tags else {}


def _ways_in(said: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    path, files, split = said.get("path"), said.get("data_files"), said.get("split")
    if not isinstance(path, str) or not path:
        raise ValueError(f"{place}: path is missing")
    listed = [files] if isinstance(files, str) else list(files or ())
    if path.startswith(("http://", "https://")):
        raise ValueError(f"{place}: path is a web address; fetch the file and give its path")
    if "://" in path:
        return [{"objects": path}]
    if path in ("json", "csv", "parquet", "text", "arrow"):
        if not listed:
            raise ValueError(f"{place}: path {path!r} needs data_files")
        return [{"path": str(name)} for name in listed]
    if _HUB_ID.fullmatch(path) and not _FILE.search(path) and "ds_type" not in said:
        if len(listed) > 1:
            raise ValueError(f"{place}: data_files: one file or pattern of a hub data set is supported")
        more = {"revision": said.get("revision"), "split": split, "files": listed[0] if listed else None}
        return [{"hub": path, **{key: value for key, value in more.items() if value is not None}}]
    if split not in (None, "train"):
        raise ValueError(f"{place}: split is {split!r}, but a local file has no splits")
    return [{"path": f"{path.rstrip('/')}/{name}"} for name in listed] or [{"path": path}]
