"""LLaMA-Factory's dataset_info.json as entries of ingest.sources, so that people can bring what they have.

Pure: the parsed file in, entries as params would spell them out. What a file says and Tuneline cannot do is an error that names
the key, never passed over. Checked against LLaMA-Factory 0.9.5 (data/parser.py): where `columns` stands, a column that it does
not name is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_HUBS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_KEYS = ("file_name", "formatting", "ranking", "columns", "tags", "split")
_MEDIA = ("images", "videos", "audios")
_COLUMNS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages"},
}
"""The columns that a formatting has where the file does not say."""
_OURS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output", "history": "history"},
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages"},
}
"""Our fields for their columns."""
_SHARED = {name: name for name in ("system", "tools", "chosen", "rejected", "kto_tag", *_MEDIA)}
_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")


def local_datasets(info: Mapping[str, Any], is_there: Callable[[str], bool]) -> tuple[str, ...]:
    """Names of the data sets whose file lies beside the parsed dataset_info.json (`is_there`, by file name), and of no hub."""
    return tuple(
        name
        for name, entry in info.items()
        if isinstance(entry, dict)
        and not any(key in entry for key in _HUBS)
        and isinstance(entry.get("file_name"), str)
        and is_there(entry["file_name"])
    )


def dataset_entries(info: Mapping[str, Any], names: Sequence[str], folder: str) -> list[dict[str, Any]]:
    """The entries of ingest.sources that the data sets `names` stand for, their paths below `folder`.

    Raises ValueError naming the data set and the key that cannot be understood.
    """
    return [_entry(info, name, folder) for name in names]


def _entry(info: Mapping[str, Any], name: str, folder: str) -> dict[str, Any]:
    said = info.get(name)
    if not isinstance(said, dict):
        raise ValueError(f"there is no data set {name!r}; there are: {', '.join(map(repr, list(info)[:12])) or 'none'}")
    if hubs := [key for key in _HUBS if key in said]:
        raise ValueError(f"{name}: {hubs[0]} names no local file; write an entry of your own, with hub: ID and its revision")
    if unknown := [key for key in said if key not in _KEYS]:
        raise ValueError(f"{name}: the key {unknown[0]!r} is not supported; supported are {', '.join(_KEYS)}")
    path = said.get("file_name")
    if not isinstance(path, str) or not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{name}: file_name must name a file or folder beside dataset_info.json")
    if said.get("split", "train") != "train":
        raise ValueError(f"{name}: split is {said['split']!r}, but a local file has no splits")
    formatting = said.get("formatting", "alpaca")
    if formatting not in _OURS:
        raise ValueError(f"{name}: formatting is {formatting!r}; supported are {', '.join(_OURS)}")
    ranking = said.get("ranking", False)
    if not isinstance(ranking, bool):
        raise ValueError(f"{name}: ranking must be true or false")
    theirs = _columns(name, said, formatting)
    entry: dict[str, Any] = {"name": name, "path": f"{folder}/{path}" if folder else path}
    entry |= _reading(formatting, theirs, ranking=ranking)
    if tags := _tags(name, said):
        entry["tags"] = tags
    if path.endswith(".txt"):
        entry["sample_by"] = "line"
    return entry


def _columns(name: str, said: Mapping[str, Any], formatting: str) -> dict[str, str]:
    columns = said.get("columns", _COLUMNS[formatting])
    if not isinstance(columns, dict) or not all(isinstance(value, str) for value in columns.values()):
        raise ValueError(f"{name}: columns must give names of columns")
    known = {**_OURS["alpaca"], **_OURS["sharegpt"], **_SHARED}
    if unknown := [key for key in columns if key not in known]:
        raise ValueError(f"{name}: columns has the key {unknown[0]!r}; supported are {', '.join(known)}")
    return columns


def _reading(formatting: str, theirs: Mapping[str, str], *, ranking: bool) -> dict[str, Any]:
    ours = {**_OURS[formatting], **_SHARED}
    if ranking:
        format = "preference"
    elif "kto_tag" in theirs:
        format = "feedback"
    elif formatting == "alpaca" and "response" not in theirs:
        return {"format": "text", "columns": {"text": theirs.get("prompt", "text")}}
    else:
        format = {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "chat"}[formatting]
    columns = {ours[key]: name for key, name in theirs.items() if key in ours}
    if formatting != "alpaca":
        columns.setdefault(ours["messages"], _COLUMNS[formatting]["messages"])
    # A column that is not named is not used, whatever it is called: '' says that there is none.
    unused = [field for field in ("input", "history", "system", "tools") if field not in columns]
    return {"format": format, "columns": columns | dict.fromkeys(unused, "")}


def _tags(name: str, said: Mapping[str, Any]) -> dict[str, str]:
    tags = said.get("tags", {})
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise ValueError(f"{name}: tags must give names of keys and roles")
    if unknown := [key for key in tags if key not in _TAGS]:
        raise ValueError(f"{name}: tags has the key {unknown[0]!r}; supported are {', '.join(_TAGS)}")
    return dict(tags)
