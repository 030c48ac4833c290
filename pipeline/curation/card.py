"""The dataset card of a snapshot: README.md as the Hugging Face hub and `datasets` read it, YAML first, then pages for people.

Text out, no file. No times and no paths of this machine: the same snapshot makes the same card. Names come from untrusted data,
so everything shown is escaped, and lists are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.curation.lengths import Lengths
from pipeline.curation.reasons import MEANINGS, Code
from pipeline.curation.sketches import distinct
from pipeline.curation.statistics import Counted, Statistics
from pipeline.domain.data import Snapshot, SourceFile, Task
from pipeline.spoken.languages import UNKNOWN

SPLIT = "snapshot"
"""What `datasets.load_dataset` calls the rows. Not `train`: rows that are held out are among them."""

_SOURCES, _NAMES, _FIELDS = 100, 30, 20
_TASKS = {Task.GENERATE: "text-generation", Task.CLASSIFY: "text-classification"}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_HUB_LICENSE = re.compile(
    r"mit|apache-2\.0|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.[05]|cdla-(sharing|permissive)-[12]\.0|odbl|pddl"
    r"|[al]?gpl-[23]\.[01]|bsd(-[23]-clause)?|mpl-2\.0|isc|unlicense|wtfpl|openrail"
)
"""The licence names that the hub knows, as far as they are SPDX ids in lower case; others are `other` there."""
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|!#&~])")
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def card(snapshot: Snapshot, statistics: Statistics, quarantined: Mapping[str, int]) -> str:
    """README.md of `snapshot`. statistics: of all its shards. quarantined: rows by reason code."""
    return "".join(
        [
            _front_matter(snapshot, statistics),
            _introduction(snapshot, statistics),
            _licences(snapshot.sources),
            _sources(snapshot),
            _altered(snapshot.sources),
            _quarantine(quarantined),
            _statistics(statistics),
        ]
    )


def _front_matter(snapshot: Snapshot, statistics: Statistics) -> str:
    """JSON strings are YAML strings too, so that `no` stays Norwegian and nothing in a name can end the block."""
    lists = {
        "license": _hub_licenses(snapshot.sources),
        "language": [code for code, _ in _languages(statistics)],
        "task_categories": [_TASKS[snapshot.task]],
        "size_categories": [next((name for limit, name in _SIZES if snapshot.rows < limit), "10M<n<100M")],
    }
    lines = ["---", f"pretty_name: {json.dumps(snapshot.dataset)}"]
    for key, values in lists.items():
        if values:
            lines += [f"{key}:", *(f"- {json.dumps(value)}" for value in values)]
    if snapshot.shards:
        lines += ["configs:", "- config_name: default", "  data_files:", f"  - split: {SPLIT}", "    path: shards/*.parquet"]
    return "\n".join([*lines, "---", ""])


def _introduction(snapshot: Snapshot, statistics: Statistics) -> str:
    kinds = ", ".join(f"{rows:,} {kind}" for kind, rows in sorted(statistics.kinds.items())) or "none"
    fresh = f"Files that came with this snapshot: {len(snapshot.batch)}, of {len(snapshot.sources)} in all."
    parent = f" It follows snapshot {snapshot.parent[:12]}." if snapshot.parent else " It is the first."
    forgotten = f"\n\n{snapshot.forgotten:,} rows were forgotten on request and are no longer here." if snapshot.forgotten else ""
    return (
        f"\n# {_shown(snapshot.dataset)}\n\n"
        f"{snapshot.rows:,} examples to tune a model on (task `{snapshot.task}`; kinds: {kinds}). {fresh}{parent}\n\n"
        f'Read them with `datasets.load_dataset(FOLDER, split="{SPLIT}")`. Rows that are held out for tests are among them: '
        f"do not train on all.{forgotten}\n"
    )


def _licences(sources: Sequence[SourceFile]) -> str:
    totals: dict[tuple[str, str], list[int]] = {}
    for source in sources:
        total = totals.setdefault((source.license or "not stated", source.origin or "-"), [0, 0])
        total[0] += 1
        total[1] += source.accepted
    rows = [(licence, origin, files, accepted) for (licence, origin), (files, accepted) in sorted(totals.items())]
    rest = rows[_SOURCES:]
    shown = rows[:_SOURCES]
    if rest:
        shown.append((f"{len(rest)} more", "-", sum(r[2] for r in rest), sum(r[3] for r in rest)))
    return _table("Licences", ("licence", "origin", "files", "accepted rows"), shown)


def _sources(snapshot: Snapshot) -> str:
    """The newest files one by one, then all earlier ones as a line."""
    newest = list(reversed(snapshot.sources))
    rows = [_ended(source.name, [source]) for source in newest[:_SOURCES]]
    if rest := newest[_SOURCES:]:
        rows.append(_ended(f"{len(rest)} earlier files", rest))
    rows.append(_ended("all", newest))
    heads = ("file, newest first", "read", "accepted", "duplicate", "quarantined", "forgotten")
    return _table("Sources: where rows ended", heads, rows)


def _ended(name: str, sources: Sequence[SourceFile]) -> tuple[str | int, ...]:
    return (
        name,
        sum(s.read for s in sources),
        sum(s.accepted for s in sources),
        sum(s.duplicate for s in sources),
        sum(s.quarantined for s in sources),
        sum(s.forgotten for s in sources),
    )


def _altered(sources: Sequence[SourceFile]) -> str:
    rules: dict[str, int] = {}
    for source in sources:
        for rule, rows in source.altered.items():
            rules[rule] = rules.get(rule, 0) + rows
    return _table("Rows that a rule changed on their way in", ("rule", "rows"), sorted(rules.items()))


def _quarantine(quarantined: Mapping[str, int]) -> str:
    rows = [
        (code, count, MEANINGS[Code(code)] if code in set(Code) else "")
        for code, count in sorted(quarantined.items(), key=lambda item: (-item[1], item[0]))
    ]
    return _table("Quarantined rows", ("code", "rows", "meaning"), rows)


def _statistics(statistics: Statistics) -> str:
    if not statistics.rows:
        return ""
    heads = ("characters of", "least", "median", "mean", "95 %", "greatest", "blank rows")
    parts = [
        _table("Statistics", heads, [_length_row(name, getattr(statistics, name), statistics) for name in ("input", "output")]),
        f"\nDistinct prompts, case and white space aside: {_about(statistics.prompts, statistics)}; distinct outputs: "
        f"{_about(statistics.outputs, statistics)}.\n",
    ]
    about = f"Estimated from {statistics.sampled:,} rows."
    parts.append(_table("Languages", ("language", "rows"), _languages(statistics, everything=True), note=about))
    letters = sum(statistics.letters.values())
    scripts = [(name, f"{rows / letters:.1%}") for name, rows in _by_count(statistics.letters)]
    parts.append(_table("Scripts", ("script", "share of letters"), scripts, note=about))
    parts.append(_counted_table("Labels", "label", statistics.labels))
    fields = sorted(statistics.meta.items(), key=lambda item: (-item[1].rows, item[0]))[:_FIELDS]
    rows = [(name, found.rows, _few(found)) for name, found in fields]
    note = f"Of {statistics.meta_rows:,} rows; values that fewer than five rows of a shard share are not named."
    parts.append(_table("Metadata", ("field", "rows", "most frequent values"), rows, note=note))
    return "".join(parts)


def _about(sketch: str, statistics: Statistics) -> str:
    return f"about {min(distinct(sketch), statistics.rows):,}"


def _length_row(name: str, found: Lengths, statistics: Statistics) -> tuple[str | int, ...]:
    quantiles = (found.least, found.quantile(0.5), round(found.mean), found.quantile(0.95), found.greatest)
    return (name, *quantiles, statistics.blank.get(name, 0))


def _languages(statistics: Statistics, *, everything: bool = False) -> list[tuple[str, int]]:
    """Languages of at least one row in a hundred, most first."""
    least = 0 if everything else max(statistics.rows / 100, 1)
    return [(code, rows) for code, rows in _by_count(statistics.languages) if rows >= least and (everything or code != UNKNOWN)]


def _hub_licenses(sources: Iterable[SourceFile]) -> list[str]:
    names = {source.license.lower() if source.license else "unknown" for source in sources if source.accepted}
    return sorted({name if name == "unknown" or _HUB_LICENSE.fullmatch(name) else "other" for name in names})


def _counted_table(heading: str, head: str, found: Counted) -> str:
    rows: list[tuple[str, int]] = list(_by_count(found.names)[:_NAMES])
    if rest := found.rows - sum(count for _, count in rows):
        rows.append(("others", rest))
    return _table(heading, (head, "rows"), rows)


def _few(found: Counted) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in _by_count(found.names)[:5]) or "-"


def _by_count(found: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _table(heading: str, heads: Sequence[str], rows: Sequence[Sequence[str | int]], note: str = "") -> str:
    if not rows:
        return ""
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    lines += [" | ".join(f"{cell:,}" if isinstance(cell, int) else _shown(cell) for cell in row) for row in rows]
    return f"\n## {heading}\n\n" + "".join(f"| {line} |\n" for line in lines) + (f"\n{note}\n" if note else "")


def _shown(text: str) -> str:
    """Text that Markdown shows as it is."""
    visible = _UNSHOWABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text[:200])
    return _MARKDOWN.sub(r"\\\1", visible)
