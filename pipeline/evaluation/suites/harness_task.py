"""A task of lm-evaluation-harness, read from its YAML: local data, Jinja in a sandbox, no Python.

What is understood gives, item by item, the prompts and scores of lm-evaluation-harness 0.4.13 with `sampler: first_n`; what is
not is refused by name, never passed over. docs/suites.md lists both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.domain.record import digest_file, digest_value
from pipeline.errors import BadInput
from pipeline.evaluation.suites.files import File, csv_rows, json_lines, yaml_mapping
from pipeline.evaluation.suites.harness_prompts import Prompts, generated, questions
from pipeline.evaluation.suites.questions import METRIC, NORMALISED, Questions
from pipeline.evaluation.suites.suite import Rows, drawn

_KEPT = {
    "task", "output_type", "dataset_path", "dataset_name", "dataset_kwargs", "test_split", "validation_split", "training_split",
    "fewshot_split", "fewshot_config", "doc_to_text", "doc_to_target", "doc_to_choice", "description", "target_delimiter",
    "fewshot_delimiter", "num_fewshot", "metric_list", "generation_kwargs", "filter_list", "repeats", "metadata", "tag", "group",
    "task_alias", "should_decontaminate", "doc_to_decontamination_query",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """rows, with names and what they are drawn by; metric; digest of the YAML and its data files together."""

    names: tuple[str, ...]
    rows: Rows
    metric: str
    digest: str


def read_task(file: File, *, shots: int, most: int | None, max_new_tokens: int) -> Task:
    """The rows of a task. shots: worked examples, instead of the file's num_fewshot, where not 0."""
    task, lines = yaml_mapping(file)
    for key in task:
        if key not in _KEPT:
            fix = "include: copy what it includes into the file" if key == "include" else "see docs/suites.md for what is read"
            raise BadInput(f"the key {key} is not read", where=lines[key], fix=fix)
    reader = _Reader(file, task, dict(lines))
    kind = task.get("output_type", "generate_until")
    if kind not in ("multiple_choice", "generate_until"):
        raise reader.wrong("output_type", f"{kind} is not read", "multiple_choice and generate_until are")
    if task.get("repeats", 1) != 1:
        raise reader.wrong("repeats", "answers are made once, greedily")
    examples, docs = reader.documents(shots or reader.number("num_fewshot", 0, most=64))
    asked = drawn(list(enumerate(docs, 1)), most, of=docs)
    names, docs = tuple(f"row {number}" for number, _ in asked), [doc for _, doc in asked]
    metric = reader.metric(kind)
    prompts = Prompts(task, dict(lines), str(file), examples, docs)
    rows: Rows
    if kind == "multiple_choice":
        rows = Questions(questions(prompts, names), normalised=metric == NORMALISED)
    else:
        rows = generated(prompts, max_new_tokens)
    return Task(names, rows, metric, reader.digest())


@dataclass(slots=True)
class _Reader:
    file: File
    task: dict[str, Any]
    lines: dict[str, str]

    def wrong(self, key: str, what: str, fix: str | None = None) -> BadInput:
        return BadInput(what, where=self.lines.get(key, f"{self.file} {key}"), fix=fix)

    def number(self, key: str, usual: int, *, most: int) -> int:
        value = self.task.get(key, usual)
        if value is None:
            return usual
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.wrong(key, f"{key} is no whole number from 0 to {most}")
        return value

    def documents(self, shots: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Worked examples and rows to ask: of splits of their own, or the first of those that are asked, which are not then."""
        files = self.files()
        split = (
            self.task.get("test_split") or self.task.get("validation_split") or ("test" if "test" in files else next(iter(files)))
        )
        few = self.task.get("fewshot_split") or self.task.get("training_split") or split
        config = self.task.get("fewshot_config") or {}
        if not isinstance(config, dict) or set(config) - {"sampler", "split"} or config.get("sampler", "first_n") != "first_n":
            raise self.wrong("fewshot_config", "examples are the first ones of their split", "write sampler: first_n")
        few = config.get("split", few)
        docs = self.read(split, files)
        others = docs if few == split else self.read(few, files) if shots else []
        if shots > len(others) or (few == split and shots >= len(docs)):
            raise self.wrong("num_fewshot", f"{shots} examples are asked for, the split {few} has {len(others)} rows")
        return others[:shots], docs[shots:] if few == split else docs

    def files(self) -> dict[str, list[File]]:
        """The data files of each split, which must lie in the task's own folder or below it."""
        if self.task.get("dataset_path") not in ("json", "csv", None):
            raise self.wrong(
                "dataset_path", "only local files are read", "write json or csv, and name them in dataset_kwargs.data_files"
            )
        kwargs = self.task.get("dataset_kwargs")
        given = kwargs.get("data_files") if isinstance(kwargs, dict) else None
        splits = given if isinstance(given, dict) else {"train": given}
        home, found = self.file.path.parent.resolve(), dict[str, list[File]]()
        for split, names in splits.items():
            for name in names if isinstance(names, list) else [names]:
                if not isinstance(name, str) or "://" in name or not name:
                    raise self.wrong(
                        "dataset_kwargs", "data_files names no local file", "name files beside the task: {test: rows.jsonl}"
                    )
                if not (home / name).resolve().is_relative_to(home):
                    raise self.wrong("dataset_kwargs", f"{name} lies outside the task's folder", "put it beside the task")
                if not (home / name).is_file():
                    fix = "put task and rows into a folder of their own, and name the folder in evaluate.suites"
                    raise self.wrong("dataset_kwargs", f"there is no file {name} beside the task", fix)
                found.setdefault(str(split), []).append(self.file.beside(name))
        return found

    def read(self, split: str, files: dict[str, list[File]]) -> list[dict[str, Any]]:
        if split not in files:
            raise self.wrong("dataset_kwargs", f"there is no split {split!r}", f"data_files has {', '.join(files)}")
        rows: list[dict[str, Any]] = []
        for file in files[split]:
            if file.suffix == ".csv":
                lines = list(csv_rows(file))
                header = lines[0][1] if lines else []
                for where, cells in lines[1:]:
                    if len(cells) != len(header):
                        raise BadInput(f"the row has {len(cells)} cells, the first line {len(header)}", where=where)
                    rows.append(dict(zip(header, cells, strict=True)))
            else:
                rows += [row for _, row in json_lines(file)]
        return rows

    def digest(self) -> str:
        files = sorted({file.path for some in self.files().values() for file in some})
        return digest_value([digest_file(self.file.path), *(digest_file(path) for path in files)])

    def metric(self, kind: str) -> str:
        """The first metric of the file."""
        known = (METRIC, NORMALISED) if kind == "multiple_choice" else ("exact_match",)
        listed = self.task.get("metric_list") or [{"metric": known[0]}]
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise self.wrong("metric_list", "metric_list is no list of metrics")
        named = [one.get("metric") for one in listed]
        chosen = next((name for name in named if name in known), None)
        if chosen is None:
            raise self.wrong("metric_list", f"of {named} none is read", f"name {' or '.join(known)}")
        return str(chosen)
