"""Pages: nothing from the outside gets out of its text, nothing is fetched, and drawings are where the numbers say."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluated_world import World, make_world
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.data import Task
from pipeline.evaluation.disagreements import ANOTHER, confusion, flips
from pipeline.evaluation.rows import Predictions
from pipeline.pages import Bar, Bars, Block, Lines, Links, Matrix, Pair, Pairs, Side, Table, Text, page
from pipeline.pages.drawings import bar_chart, line_chart
from pipeline.pages.render import safe_address
from pipeline.params import GateParams
from pipeline.steps.gate import gate
from pipeline.steps.report import report

EVIL = "\"><script>alert(1)</script><img src=https://evil.example/x onerror=alert(1)>'{{ 7*7 }}\x00\u202e\ud800"


class Seen(HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.events: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data", "srcset", "poster")]
        self.events += [k for k, _ in attrs if k.startswith("on") or k == "style"]

    def handle_data(self, data: str) -> None:
        self.text += data


def blocks(text: str) -> list[Block]:
    return [
        Text(text, text),
        Table(text, [text], [[text], [1.5], [None]], note=text, tones={0: "good"}),
        Bars(text, [Bar(text, 0.5, 0.4, 0.6, text, text, 0.45), (text, 0.1, None, None)], note=text),
        Lines(text, {text: [(0, 1), (1, math.nan), (2, math.inf)], "b": []}, text, text),
        Matrix(text, [text, "b"], [[1, 2], [0, 1]], note=text),
        Matrix(text, [f"{text}{at}" for at in range(20)], [[1] * 20] * 20, note=text),
        Pairs(text, [Pair(text, (Side(text, text, "good"),))], note=text),
        Links(text, [(text, text), (text, "javascript:alert(1)"), ("ours", "data_docs/index.html")]),
    ]


def test_nothing_gets_out_of_its_text() -> None:
    seen = Seen(page(EVIL, EVIL, None, blocks(EVIL)))
    assert not {"script", "img", "iframe", "link", "object", "base", "form"} & set(seen.tags)
    assert seen.addresses == ["data_docs/index.html"]
    assert seen.events == []
    assert "<script>alert(1)</script>" in seen.text
    assert "{{ 7*7 }}" in seen.text
    assert "\\u0000\\u202e\\ud800" in seen.text


@given(st.text(max_size=30))
def test_any_text_makes_a_page_that_can_be_written(text: str) -> None:
    html = page(text, text, True, blocks(text))
    html.encode("utf-8")
    assert set(Seen(html).addresses) <= {"data_docs/index.html", text}
    assert "script" not in Seen(html).tags


def test_nothing_is_fetched_and_the_policy_admits_our_style_alone() -> None:
    html = page("t", "v", True, blocks("plain"))
    assert not re.search(r"""(src|href|url|@import)\s*[=(]\s*["']?\s*(https?:)?//""", html)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert style is not None
    assert policy is not None
    named = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].startswith(f"default-src 'none'; style-src 'sha256-{named}';")


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("https://example.org/a?b=c&d#e", True),
        ("http://127.0.0.1:5000/#/experiments/1", True),
        ("data_docs/index.html", True),
        ("../report.html#checks", True),
        ("/releases/3", True),
        ("", False),
        ("//evil.example/x", False),
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        ("java\tscript:alert(1)", False),
        (" javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("file:///etc/passwd", False),
        ("https://a b", False),
        ("https://a\\b", False),
        ("\\\\evil\\x", False),
        ("https:evil", False),
    ],
)
def test_addresses(address: str, safe: bool) -> None:
    assert (safe_address(address) is not None) is safe


def test_verdict_comes_first_and_in_words() -> None:
    for ok, tone in ((True, "good"), (False, "bad"), (None, "warn")):
        assert f'<div class="verdict {tone}">It is so</div>' in page("t", "It is so", ok, [])


def test_bars_are_where_the_numbers_say() -> None:
    chart = bar_chart(Bars("h", [Bar("a", 0.5, 0.25, 0.75, "x"), Bar("b", -0.5, series="y", bound=0.0)]))
    assert (chart.least, chart.greatest) == (-0.5, 0.75)
    (first,), (second,) = (group.marks for group in chart.groups)
    assert (first.start, first.length, first.low, first.high) == (40.0, 40.0, 60.0, 100.0)
    assert (second.start, second.length, second.low, second.bound) == (0.0, 40.0, None, 40.0)
    assert (first.series, second.series) == (0, 1)
    assert chart.names == (("x", 0), ("y", 1))
    beyond = bar_chart(Bars("h", [("a", 2.0, -1.0, math.nan)], span=(0.0, 1.0))).groups[0].marks[0]
    assert (beyond.length, beyond.low, beyond.high) == (100.0, 0.0, None)


def test_neighbours_of_one_label_stand_together_in_their_own_colours() -> None:
    items = [Bar(label, 0.5, series=series) for label in ("p", "q") for series in ("champion", "base")]
    chart = bar_chart(Bars("h", items, order=("candidate", "champion", "base")))
    assert [(g.label, [m.series for m in g.marks]) for g in chart.groups] == [("p", [1, 2]), ("q", [1, 2])]
    assert chart.names == (("champion", 1), ("base", 2))


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.tuples(st.floats(), st.floats()), max_size=8)))
def test_any_curve_stays_on_the_paper(series: dict[str, list[tuple[float, float]]]) -> None:
    chart = line_chart(Lines("h", series))
    kept = [d for c in chart.curves for d in c.dots]
    assert len(kept) + chart.dropped == sum(map(len, series.values()))
    for x, y in kept:
        assert 64 <= x <= 628
        assert 12 <= y <= 200


def test_long_curves_keep_their_spikes() -> None:
    points = [(float(at), 50.0 if at == 7777 else 1.0) for at in range(10_000)]
    chart = line_chart(Lines("h", {"loss": points}))
    assert chart.curves[0].path.count("L") < 1100
    assert " 12L" in chart.curves[0].path.replace(" L", "L"), "the spike reaches the top of the paper"


def test_flips_and_confusion() -> None:
    expected = ["a", "a", "b", "b"]
    answers = {"candidate": ["a", "b", "b", "x"], "base": ["b", "a", "b", "b"]}
    found = flips(Predictions([], [], expected, answers, {}), "accuracy", "base")
    assert (found.won, found.lost) == ((0,), (1, 3))
    seen = confusion(expected, answers["candidate"])
    assert seen.labels == ("a", "b", ANOTHER)
    assert seen.counts == ((1, 1, 0), (0, 1, 1), (0, 0, 0))


def _report(world: World, right: dict[str, float], curves: Path) -> str:
    evaluation = world.evaluate(right)
    policy = GateParams(
        parity=(), thresholds={"accuracy": 0.85}, not_worse_than_champion={"accuracy": 0.02}, better_than_base={"accuracy": 0.1}
    )
    return report(
        gate(evaluation, world.training, policy),
        evaluation,
        world.training,
        snapshot=world.snapshot,
        validation=world.validation,
        splits=world.splits,
        champion=world.champion,
        predictions=world.root / "evaluation" / "predictions.parquet",
        curves=curves,
        test=world.root / "data",
    )


def test_report_tells_the_whole_story(world: World) -> None:
    curves = world.root / "curves.jsonl"
    curves.write_text(
        '{"step":1,"loss":2.5,"learning_rate":0.0002,"grad_norm":1.5}\n{"step":2,"loss":1.5,"learning_rate":0.0001,"grad_norm":1}\n'
        '{"step":2,"eval_loss":1.25}\n'
    )
    html = _report(world, {"candidate": 0.95, "champion": 0.8, "base": 0.3}, curves)
    seen = Seen(html).text
    assert re.search(r"Passed: all \d checks\.", seen)
    for told in (
        "thresholds.accuracy",
        "Metrics on 160 test rows",
        "Candidate minus champion",
        "Learning rate",
        "Gradient norm",
        "Accuracy by label",
        "Accuracy by channel",
        "What the candidate takes for what",
        "Rows that the candidate won against the champion",
        "please help",
        "week1.jsonl",
        world.splits.digest[:12],
        "12345",
        "eval_accuracy 0.9",
        "the loss on eval rises from step 30",
        "train.learning_rate",
        "torch",
    ):
        assert told in seen, told
    assert Seen(html).addresses == []


def test_report_of_a_refused_and_of_an_empty_evaluation(world: World, tmp_path: Path) -> None:
    refused = Seen(_report(world, {"candidate": 0.2, "champion": 0.8, "base": 0.3}, tmp_path / "none.jsonl")).text
    assert re.search(r"Failed \(3 of \d checks\)", refused)
    assert "its lower end must reach 0.85" in refused
    empty = make_world(tmp_path / "empty", 0, task=Task.CLASSIFY)
    assert "Not enough evidence" in Seen(_report(empty, {}, tmp_path / "none.jsonl")).text
