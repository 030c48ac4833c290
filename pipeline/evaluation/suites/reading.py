"""A suite's file into its rows: which reader takes which kind, which rows are worked examples, and which are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.domain.measured import SuiteKind
from pipeline.domain.record import digest_file
from pipeline.errors import BadInput, Misuse
from pipeline.evaluation.metrics import Metric
from pipeline.evaluation.rows import SplitRows
from pipeline.evaluation.suites import canaries, edge_cases, final_answers, perturbed, questions, safety, texts
from pipeline.evaluation.suites.files import File
from pipeline.evaluation.suites.harness_task import read_task
from pipeline.evaluation.suites.running import Canaries
from pipeline.evaluation.suites.suite import Rows, Suite, drawn
from pipeline.params.evaluate import SuiteParams

Row = TypeVar("Row")


def read_suite(
    params: SuiteParams,
    path: Path | None,
    test: SplitRows,
    *,
    seed: int,
    primary: Metric | None = None,
    max_new_tokens: int = 128,
) -> Suite:
    """The rows of the suite `params`, of the file `path` or (perturbed) of the test rows.

    The file goes by its name in params (its ending, and in messages): a copy may be called otherwise. primary: the first metric,
    by which perturbed rows are scored. max_new_tokens: where the suite does not say. Raises BadInput with file, line and key for
    what cannot be read, Misuse for a suite that the params do not let be.
    """
    most = params.max_new_tokens or max_new_tokens
    if params.kind is SuiteKind.PERTURBED:
        return _perturbed(params, test, seed, primary, most)
    if path is None or params.file is None:
        raise Misuse(f"the suite {params.name} needs a file", where="evaluate.suites")
    file = _file(path, params)
    if file.suffix in (".yaml", ".yml") and params.kind in (SuiteKind.MULTIPLE_CHOICE, SuiteKind.FINAL_ANSWER):
        task = read_task(file, shots=params.shots, most=params.rows, max_new_tokens=most)
        return _suite(params, task.digest, task.metric, task.names, task.rows)
    digest = digest_file(file.path) if file.path.is_file() else ""
    rows: Rows
    if params.kind is SuiteKind.MULTIPLE_CHOICE:
        shots, asked = _parted(questions.read_questions(file), params, file)
        rows, metric = questions.Questions(questions.prompted(asked, shots)), questions.METRIC
        return _suite(params, digest, metric, [one.name for one in asked], rows)
    if params.kind is SuiteKind.FINAL_ANSWER:
        shown, problems = _parted(final_answers.read_problems(file), params, file)
        rows = final_answers.Problems(final_answers.prompted(problems, shown), most)
        return _suite(params, digest, final_answers.METRIC, [one.name for one in problems], rows)
    if params.shots:
        raise Misuse(
            f"the suite {params.name} has no worked examples: {params.kind} rows are asked as they are",
            where="evaluate.suites.shots",
            fix="leave shots out",
        )
    return _plain(params, file, digest, seed, most)


def _file(path: Path, params: SuiteParams) -> File:
    """The file itself, or the one task of lm-evaluation-harness in a folder that holds its rows too."""
    name = params.file or path.name
    if not path.is_dir():
        return File(path, name)
    tasks = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml"))
    if len(tasks) != 1:
        raise BadInput(
            f"the folder holds {len(tasks)} YAML files", where=name, fix="name a file, or a folder of one task and its rows"
        )
    return File(tasks[0], f"{name.rstrip('/')}/{tasks[0].name}")


def _plain(params: SuiteParams, file: File, digest: str, seed: int, most: int) -> Suite:
    """A suite of rows that are asked as they are."""
    if params.kind is SuiteKind.EDGE_CASES:
        _, cases = _parted(edge_cases.read_edge_cases(file), params, file)
        names = [one.name for one in cases]
        return _suite(params, digest, edge_cases.METRIC, names, edge_cases.EdgeCases(tuple(cases), most))
    if params.kind is SuiteKind.SAFETY:
        _, requests = _parted(safety.read_safety(file), params, file)
        names = [one.name for one in requests]
        return _suite(params, digest, safety.METRIC, names, safety.Safety(tuple(requests), most))
    if params.kind is SuiteKind.TEXT:
        _, documents = _parted(texts.read_documents(file), params, file)
        return _suite(params, digest, texts.METRIC, [one.name for one in documents], texts.Documents(tuple(documents)))
    _, planted = _parted(canaries.read_canaries(file, seed=seed), params, file)
    return _suite(params, digest, canaries.METRIC, [one.name for one in planted], Canaries(tuple(planted)))


def _perturbed(params: SuiteParams, test: SplitRows, seed: int, primary: Metric | None, most: int) -> Suite:
    if primary is None or not primary.kinds & perturbed.ASKED:
        raise Misuse(
            f"the suite {params.name} asks test rows for answers or labels, and the first metric counts none of them",
            where="evaluate.suites",
            fix="leave the suite out, or put another metric first",
        )
    places = test.places(primary.kinds & perturbed.ASKED)
    chosen = drawn(places, params.rows, of=[test.ids[at] for at in places])
    rows = perturbed.perturbed(test.only(chosen), seed=seed)
    asked = perturbed.PerturbedRows(rows, primary, most, tuple(chosen))
    return Suite(params.name, params.kind, None, asked.metric, tuple(rows.ids), tuple(rows.groups), asked)


def _parted(read: Sequence[tuple[Row, object]], params: SuiteParams, file: File) -> tuple[list[Row], list[Row]]:
    """Worked examples, the file's first rows, and those that are asked, at most so many, of the others."""
    if not read:
        raise BadInput("the file has no row", where=str(file), fix="write some, or leave the suite out")
    if len(read) <= params.shots:
        raise BadInput(
            f"the file has {len(read)} rows, and {params.shots} of them are worked examples", where=str(file), fix="lower shots"
        )
    left = read[params.shots :]
    asked = drawn([row for row, _ in left], params.rows, of=[content for _, content in left])
    return [row for row, _ in read[: params.shots]], asked


def _suite(params: SuiteParams, digest: str, metric: str, names: Sequence[str], rows: Rows) -> Suite:
    groups = tuple(str(number) for number in range(len(names)))
    return Suite(params.name, params.kind, digest, metric, tuple(names), groups, rows)
