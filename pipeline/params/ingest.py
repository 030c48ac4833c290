"""The sections `ingest` and `clean`: where rows come from, how they are read, and what each row must meet on its way in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from pipeline.domain.licensing import ACCEPTED, policy_problem
from pipeline.params.axolotl import axolotl_entries
from pipeline.params.section import Section
from pipeline.params.ways_in import way_in_problems

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


MessageTag = Literal["role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"]


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
    tags: dict[MessageTag, str] = {}
    """How messages spell keys and roles, where it is neither role/content nor from/value: {role_tag: who, user_tag: client}."""
    records: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Of a JSON document that is an object: keys of the arrays of rows, dots for deeper ones, * for every key. The key is kept as
    the field `section`. Of any document: `.` makes all of it one row."""
    header: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of the columns of a CSV file without a header, or of the places of rows that are JSON lists."""
    sample_by: Literal["document", "paragraph", "line"] = "document"
    """What makes a row of a plain text file: all of it, what empty lines part, or each line."""
    group_by: str | None = None
    """A metadata field whose equal values stay on one side of the split; default: equal prompts stay together."""
    license: str | None = None
    """Licence of the rows, an SPDX id such as CC-BY-4.0; clean.licenses says what is accepted."""


class SourceParams(Reading):
    """An entry of `ingest.sources`: one way in (path, sql, objects, hub, dataset_info or feedback), and how its rows are read
    (docs/sources.md). An entry may also be `axolotl: [...]`, which stands for those that Axolotl's `datasets` name."""

    name: str | None = None
    """What records call the entry; a query needs one, since its watermark is kept under it. Default: its path, address or id."""
    path: str | None = None
    """A file, a folder, a glob such as data/**/*.jsonl.zst, or an archive (.zip, .tar, .tar.gz, .tgz, .tar.zst)."""
    sql: str | None = None
    """A query. :since stands for the watermark of the last run (NULL at first), :as_of for what --as-of says."""
    url: str | None = None
    """sql: env:TUNELINE_DATABASE_…, an environment variable that holds an SQLAlchemy URL; or a URL without a password, such as
    sqlite:///crm.db."""
    watermark: str | None = None
    """sql: the column that grows, by which the next run asks for what is new."""
    objects: str | None = None
    """An address in an object store, such as s3://bucket/feedback/*.jsonl; endpoint and keys come from the environment."""
    hub: str | None = None
    """The id of a Hugging Face dataset; or ./FOLDER, one that was saved by datasets or laid out like one on the hub."""
    revision: str | None = None
    """hub: the commit, 40 hex digits; required for an id."""
    split: str | None = None
    """hub: take only the files of this split, such as train."""
    files: str | None = None
    """hub: take only files that this glob names, such as data/*.parquet."""
    dataset_info: str | None = None
    """LLaMA-Factory's dataset_info.json; its files lie beside it (docs/formats.md)."""
    datasets: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """dataset_info: the data sets to take; default: all whose file is there."""
    feedback: bool | None = None
    """true: what people said of the model's answers (docs/monitoring.md); needs serve.feedback.keep_hours."""

    @property
    def origin(self) -> str:
        """What records call this entry."""
        return self.name or self.path or self.objects or self.hub or self.dataset_info or ("feedback" if self.feedback else "")

    @property
    def public(self) -> bool:
        """Whether it comes from a place where anyone may publish, so that without a licence nobody may use it."""
        return self.hub is not None and not self.hub.startswith(("./", "../", "/"))

    @model_validator(mode="after")
    def _check_way_in(self) -> SourceParams:
        if problems := list(way_in_problems(self)):
            raise ValueError("\n".join(problems))
        return self


def _form(source: Any) -> str:
    return "text" if isinstance(source, str) else "entry"


Source = Annotated[Annotated[str, Tag("text")] | Annotated[SourceParams, Tag("entry")], Discriminator(_form)]
"""An item of `ingest.sources`: a path or address alone, or an entry with keys."""


class IngestParams(Reading):
    sources: Annotated[tuple[Source, ...], Field(strict=False)] = ("inbox",)
    """Files, folders, globs and archives relative to the project, or entries with keys of their own (docs/sources.md). New files
    are picked up by the next run."""
    max_line_bytes: Annotated[int, Field(ge=1024, le=1 << 28)] = 1 << 20
    """Longer rows are quarantined unread."""
    max_depth: Annotated[int, Field(ge=2, le=500)] = 32
    """Deeper JSON is quarantined unparsed."""
    max_members: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    """An archive with more members, or an object store's folder with more objects, is refused."""
    max_staged_bytes: Annotated[int, Field(ge=1 << 20)] = 32 << 30
    """What unpacks or is fetched to more than this, from one archive, object or query, is refused."""

    @field_validator("sources", mode="before")
    @classmethod
    def _translate_axolotl(cls, sources: Any) -> Any:
        if not isinstance(sources, list | tuple):
            return sources
        entries: list[Any] = []
        for source in sources:
            if not isinstance(source, dict) or "axolotl" not in source:
                entries.append(source)
                continue
            if beside := set(source) - {"axolotl", "license", "group_by"}:
                raise ValueError(f"axolotl: beside it an entry may say license and group_by, not {min(beside)}")
            more = {key: value for key, value in source.items() if key != "axolotl"}
            entries += [{**more, **entry} for entry in axolotl_entries(source["axolotl"])]
        return entries

    @field_validator("sources")
    @classmethod
    def _complete_entries(cls, sources: tuple[str | SourceParams, ...], info: ValidationInfo) -> tuple[str | SourceParams, ...]:
        # Filled in here, where it is known what an entry says for itself: in the recorded params every key is written out.
        if not sources:
            raise ValueError("name at least one source, such as inbox")
        if problems := [problem for entry in sources if isinstance(entry, str) for problem in text_problems(entry)]:
            raise ValueError("\n".join(problems))
        names = [entry if isinstance(entry, str) else entry.origin for entry in sources]
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise ValueError(f"{twice[0]!r} stands twice; give one of the two a name of its own, or leave it out")
        return tuple(entry if isinstance(entry, str) else _completed(entry, info.data) for entry in sources)

    def entry_of(self, source: str | SourceParams) -> SourceParams:
        """A source as an entry: what is only a text is a path, or an address of objects."""
        if isinstance(source, str):
            source = SourceParams(objects=source) if "://" in source else SourceParams(path=source)
        return _completed(source, dict(self))

    def reading_of(self, entry: str | SourceParams) -> Reading:
        """How the rows of an entry are read: what it says itself, and else what `ingest` says."""
        whole = self.entry_of(entry)
        return Reading.model_construct(**{key: getattr(whole, key) for key in Reading.model_fields})


def text_problems(source: str) -> list[str]:
    """What is wrong with a source that is only a text: addresses are looked at as those of entries are."""
    return list(way_in_problems(SourceParams.model_construct(objects=source))) if "://" in source else []


def _completed(entry: SourceParams, shared: Mapping[str, Any]) -> SourceParams:
    missing = [key for key in Reading.model_fields if key not in entry.model_fields_set and key in shared]
    return entry.model_copy(update={key: shared[key] for key in missing})


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
