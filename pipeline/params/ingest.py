"""The sections `ingest` and `clean`: where rows come from, how they are read, and what each row must meet on its way in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.domain.licensing import ACCEPTED, policy_problem
from pipeline.params.section import Section

Format = Literal[
    "auto",
    "chat",
    "sharegpt",
    "prompt_completion",
    "alpaca",
    "classification",
    "extraction",
    "preference",
    "feedback",
    "ranking",
    "text",
    "prompt",
]


Tag = Literal["role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"]


class Reading(Section):
    """How the rows of a source are read. An entry of `sources` may say each of these for itself."""

    format: Format = "auto"
    """Shape of a row; auto tells it from the fields of the first row of each file."""
    columns: dict[str, str] = {}
    """Our field name: theirs, where a file names its fields otherwise: {text: question, label: intent}. Dots go deeper: a.b.0."""
    constants: dict[str, str] = {}
    """Fields, by our names, that every row lacks: what they hold, e.g. {system: You file support requests.}."""
    compose: dict[str, str] = {}
    """Fields, by our names, made of others: {prompt: "{question} A: {a} B: {b}"}."""
    tags: dict[Tag, str] = {}
    """How messages spell keys and roles, where it is neither role/content nor from/value: {role_tag: who, user_tag: client}."""
    records: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Of a JSON document that is an object: keys of the arrays of rows, dots for deeper ones, * for every key. The key is kept as
    the field `section`."""
    header: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of the columns of a CSV file without a header, or of the places of rows that are JSON lists."""
    sample_by: Literal["document", "paragraph", "line"] = "document"
    """What makes a row of a plain text file: all of it, what empty lines part, or each line."""
    group_by: str | None = None
    """A metadata field whose equal values stay on one side of the split; default: equal prompts stay together."""
    license: str | None = None
    """Licence of the rows, an SPDX id such as CC-BY-4.0; clean.licenses says what is accepted."""


class SourceParams(Reading):
    """An entry of `ingest.sources` that says more than a path."""

    path: str | None = None
    """A file, a folder, a glob such as data/**/*.jsonl.zst, or an archive."""


class IngestParams(Reading):
    sources: Annotated[tuple[str | SourceParams, ...], Field(min_length=1, strict=False)] = ("inbox",)
    """Files, folders and globs relative to the project, or entries with keys of their own (docs/data.md). New files are picked up
    by the next run."""
    max_line_bytes: Annotated[int, Field(ge=1024, le=1 << 28)] = 1 << 20
    """Longer rows are quarantined unread."""
    max_depth: Annotated[int, Field(ge=2, le=500)] = 32
    """Deeper JSON is quarantined unparsed."""


PersonalType = Literal["email", "phone", "card", "iban", "national_id", "ip", "url"]


class CleanParams(Section):
    """Rules that a row meets alone, as it comes in: what they change is counted, what they refuse goes to quarantine."""

    unicode: Literal["nfc", "nfkc", "off"] = "nfc"
    """Unicode normalisation of all texts. nfkc also folds widths, ligatures and the like, which changes what texts look like."""
    control_characters: Literal["strip", "refuse", "off"] = "strip"
    """Controls but tab and line ends, invisible characters, direction overrides, hidden tags, accents piled up."""
    placeholders: Literal["off", "warn", "refuse"] = "warn"
    """Answers with leftovers such as {{name}} or [INSERT DATE]."""
    personal_data: Literal["off", "warn", "redact", "refuse"] = "off"
    """What becomes of the types below: counted, replaced by marks such as <EMAIL>, or the row refused and its text not kept."""
    personal_types: Annotated[tuple[PersonalType, ...], Field(strict=False, min_length=1)] = (
        "email",
        "phone",
        "card",
        "iban",
        "national_id",
        "ip",
    )
    """What counts as personal data. Names, organisations and addresses cannot be found: see docs/cleaning.md."""
    secrets: Literal["off", "warn", "redact", "refuse"] = "warn"
    """Keys, tokens, and passwords in addresses or assignments; redact and refuse as above."""
    licenses: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ACCEPTED
    """The licences accepted: SPDX ids, and the classes own, public-domain, permissive, share-alike, no-derivatives,
    noncommercial, unlicensed, any (docs/cleaning.md)."""

    @model_validator(mode="after")
    def _check_licenses(self) -> CleanParams:
        if problems := [problem for entry in self.licenses if (problem := policy_problem(entry))]:
            raise ValueError("\n".join(f"licenses: {problem}" for problem in problems))
        return self
