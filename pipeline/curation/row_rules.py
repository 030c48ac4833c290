"""The rules of params' `clean`, which a row meets alone on its way in: clean its texts, redact them, or refuse the row.

Pure: an example's parts in, its parts or Rejected out, and counts. How personal data and secrets are found is for the detectors
that are handed in; where the texts of an example lie is curation/rewriting.py's knowledge; what looks across rows is `curate`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Literal, NamedTuple

from pipeline.curation.formats import Parts
from pipeline.curation.invisible import may_hold_unseen, strip_unseen
from pipeline.curation.placeholders import find_placeholders, may_hold_placeholder
from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.redaction import redact
from pipeline.curation.rewriting import change_texts, output_texts
from pipeline.params.ingest import CleanParams
from pipeline.ports import Detector

_FORMS: dict[str, Literal["NFC", "NFKC"]] = {"nfc": "NFC", "nfkc": "NFKC"}
_LONGEST_FINDING = 4096
_ESCAPE = re.compile(r"\\u00([2-7][0-9a-fA-F])")


class _Search(NamedTuple):
    detector: Detector
    policy: str
    code: Code


class RowRules:
    """The rules as params say them, and counts of what they did. Survives pickling, so that worker processes can each have one.

    altered: normalised and stripped_controls, a row each; redacted.TYPE, a mark put in place of personal data or a secret each;
    warned.TYPE and warned.placeholder, a finding left as it is each. Rows that are refused count nowhere here.
    """

    def __init__(self, params: CleanParams, *, personal_data: Detector | None = None, secrets: Detector | None = None) -> None:
        self.altered: Counter[str] = Counter()
        self._form, self._controls, self._placeholders = params.unicode, params.control_characters, params.placeholders
        searches = ((secrets, params.secrets, Code.SECRET), (personal_data, params.personal_data, Code.PERSONAL_DATA))
        self._searches = [_Search(d, policy, code) for d, policy, code in searches if d is not None and policy != "off"]

    def apply(self, parts: Parts) -> Parts:
        """The parts with their texts as the rules want them: the very same object when there is nothing to do.

        Raises Rejected with CONTROL, PLACEHOLDER, PERSONAL_DATA, SECRET, BLANK or DUPLICATE_KEY. Applying the rules to what they
        made changes nothing more.
        """
        row = f"{parts.input}\n{parts.output}\n{parts.meta}"
        clean = self._is_clean(row)
        # What hides within a word could hide the word from a quick look.
        searches = [search for search in self._searches if _suspects(search, row, parts)] if clean else self._searches
        leftovers = self._placeholders != "off" and may_hold_placeholder(parts.output)
        if clean and not searches and not leftovers:
            return parts
        counts: Counter[str] = Counter()
        if searches or not clean:
            parts = self._changed(parts, searches, counts)
        if leftovers:
            self._look_for_placeholders(parts, counts)
        self.altered.update(counts)
        return parts

    def take_altered(self) -> dict[str, int]:
        """What `altered` has counted since the last call, by name in order."""
        counts, self.altered = dict(sorted(self.altered.items())), Counter()
        return counts

    def screen(self, text: str, *, cut: bool = False) -> str:
        """A text of a row that was refused for another reason, as quarantine may keep it: with marks where policy says so.

        cut: the row went on where `text` ends. Half of a finding may stand there, so the end is left out.
        """
        searches = [search for search in self._searches if search.policy in ("redact", "refuse")]
        if cut and searches:
            text = text[:-_LONGEST_FINDING]
        for detector, _, _ in searches:
            # JSON can write any character as an escape, and this row may be one that could not be parsed.
            plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text) if "\\u00" in text else text
            marked, found = redact(plain, detector)
            text = marked if found else text
        return text

    def _is_clean(self, row: str) -> bool:
        if self._form != "off" and not row.isascii() and not unicodedata.is_normalized(_FORMS[self._form], row):
            return False
        return self._controls == "off" or not may_hold_unseen(row)

    def _changed(self, parts: Parts, searches: list[_Search], counts: Counter[str]) -> Parts:
        done: set[str] = set()
        refused: dict[Code, Counter[str]] = {}

        def change(text: str) -> str:
            text = self._cleaned(text, done)
            # A mark may leave something unseen without the letter that carried it, so what was marked is cleaned again.
            while marks := self._marked(text, searches):
                text, found = marks
                counts.update({f"redacted.{type}": number for type, number in found.items()})
                text = self._cleaned(text, done)
            for detector, policy, code in searches:
                types = Counter(finding.type for finding in detector.find(text)) if policy != "redact" else Counter()
                if policy == "refuse":
                    refused.setdefault(code, Counter()).update(types)
                else:
                    counts.update({f"warned.{type}": number for type, number in types.items()})
            return text

        parts = change_texts(parts, change)
        for code, types in refused.items():
            if types:
                raise Rejected(code, f"holds {_listed(types)}; its text is not kept")
        counts.update(done)
        return parts

    def _marked(self, text: str, searches: list[_Search]) -> tuple[str, Counter[str]] | None:
        """The text with marks where policy is to redact, and how many; None when there is nothing to mark."""
        counts: Counter[str] = Counter()
        for detector, policy, _ in searches:
            if policy == "redact":
                text, found = redact(text, detector)
                counts.update(found)
        return (text, counts) if counts else None

    def _cleaned(self, text: str, done: set[str]) -> str:
        # Each of the two can make work for the other: what is stripped parts accents from letters, what is composed brings them.
        while True:
            before = text
            if self._controls != "off" and may_hold_unseen(text) and (stripped := strip_unseen(text)) != text:
                if self._controls == "refuse":
                    raise Rejected(Code.CONTROL, "a text holds control or invisible characters, or piled-up accents")
                done.add("stripped_controls")
                text = stripped
            if self._form != "off" and not text.isascii() and (normal := unicodedata.normalize(_FORMS[self._form], text)) != text:
                done.add("normalised")
                text = normal
            if text == before:
                return text

    def _look_for_placeholders(self, parts: Parts, counts: Counter[str]) -> None:
        found = [leftover for text in output_texts(parts) for leftover in find_placeholders(text)]
        if found and self._placeholders == "refuse":
            raise Rejected(Code.PLACEHOLDER, f"the answer holds {found[0][:60]!r}")
        if found:
            counts["warned.placeholder"] += len(found)


def _suspects(search: _Search, row: str, parts: Parts) -> bool:
    """Whether a search is worth its while: of the whole row first, and then of each column, which together may seem more."""
    look = search.detector.suspects
    return look(row) and (look(parts.input) or look(parts.output) or look(parts.meta))


def _listed(found: Counter[str]) -> str:
    return ", ".join(f"{number} {type}" for type, number in sorted(found.items()))
