"""Task files of lm-evaluation-harness: the prompts and scores that the harness itself makes of them, and what is refused."""

from __future__ import annotations

import json
import time

import pytest
from suite_kit import NOBODY, Told, lines, run

from pipeline.errors import BadInput
from pipeline.evaluation.suites import read_suite
from pipeline.params.evaluate import SuiteParams

MMLU = r"""
task: quiz
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl, dev: shots.jsonl}}
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
num_fewshot: 2
output_type: multiple_choice
description: "These are questions about {{subject}}.\n\n"
doc_to_text: "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nAnswer:"
doc_to_choice: ["A", "B"]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""
CLOZE = r"""
task: cloze
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl, dev: shots.jsonl}}
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
num_fewshot: 1
output_type: multiple_choice
doc_to_text: question
doc_to_choice: "{{[choices[0] ~ '!', choices[1]]}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc_norm}]
"""
MATHS = r"""
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl, dev: shots.jsonl}}
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
num_fewshot: 2
output_type: generate_until
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{solution}}"
generation_kwargs: {until: ["Question:", "</s>"], do_sample: false, temperature: 0.0, max_gen_toks: 77}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"]
filter_list:
  - name: flexible-extract
    filter:
      - {function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
      - {function: take_first}
"""


def rows_of(start: int, count: int) -> str:
    return lines(
        *[
            {
                "question": f" Is {n} even? ",
                "choices": ["yes, it is", "no"],
                "answer": n % 2,
                "subject": "numbers",
                "solution": f"Well.\n#### {n},000",
            }
            for n in range(start, start + count)
        ]
    )


@pytest.fixture
def task(tmp_path):
    (tmp_path / "rows.jsonl").write_text(rows_of(10, 12))
    (tmp_path / "shots.jsonl").write_text(rows_of(0, 5))

    def made(text: str, kind: str = "multiple_choice", **params):
        path = tmp_path / "task.yaml"
        path.write_text(text)
        return read_suite(SuiteParams(name="t", kind=kind, file="task.yaml", **params), path, NOBODY, seed=7)

    return made


def harness_task(text: str, folder):
    """The same task as the harness reads it."""
    pytest.importorskip("lm_eval")
    import yaml
    from lm_eval.api.task import ConfigurableTask

    config = yaml.safe_load(text)
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"] = {
        "data_files": {split: str(folder / name) for split, name in files.items()},
        "cache_dir": str(folder),
    }
    made = ConfigurableTask(config=config)
    made.build_all_requests(limit=None, rank=0, world_size=1)
    return made


@pytest.mark.parametrize("text", [MMLU, CLOZE])
def test_multiple_choice_is_asked_and_scored_item_by_item_as_the_harness_does(text, task, tmp_path):
    theirs, ours = harness_task(text, tmp_path), task(text)
    asked = [(q.prompt, choice) for q in ours.rows.questions for choice in q.choices]
    assert asked == [instance.args for instance in theirs.instances]
    sums = {pair: -((hash(pair) % 1000) / 50) for pair in asked}
    report = run(ours, Told(likely=lambda _, prompt, choice: sums[prompt, choice]))
    docs = list(theirs.test_docs())
    scores = [
        theirs.process_results(doc, [(sums[q.prompt, choice], False) for choice in q.choices])[ours.metric]
        for doc, q in zip(docs, ours.rows.questions, strict=True)
    ]
    assert report.value("candidate").value == pytest.approx(sum(scores) / len(scores))
    assert report.failures == tuple(name for name, score in zip(ours.names, scores, strict=True) if not score)


def test_generated_answers_are_extracted_and_matched_as_the_harness_does(task, tmp_path):
    theirs, ours = harness_task(MATHS, tmp_path), task(MATHS, "final_answer")
    assert list(ours.rows.prompts) == [instance.args[0] for instance in theirs.instances]
    assert theirs.instances[0].args[1]["max_gen_toks"] == ours.rows.max_new_tokens == 77
    assert tuple(theirs.instances[0].args[1]["until"]) == ours.rows.stops
    shapes = [
        "It is {n}000.",
        "#### ${n},000",
        "",
        "first 3, then {n},000",
        "no number",
        "{n},000 or 7",
        "-{n}000",
        "$",
        "... , {n}000,",
    ]
    docs = list(theirs.test_docs())
    for shape in shapes:
        answers = [shape.format(n=n) for n in range(10, 22)]
        for instance, answer in zip(theirs.instances, answers, strict=True):
            instance.resps = [answer]
        theirs.apply_filters()
        expected = [
            theirs.process_results(doc, [instance.filtered_resps["flexible-extract"]])["exact_match"]
            for doc, instance in zip(docs, theirs.instances, strict=True)
        ]
        found = [ours.rows.score(answer, target) for answer, target in zip(answers, ours.rows.targets, strict=True)]
        assert found == expected, shape


def test_shots_and_rows_of_params_come_before_the_files_own(task):
    assert task(MMLU, shots=3).rows.questions[0].prompt.count("Answer:") == 4
    assert len(task(MMLU, rows=5)) == 5
    own = MMLU.replace("fewshot_split: dev\n", "")
    assert len(task(own)) == 10  # two of the rows are worked examples, and not asked
    assert task(MMLU).file != task(MMLU + "# a comment\n").file


def test_a_folder_of_one_task_and_its_rows_is_a_suite(task, tmp_path):
    whole = task(MMLU)
    folder = read_suite(SuiteParams(name="t", kind="multiple_choice", file="./suites/quiz/"), tmp_path, NOBODY, seed=7)
    assert (folder.file, folder.rows) == (whole.file, whole.rows)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(BadInput, match=r"there is no file rows.jsonl beside the task"):
        task(MMLU)
    (tmp_path / "other.yaml").write_text("a: 1")
    with pytest.raises(BadInput, match="holds 2 YAML files"):
        read_suite(SuiteParams(name="t", kind="multiple_choice", file="./suites/quiz/"), tmp_path, NOBODY, seed=7)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("answer\n", "!function utils.target\n"), "13: the tag !function would run code"),
        (("task: quiz\n", "task: quiz\ninclude: other.yaml\n"), r"task.yaml:3 include: the key include is not read"),
        (("task: quiz\n", "task: quiz\nprocess_docs: x\n"), "the key process_docs is not read"),
        (("output_type: multiple_choice", "output_type: loglikelihood_rolling"), "loglikelihood_rolling is not read"),
        (("dataset_path: json", "dataset_path: cais/mmlu"), "only local files are read"),
        (("rows.jsonl", "https://example.org/rows.jsonl"), "names no local file"),
        (("rows.jsonl", "../rows.jsonl"), "lies outside the task's folder"),
        (("sampler: first_n", "sampler: default"), "examples are the first ones"),
        (("num_fewshot: 2", "num_fewshot: 6"), "6 examples are asked for, the split dev has 5 rows"),
        (("num_fewshot: 2", "num_fewshot: many"), "num_fewshot is no whole number"),
        (("metric: acc,", "metric: mcc,"), "none is read"),
        (("doc_to_target: answer", "doc_to_target: nothing"), r"the target 'nothing' is none of"),
        (("{{question.strip()}}", "{{question.nothing}}"), "doc_to_text: the template cannot be filled in: UndefinedError"),
        (("{{question.strip()}}", "{{question.__class__.__mro__}}"), "SecurityError"),
        (("{{question.strip()}}", "{% include 'x' %}"), "cannot be filled in"),
        (("{{question.strip()}}", "{{'x' * 10**10}}"), "memory"),
        (("{{question.strip()}}", "{% for a in range(99999999) %}x{% endfor %}"), "cannot be filled in"),
        (('["A", "B"]', "question"), "gives no list of 2 to 26 texts"),
        (('["A", "B"]', '"{{question}}"'), "is no list of texts"),
    ],
)
def test_what_is_not_read_is_refused_by_name(change, says, task):
    assert change[0] in MMLU
    with pytest.raises(BadInput, match=says):
        task(MMLU.replace(*change, 1))


def test_templates_that_do_not_end_are_ended(task, monkeypatch):
    from pipeline.evaluation.suites import templates

    monkeypatch.setattr(templates, "SECONDS", 1)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    before = time.monotonic()
    with pytest.raises(BadInput, match=r"need more than 1 s|not done after 1 s"):
        task(MMLU.replace("{{question.strip()}}", loop))
    assert time.monotonic() - before < 15


def test_a_pattern_that_takes_for_ever_judges_nothing(task, monkeypatch):
    from pipeline.evaluation.suites import harness_scoring

    monkeypatch.setattr(harness_scoring, "_SECONDS", 0.05)
    slow = json.dumps(r"(?:(a|a)+)+b\1c")
    rows = task(MATHS.replace('"(-?[$0-9.,]{2,})|(-?[0-9]+)"', slow), "final_answer").rows
    assert rows.score("a" * 60 + "x", "1") is None
    for change, says in (
        (('"(-?[$0-9.,]{2,})|(-?[0-9]+)"', '"("'), "the pattern '\\('"),
        (("function: regex,", "function: custom,"), "the filter custom is not read"),
        (("temperature: 0.0", "temperature: 0.7"), "made greedily"),
        (("max_gen_toks: 77", "max_gen_toks: 0"), "max_gen_toks is 0"),
        (("ignore_case: true", "ignore_spaces: true"), "ignore_spaces of exact_match is not read"),
    ):
        with pytest.raises(BadInput, match=says):
            task(MATHS.replace(*change, 1), "final_answer")
