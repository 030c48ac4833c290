"""Canaries and shadows: who gets which asks, what stops a canary, what a shadow may not do; and classify."""

from __future__ import annotations

import asyncio

import pytest
from modeling_kit import model_params
from serving_world import QUESTIONS, World, ask, heard, listen, make_adapter
from test_engine import held, running, until  # noqa: F401 - a fixture

from pipeline.domain.serving import Ask, NotServed
from pipeline.errors import BadInput, Broken, Misuse
from pipeline.params.serve import SloParams
from pipeline.serving.routing import of_share
from pipeline.serving.traffic import TrafficFile
from pipeline.serving.watching import Outcome, Watch


@pytest.fixture
def two(adapters):
    return {name: adapters[0][name] for name in ("1", "2")}, adapters[1]


@pytest.fixture
def world(lively, two, tmp_path):
    world = World(tmp_path, lively)
    for folder in two[0].values():
        world.register(folder)
    world.promote("1")
    world.promote("2", "staging")
    return world


def break_canary(engine, monkeypatch):
    """Let version 2 fail, as a model that crashes would."""
    whole = engine._maker.answer

    async def answer(handle, asked, release):
        if release.version == "2":
            raise Broken("it crashes")
        async for piece in whole(handle, asked, release):
            yield piece

    monkeypatch.setattr(engine._maker, "answer", answer)


def test_a_share_is_drawn_by_the_ask_and_is_about_as_large_as_asked():
    drawn = [of_share("canary", f"ask-{n}", 0.2) for n in range(5000)]
    assert 0.17 < sum(drawn) / 5000 < 0.23
    assert drawn == [of_share("canary", f"ask-{n}", 0.2) for n in range(5000)]
    assert drawn != [of_share("shadow", f"ask-{n}", 0.2) for n in range(5000)]
    assert not any(of_share("canary", f"{n}", 0.0) for n in range(100))
    assert all(of_share("canary", f"{n}", 1.0) for n in range(100))
    # Whoever is in a small share is in a larger one too.
    assert all(of_share("canary", f"ask-{n}", 0.5) for n in range(5000) if drawn[n])


def test_the_canary_answers_its_share_and_says_so(world, two, running):  # noqa: F811
    engine = running(world.engine(canary={"share": 0.5}))
    said = {}
    for n in range(12):
        text, release = listen(engine, ask(f"a{n}"))
        assert text == two[1][release.version][0]
        assert release.role == ("canary" if of_share("canary", f"a{n}", 0.5) else "production")
        said[release.version] = said.get(release.version, 0) + 1
    assert set(said) == {"1", "2"}
    world.promote("2")
    until(lambda: held(engine) == "2")
    assert {listen(engine, ask(f"b{n}"))[1].role for n in range(8)} == {"production"}


def test_a_canary_that_fails_is_stopped_and_its_stage_rolled_back(world, two, running, monkeypatch):  # noqa: F811
    told = []
    slo = {"errors": 0.2, "min_requests": 5, "then": "roll_back"}
    engine = world.engine(canary={"share": 0.5}, slo=slo, roll_back=lambda *said: told.append(said))
    running(engine)
    break_canary(engine, monkeypatch)
    failed = 0
    for n in range(24):
        try:
            assert listen(engine, ask(f"a{n}"))[0] == two[1]["1"][0]
        except Broken:
            failed += 1
    assert failed == 5
    until(lambda: told)
    version, stage, sentence = told[0]
    assert (len(told), version, stage) == (1, "2", "staging")
    assert "5 of its last 5 requests failed" in sentence
    assert sentence in engine.health().alarms
    # It stays stopped, whatever else happens in the ledger, until another holds its stage.
    world.promote("1", "other")
    until(lambda: engine._follower._head == world.ledger.head("desk"))
    assert engine._follower.routes.canary is None
    world.register(two[0]["2"])
    world.promote("3", "staging")
    until(lambda: engine._follower.routes.canary is not None)
    assert not engine.health().alarms


def test_an_ask_that_is_wrong_is_no_fault_of_the_canary(world, running):  # noqa: F811
    engine = running(world.engine(canary={"share": 1.0}, slo={"errors": 0.0, "min_requests": 1}))
    for n in range(5):
        with pytest.raises(BadInput):
            listen(engine, ask(f"a{n}", most=0))
    assert engine._follower.routes.canary is not None
    assert listen(engine, ask("b"))[1].role == "canary"


def test_bad_feedback_stops_a_canary_and_only_known_answers_get_any(world, running):  # noqa: F811
    engine = running(world.engine(canary={"share": 1.0}, slo={"bad_feedback": 0.4, "min_requests": 4}))
    for n in range(4):
        listen(engine, ask(f"a{n}"))
        engine.feedback(f"a{n}", good=n == 0)
    assert engine._follower.routes.canary is None
    assert "3 of the last 4 judgements" in " ".join(engine.health().alarms)
    with pytest.raises(NotServed):
        engine.feedback("unknown", good=True)


@pytest.mark.parametrize(
    ("slo", "outcomes", "broken"),
    [
        ({"errors": 0.1}, [Outcome(True, 1.0)] * 2 + [Outcome(False, 1.0)] * 8, "2 of its last 10 requests failed"),
        ({"errors": 0.2}, [Outcome(True, 1.0)] * 2 + [Outcome(False, 1.0)] * 8, None),
        ({"errors": 0.0}, [Outcome(True, 1.0)] * 9, None),
        ({"p95_seconds": 1.0}, [Outcome(False, 0.5)] * 9 + [Outcome(False, 3.0)], "took up to 3.00 s"),
        ({"p95_seconds": 1.0}, [Outcome(False, 0.5)] * 19 + [Outcome(False, 3.0)], None),
        ({"refusals": 0.2}, [Outcome(False, 1.0, refused=True)] * 3 + [Outcome(False, 1.0)] * 7, "3 of its last 10 answers"),
        ({"errors": 0.5, "window": 10}, [Outcome(True, 1.0)] * 50 + [Outcome(False, 1.0)] * 10, None),
    ],
)
def test_objectives_are_kept_over_the_last_requests(slo, outcomes, broken):
    watch = Watch(SloParams(**{"errors": None, "min_requests": 10, **slo}))
    for outcome in outcomes:
        watch._outcomes.append(outcome)
    found = watch.broken()
    assert (found is None) if broken is None else (broken in found)


def test_a_shadow_answers_unheard_and_is_counted(world, two, running, tmp_path):  # noqa: F811
    path = tmp_path / "traffic.db"
    engine = running(world.engine(shadow={"share": 1.0}, traffic=TrafficFile(path)))

    async def some():
        told = [await heard(engine, ask(f"a{n}")) for n in range(6)]
        while engine._shadowing.under_way:
            await asyncio.sleep(0.01)
        return told

    assert {(text, release.version) for text, release in asyncio.run(some())} == {(two[1]["1"][0], "1")}
    assert engine.health().counts["answered_shadow"] == 6
    engine.close()
    assert [TrafficFile(path).answered("desk", version) for version in ("1", "2")] == [6, 6]


def test_a_shadow_that_fails_harms_nobody(world, two, running, monkeypatch):  # noqa: F811
    engine = running(world.engine(shadow={"share": 1.0}))
    break_canary(engine, monkeypatch)

    async def some():
        told = [await heard(engine, ask(f"a{n}")) for n in range(3)]
        await asyncio.sleep(0.05)
        return told

    assert {text for text, _ in asyncio.run(some())} == {two[1]["1"][0]}
    assert "shadow" in " ".join(engine.health().alarms)
    assert engine.health().counts["shadow_failed"] == 3


def test_texts_are_labelled_by_the_release_with_every_label(lively, tmp_path, running):  # noqa: F811
    from pipeline.domain.tuning import Output
    from pipeline.modeling.answering.generate import Subjects

    texts = ["about cat 4", "about red 1", "one two three"]
    world = World(tmp_path / "world", lively, "classify")
    subjects = Subjects(lively, model_params(lively, "classify"))
    for n in (1, 2):
        folder = tmp_path / str(n)
        make_adapter(lively, folder, seed=20 + n, output=Output.LABEL)
        world.register(folder)
        subjects.add(str(n), folder)
    world.promote("1")
    engine = running(world.engine())

    async def labelled(version=None):
        return await asyncio.gather(*(engine.classify(Ask(id=text, text=text, release=version)) for text in texts))

    for version, pin in (("1", None), ("2", "2")):
        found = asyncio.run(labelled(pin))
        right = subjects.predict(version, texts)
        assert [one.labels[0][0] for one in found] == [p.label for p in right]
        assert [one.labels[0][1] for one in found] == pytest.approx([p.score for p in right], abs=1e-4)
        assert {one.release.version for one in found} == {version}
        assert all(sum(score for _, score in one.labels) == pytest.approx(1.0, abs=1e-4) for one in found)
        assert all(len(one.labels) == 3 for one in found)
    with pytest.raises(Misuse):
        listen(engine, ask("x", QUESTIONS[0]))
    with pytest.raises(BadInput):
        asyncio.run(engine.classify(Ask(id="x")))
