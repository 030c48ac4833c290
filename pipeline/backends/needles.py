"""The texts that a purge looks for, in all the forms that a file may hold them in. No file is opened here.

A text counts as found in UTF-8, as JSON writes it (also JSON within JSON), as HTML and CSV escape it, and in base64.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable
from typing import Any

SHORTEST = 8
"""Shorter texts, in bytes, are found by chance, so they are not looked for."""


class Needles:
    """The texts that are looked for, each in all the forms that a file may hold it in.

    ids: example ids; a table of texts that has a row with such an id holds the record, even if other rows share all its texts.
    """

    def __init__(self, texts: Iterable[str], ids: Iterable[str] = ()) -> None:
        self.texts = tuple(dict.fromkeys(text for text in texts if len(text.encode("utf-8", "replace")) >= SHORTEST))
        self.ids = tuple(ids)
        self._forms = [(number, form) for number, text in enumerate(self.texts) for form in forms(text)]
        self.longest = max((len(form) for _, form in self._forms), default=1)

    def among(self, data: bytes | memoryview) -> set[int]:
        """The numbers of the texts that `data` holds in some form."""
        content = bytes(data)
        return {number for number, form in self._forms if form in content}

    def rows(self, table: Any) -> list[bool]:
        """Of each row of a pyarrow table, whether it has one of the ids, or one of the texts in any column."""
        ids = set(self.ids)
        held = [id in ids for id in table["id"].to_pylist()] if ids and "id" in table.schema.names else [False] * table.num_rows
        for name in table.schema.names:
            if any(in_column(chunk, self) for chunk in table[name].chunks):
                cells = (json.dumps(cell, default=str, ensure_ascii=False) for cell in table[name].to_pylist())
                held = [was or bool(self.among(cell.encode())) for was, cell in zip(held, cells, strict=True)]
        return held

    def replaced(self, data: bytes, by: bytes) -> bytes:
        """`data` with every form of every text replaced, the longest first."""
        for _, form in sorted(self._forms, key=lambda one: -len(one[1])):
            data = data.replace(form, by)
        return data


def forms(text: str) -> list[bytes]:
    """The byte strings that a text may be stored as."""
    plain = [text]
    for ascii_only in (False, True):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        plain += [once, *(json.dumps(once, ensure_ascii=twice)[1:-1] for twice in (False, True))]
    plain += [html.escape(text), html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")]
    plain += [text.replace('"', '""'), repr(text)[1:-1]]
    found = dict.fromkeys(one.encode("utf-8", "surrogatepass") for one in plain)
    raw = text.encode("utf-8", "surrogatepass")
    for shift in range(3):
        # What base64 makes of a text depends on how many bytes stand before it; the digits that mix with neighbours are left off.
        whole = raw[(3 - shift) % 3 :]
        whole = whole[: len(whole) - len(whole) % 3]
        if len(whole) >= SHORTEST:
            found[base64.b64encode(whole)] = None
    return list(found)


def in_column(column: Any, needles: Needles) -> set[int]:
    """Texts in any buffer of a column: its values lie there one after the other, whatever it is made of."""
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary
    return {number for buffer in column.buffers() if buffer is not None for number in needles.among(buffer)}
