"""Documents into rows of format `text`: plain text as one row, by paragraph or by line; Markdown and HTML as one row a file.

Markdown is kept as it is written: it is text that people and models read. Of HTML, what a browser would show is kept. No parser
sees more than a row may hold (ingest.max_line_bytes). What a text is worth is for the rules of `clean`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipeline.curation.lines import BOM, PIECE, RAW_CAP, SKIP_CAP, Row, too_long
from pipeline.curation.reasons import Code, Rejected

_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        """address article aside blockquote body br caption dd details dialog div dl dt fieldset figcaption figure footer form
        h1 h2 h3 h4 h5 h6 header hr html li main nav ol option p pre section summary table tbody tfoot thead tr ul""",
    )
)
_CELLS = frozenset(("td", "th"))
_UNSEEN = frozenset(re.findall(r"\w+", "script style template noscript head iframe object svg math select textarea"))
_BLANKS = re.compile(r"[ \t\r\f\v\xa0]+")


def text_rows(stream: BinaryIO, sample_by: str, max_bytes: int) -> Iterator[Row]:
    """Rows of a plain text: {"text": …}, numbered by the line they start on. Empty lines part paragraphs and are no rows."""
    for line, raw, length in _pieces(stream, sample_by, max_bytes):
        yield _row(line, raw, length, max_bytes, keep_end=False)


def document_row(stream: BinaryIO, kind: str, max_bytes: int) -> Iterator[Row]:
    """The one row of a Markdown or HTML file (`kind`), or none of an empty file."""
    for line, raw, length in _pieces(stream, "document", max_bytes):
        row = _row(line, raw, length, max_bytes, keep_end=kind == "markdown")
        if kind == "html" and not isinstance(row.value, Rejected):
            row = row._replace(value={"text": html_text(row.value["text"])})
        yield row


def html_text(source: str) -> str:
    """What a browser would show of an HTML page: blocks a line each; nothing of scripts, styles and forms.

    Nothing is fetched and no tree is built: lxml tells of tags as it meets them, in time linear in the page, however deep it is.
    """
    from lxml import etree

    seen = _Seen()
    parser = etree.HTMLParser(target=seen, encoding="utf-8", no_network=True, huge_tree=False)
    try:
        parser.feed(source.encode("utf-8", "surrogatepass"))
        parser.close()
    except etree.ParserError:  # a page without any tag or text
        return ""
    lines = (_BLANKS.sub(" ", part).strip() if not keep else part for part, keep in seen.lines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Seen:
    """Gathers the texts that lxml tells of, in the order of the page."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, bool]] = []
        self._line: list[str] = []
        self._hidden = 0
        self._kept = 0

    def start(self, tag: str, attributes: Any) -> None:
        if tag in _UNSEEN:
            self._hidden += 1
        elif tag in _BLOCKS:
            self._break()
            self._kept += tag == "pre"
        elif tag in _CELLS and self._line:
            self._line.append(" ")

    def end(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag in _BLOCKS:
            self._break()
            self._kept = max(0, self._kept - (tag == "pre"))

    def data(self, text: str) -> None:
        if not self._hidden:
            self._line.append(text if self._kept else text.replace("\n", " "))

    def comment(self, text: str) -> None:
        """Nothing of a comment is shown."""

    def pi(self, target: str, data: str | None = None) -> None:
        """Nor of a processing instruction."""

    def close(self) -> None:
        self._break()

    def lines(self) -> Iterator[tuple[str, bool]]:
        return iter(self._parts)

    def _break(self) -> None:
        text = "".join(self._line)
        self._line = []
        if text.strip():
            self._parts.append((text, bool(self._kept)))


def _row(line: int, raw: bytes, length: int, max_bytes: int, *, keep_end: bool) -> Row:
    kept = raw[:RAW_CAP]
    if length > max_bytes:
        return Row(line, too_long(max_bytes, length), kept, length)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Row(line, Rejected(Code.BAD_UTF8, f"byte {error.start} of the text is not UTF-8"), kept, length)
    if "\0" in text:
        return Row(line, Rejected(Code.NUL, "the text holds a NUL byte"), kept, length)
    return Row(line, {"text": text if keep_end else text.rstrip("\r\n")}, raw, length)


def _pieces(stream: BinaryIO, sample_by: str, limit: int) -> Iterator[tuple[int, bytes, int]]:
    """(first line's number, bytes or their beginning, how many) of each line, paragraph or document that is not empty."""
    number, first, held, length = 0, 0, bytearray(), 0
    most = max(limit, RAW_CAP)
    ended = True
    while line := stream.readline(PIECE):
        number += ended
        ended = line.endswith(b"\n")
        if number == 1 and not length and line.startswith(BOM):
            line = line[len(BOM) :]
        blank = not line.strip()
        if sample_by == "paragraph" and blank and ended and length:
            yield first, bytes(held), length
            held, length = bytearray(), 0
            continue
        if not blank and not length:
            first = number
        if length or not blank:
            length += len(line)
            held += line[: most - len(held)] if len(held) < most else b""
        if sample_by == "line" and ended and length:
            yield first, bytes(held), length - 1 - line.endswith(b"\r\n")
            held, length = bytearray(), 0
        if length > SKIP_CAP:
            break
    if length:
        yield first, bytes(held), length
