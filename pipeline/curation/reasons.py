"""Why a row is quarantined: the codes, each with its meaning, and the exception that carries one inside this package.

Codes are part of what users read and count, so they are added to, not renamed. No parsing enters here.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Machine-readable reason of a quarantined row; `MEANINGS` is the one table that explains them."""

    TOO_LONG = "too_long"
    TOO_DEEP = "too_deep"
    BAD_UTF8 = "bad_utf8"
    NUL = "nul"
    BOM = "bom"
    BARE_CR = "bare_cr"
    LONE_SURROGATE = "lone_surrogate"
    DUPLICATE_KEY = "duplicate_key"
    BAD_NUMBER = "bad_number"
    BAD_JSON = "bad_json"
    BAD_CSV = "bad_csv"
    COLUMNS = "columns"
    UNREADABLE = "unreadable"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BLANK = "blank"
    BAD_CHAT = "bad_chat"
    UNSUPPORTED = "unsupported"
    NO_GROUP = "no_group"
    BAD_TOOLS = "bad_tools"
    BAD_CALL = "bad_call"
    BAD_PAIR = "bad_pair"
    BAD_RANKING = "bad_ranking"
    BAD_SPAN = "bad_span"
    CONTROL = "control"
    PLACEHOLDER = "placeholder"
    PERSONAL_DATA = "personal_data"
    SECRET = "secret"


MEANINGS: dict[Code, str] = {
    Code.TOO_LONG: "the row is longer than ingest.max_line_bytes and was not parsed",
    Code.TOO_DEEP: "the JSON is nested deeper than ingest.max_depth and was not parsed",
    Code.BAD_UTF8: "the bytes are not UTF-8",
    Code.NUL: "a NUL character, raw or as \\u0000",
    Code.BOM: "a byte order mark where it does not belong; only one at the start of a file is accepted",
    Code.BARE_CR: "a carriage return without line feed parts rows",
    Code.LONE_SURROGATE: "half of a surrogate pair, which is no character",
    Code.DUPLICATE_KEY: "a JSON object that names a key twice",
    Code.BAD_NUMBER: "NaN, Infinity, or a number beyond what a double or 4,300 digits can hold",
    Code.BAD_JSON: "not JSON as RFC 8259 defines it",
    Code.BAD_CSV: "quotes that RFC 4180 does not allow, or that are never closed",
    Code.COLUMNS: "more or fewer cells, or places of a list, than the header has",
    Code.UNREADABLE: "the file is cut off or damaged from here on; the rest of it counts as one row",
    Code.NOT_AN_OBJECT: "a JSON value that is not an object, and params do not say what it stands for",
    Code.MISSING_FIELD: "a field that the format needs is absent",
    Code.WRONG_TYPE: "a field has a type that the format does not allow",
    Code.BLANK: "a needed text is null, empty or only white space",
    Code.BAD_CHAT: "messages in an order or with roles that make no dialogue ending in an answer",
    Code.UNSUPPORTED: "something valid that cannot be trained on, such as images, or an answer that is marked not to be learned",
    Code.NO_GROUP: "the metadata field of ingest.group_by is absent",
    Code.BAD_TOOLS: "tools that are offered, but are no list of tools with names",
    Code.BAD_CALL: "a tool call without a name, with arguments that are no JSON object, or of a tool that was not offered",
    Code.BAD_PAIR: "chosen and rejected that are the same, have no prompt, or part where no answer stands",
    Code.BAD_RANKING: "answers of which nothing says which is better",
    Code.BAD_SPAN: "a span that lies outside its text, or is not what the text has there",
    Code.CONTROL: "a control character, an invisible one, or piled-up accents, which clean.control_characters refuses",
    Code.PLACEHOLDER: "an answer with a leftover such as {{name}}, which clean.placeholders refuses",
    Code.PERSONAL_DATA: "personal data, which clean.personal_data refuses; the text of the row is not kept",
    Code.SECRET: "a key, token or password, which clean.secrets refuses; the text of the row is not kept",
}

WITHHELD = frozenset({Code.PERSONAL_DATA, Code.SECRET})
"""Rows refused for these leave no text behind: their reason tells types and counts alone."""


class Rejected(Exception):
    """A row cannot be accepted. Caught by curation/intake.py, which makes a QuarantinedRow of it; never leaves curation."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    def __reduce__(self) -> tuple[type[Rejected], tuple[Code, str]]:
        return Rejected, (self.code, self.reason)
