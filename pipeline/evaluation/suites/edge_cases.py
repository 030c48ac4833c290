"""Cases that people keep by hand: what an answer must hold and must not. One that breaks any of its rules has failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import BadInput
from pipeline.evaluation.metrics.json_schemas import schema_check
from pipeline.evaluation.metrics.patterns import matcher
from pipeline.evaluation.suites.files import Fields, File, yaml_list
from pipeline.evaluation.suites.suite import Scores, Ways
from pipeline.ports import Judge

METRIC = "passed"
MOST = 10_000


@dataclass(frozen=True, slots=True)
class EdgeCase:
    """One case. asked: a conversation, or of a classifier a text with its `label`. What is not asked for is None or empty."""

    name: str
    asked: str
    label: str | None = None
    must: tuple[str, ...] = ()
    must_not: tuple[str, ...] = ()
    regex: Callable[[str], bool] | None = None
    schema: Callable[[str], bool] | None = None
    max_characters: int | None = None
    rubric: str | None = None

    def keeps(self, answer: str) -> bool:
        """Whether the answer keeps every rule that needs no judge. Texts are looked for without regard to case."""
        low = answer.casefold()
        return (
            all(text.casefold() in low for text in self.must)
            and not any(text.casefold() in low for text in self.must_not)
            and (self.regex is None or self.regex(answer))
            and (self.schema is None or self.schema(answer))
            and (self.max_characters is None or len(answer) <= self.max_characters)
        )


@dataclass(frozen=True, slots=True)
class EdgeCases:
    """Scores 1 where every rule is kept, 0 where one is broken, None where only a judge could tell and none did."""

    cases: tuple[EdgeCase, ...]
    max_new_tokens: int

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        labelled = [case for case in self.cases if case.label is not None]
        others = [case for case in self.cases if case.label is None]
        said = (
            dict(zip((c.name for c in labelled), ways.predict(subject, [c.asked for c in labelled]), strict=True))
            if labelled
            else {}
        )
        if others:
            answers = ways.answers(subject, [case.asked for case in others], max_new_tokens=self.max_new_tokens)
            said |= dict(zip((case.name for case in others), answers, strict=True))
        return [_score(case, said[case.name], judge) for case in self.cases]


def _score(case: EdgeCase, answer: str, judge: Judge | None) -> float | None:
    if case.label is not None:
        return float(answer == case.label)
    if not case.keeps(answer):
        return 0.0
    if case.rubric is None:
        return 1.0
    held = judge.holds(case.rubric, case.asked, answer) if judge is not None else None
    return None if held is None else float(held)


def read_edge_cases(file: File) -> list[tuple[EdgeCase, Any]]:
    """The cases of a YAML list, each with what it says of itself."""
    found, seen = [], set[str]()
    for where, entry in yaml_list(file):
        fields = Fields(entry, where)
        name = fields.text("name")
        if name in seen:
            raise BadInput(f"two cases are called {name!r}", where=where, fix="give every case a name of its own")
        seen.add(name)
        found.append((_case(name, fields, f"{where} {name}"), entry))
        if len(found) > MOST:
            raise BadInput(f"there are more than {MOST} cases", where=where, fix="split the suite")
    return found


def _case(name: str, fields: Fields, where: str) -> EdgeCase:
    label = fields.optional_text("label")
    if label is not None:
        case = EdgeCase(name, fields.text("text"), label=label)
        fields.done()
        return case
    asked = fields.conversation()
    pattern, schema = fields.optional_text("regex"), fields.anything("schema")
    if schema is not None and not isinstance(schema, dict | bool):
        raise BadInput("schema is no JSON Schema", where=where, fix="write it as a mapping")
    case = EdgeCase(
        name,
        asked,
        must=fields.texts("must"),
        must_not=fields.texts("must_not"),
        regex=matcher(pattern, where, whole=False) if pattern is not None else None,
        schema=schema_check(schema, where) if schema is not None else None,
        max_characters=fields.count("max_characters", most=1_000_000),
        rubric=fields.optional_text("rubric"),
    )
    fields.done()
    if case == EdgeCase(name, asked):
        raise BadInput("the case asks nothing of the answer", where=where, fix="give it must, must_not, regex, schema or rubric")
    return case


def needs_judge(cases: tuple[EdgeCase, ...]) -> bool:
    return any(case.rubric is not None for case in cases)
