"""What Hugging Face's `datasets` notes in the schema of a table: which numbers stand for which labels. No row is read here."""

from __future__ import annotations

from typing import Any

import orjson


def label_names(schema: Any) -> dict[str, list[str]]:
    """Columns of an Arrow schema that hold the numbers of labels (ClassLabel): the labels, in the order of their numbers."""
    noted = (schema.metadata or {}).get(b"huggingface")
    try:
        features = orjson.loads(noted)["info"]["features"] if noted else {}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    found: dict[str, list[str]] = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[column] = names
    return found


def named(value: Any, names: list[str]) -> Any:
    """The label that a number stands for; -1, as `datasets` writes it, is none. What is no such number stays."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return None if value == -1 else names[value] if 0 <= value < len(names) else value
