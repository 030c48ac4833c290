"""Ray as the engine, without Ray: what is refused before any work, what arrives from the driver's process, what no stage sees."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from pipeline.backends import ray_driver
from pipeline.backends.ray_actors import Hand, Switchboard
from pipeline.backends.ray_crew import FarCrew
from pipeline.backends.ray_driver import Gateway, handing_on_sigterm, listen
from pipeline.backends.ray_engine import RayEngine
from pipeline.errors import BadInput, Broken, Misuse, TrainingDiverged, TryLater
from pipeline.modeling.parallel.alike import difference, environment
from pipeline.modeling.parallel.far import GO, LEAVE, STOP
from pipeline.params import Params
from pipeline.params.compute import ComputeParams
from pipeline.ports import silent
from tests.checkouts import ROOT

BASE = {"model": {"name": "desk", "task": "generate", "base": "./base"}}
FRAMES = """
import json, os, pickle, signal, struct, sys, time
sys.path[:] = json.loads(sys.argv[1])
order = json.loads(sys.stdin.buffer.readline())
HEAD = struct.Struct(">QQ")
def read():
    number, size = HEAD.unpack(sys.stdin.buffer.read(16))
    return number, sys.stdin.buffer.read(size)
def write(number, content):
    os.write(1, HEAD.pack(number, len(content)) + content)
def say(*what):
    os.write(1, json.dumps(what).encode() + b"\\n")
"""


def engine(tmp_path: Path, address: str | None = "127.0.0.1:1", token: str | None = "t", **compute: Any) -> RayEngine:
    return RayEngine(ComputeParams(engine="ray", **compute), address, SecretStr(token) if token else None, state=tmp_path)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes a driver's process that is a script of a few lines, started and read as the real one is."""
    made: list[Gateway] = []

    def make(body: str) -> Gateway:
        monkeypatch.setattr(ray_driver, "_START", FRAMES + body)
        made.append(Gateway("lend", {"address": "here:1"}, "a-secret", tmp_path))
        return made[-1]

    yield make
    for gateway in made:
        gateway.end()


class Told:
    """A tracker that remembers metrics."""

    run_id = "run-1"

    def __init__(self) -> None:
        self.metrics: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], *, step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))


def double(number: int) -> int:
    if number < 0:
        raise BadInput("a negative number", where=str(number), fix="none below 0")
    return 2 * number


def test_params_are_read_and_what_does_not_fit_is_refused() -> None:
    assert Params.model_validate(BASE).compute == ComputeParams()
    assert Params.model_validate({**BASE, "compute": {"engine": "ray", "workers": 3, "cpus": 2}}).far_workers == 3
    assert Params.model_validate({**BASE, "compute": {"workers": 3}}).far_workers == 0
    for wrong in ({"workers": 0}, {"engine": "spark"}, {"workers": 2, "least": 3}, {"attempts": -1}, {"cpus": 0}):
        with pytest.raises(ValidationError):
            Params.model_validate({**BASE, "compute": {"engine": "ray", **wrong}})
    with pytest.raises(ValidationError, match=r"compute.workers says how many"):
        Params.model_validate({**BASE, "compute": {"engine": "ray"}, "train": {"machine": {"processes": 2}}})
    sharded = {**BASE, "train": {"machine": {"shard": True}}}
    with pytest.raises(ValidationError, match="nothing to spread over"):
        Params.model_validate(sharded)
    assert Params.model_validate({**sharded, "compute": {"engine": "ray"}}).train.machine.shard


def test_no_stage_depends_on_where_it_is_computed() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = {name.split(".")[0] for stage in stages.values() for name in stage.get("params", ())}
    assert "train" in named
    assert "compute" not in named


@pytest.mark.parametrize(
    ("address", "token", "said"),
    [
        (None, "t", "nobody says where the Ray cluster is"),
        ("", "t", "nobody says where"),
        ("ray://head:10001", "t", "is no address of a Ray cluster"),
        ("head", "t", "is no address"),
        ("head:99999", "t", "is no address"),
        ("127.0.0.1:6379", None, "there is no token"),
        ("127.0.0.1:6379", " ", "there is no token"),
    ],
)
def test_settings_that_are_missing_or_wrong_are_told_with_what_to_do(
    tmp_path: Path, address: str | None, token: str | None, said: str
) -> None:
    with pytest.raises(Misuse, match=said) as refused:
        engine(tmp_path, address, token).check()
    assert refused.value.fix
    assert refused.value.where


def test_without_ray_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name, *more))
    with pytest.raises(Misuse, match="Ray is not installed here") as refused:
        engine(tmp_path).check()
    assert "tuneline[ray]" in str(refused.value.fix)


def test_a_head_that_does_not_answer_means_later_and_nothing_was_begun(tmp_path: Path) -> None:
    with socket.socket() as held:  # bound but not listened on: nobody answers there
        held.bind(("127.0.0.1", 0))
        there = engine(tmp_path, f"127.0.0.1:{held.getsockname()[1]}", from_mib=0.0)
        with pytest.raises(TryLater, match="does not answer"):
            there.check()
        with there.crew(double) as crew, pytest.raises(TryLater):
            crew.expect(1)
    assert list(tmp_path.iterdir()) == []


def test_neither_engine_imports_ray_into_our_own_process() -> None:
    script = (
        "import sys\n"
        "from pipeline.params import Params\n"
        "from pipeline.settings import Settings\n"
        "from pipeline.wiring import World, find_engine\n"
        "from pathlib import Path\n"
        f"said = {BASE!r}\n"
        "world = World(Path(), Settings(home=Path('x'), ray_address='127.0.0.1:1', ray_token='t'))\n"
        "assert find_engine(world, Params.model_validate(said)) is None\n"
        "assert 'pipeline.backends.ray_engine' not in sys.modules\n"
        "from pipeline.errors import TryLater\n"
        "try:\n"
        "    find_engine(world, Params.model_validate(said | {'compute': {'engine': 'ray'}}))\n"
        "except TryLater:\n"
        "    print('later')\n"
        "assert not {'ray', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.returncode) == ("later\n", 0), done.stderr


def test_answers_are_their_calls_whoever_is_done_first(scripted: Callable[..., Gateway]) -> None:
    gateway = scripted(
        """
job = pickle.loads(read()[1])
held = [read() for _ in range(6)]
for number, item in reversed(held):
    try:
        answer = True, job(pickle.loads(item))
    except Exception as error:
        answer = False, error
    write(number, pickle.dumps(answer))
time.sleep(600)
"""
    )
    with FarCrew(double, 2, 10, lambda: gateway) as crew:
        assert crew.depth == 0
        assert crew.submit(4).result() == 8  # on the spot: there is not work enough yet
        crew.expect(9)
        crew.expect(1)
        assert crew.depth > 0
        asked = [crew.submit(number) for number in (5, 1, -3, 2, 9, 0)]
        with pytest.raises(BadInput, match="a negative number"):
            asked.pop(2).result(timeout=60)
        assert [answer.result(timeout=60) for answer in asked] == [10, 2, 4, 18, 0]
    assert gateway.process.poll() is not None


def test_a_driver_that_dies_or_gives_up_fails_every_call_that_waits(scripted: Callable[..., Gateway]) -> None:
    dead = scripted("read(); read(); os.kill(os.getpid(), signal.SIGKILL)")
    with FarCrew(double, 2, 1, lambda: dead) as crew:
        crew.expect(1)
        asked = [crew.submit(number) for number in range(3)]
        for answer in asked:
            with pytest.raises(TryLater, match="ended without a word"):
                answer.result(timeout=60)
        with pytest.raises(TryLater):
            crew.submit(7).result(timeout=60)
    told = scripted(
        "from pipeline.errors import Misuse\nread(); read()\nwrite(2**64 - 1, pickle.dumps(Misuse('a node has other libraries')))"
    )
    with FarCrew(double, 2, 1, lambda: told) as crew:
        crew.expect(1)
        with pytest.raises(Misuse, match="other libraries"):
            crew.submit(1).result(timeout=60)


def test_what_workers_of_a_training_say_is_passed_on(scripted: Callable[..., Gateway], caplog: pytest.LogCaptureFixture) -> None:
    gateway = scripted(
        """
assert os.environ["RAY_AUTH_MODE"] == "token" and os.environ["RAY_AUTH_TOKEN"] == "a-" + "secret"
assert "a-" + "secret" not in json.dumps(order) + open("/proc/self/cmdline").read()
say("progress", "training", 1, 3)
say("log_metrics", {"loss": 0.5}, 1)
say("log", "pipeline.x", 30, "workers were lost")
say("result", {"steps": 3})
"""
    )
    tracker, seen = Told(), []
    found = listen(gateway, threading.Event(), tracker, lambda *what: seen.append(what))  # type: ignore[arg-type]
    assert found == {"steps": 3}
    assert (seen, tracker.metrics) == ([("training", 1, 3)], [(1, {"loss": 0.5})])
    assert ("pipeline.x", logging.WARNING, "workers were lost") in caplog.record_tuples


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", TryLater, "ended without a word"),
        ("pass", Broken, "without a result"),
        (
            "say('failed', 1, 'Broken', 'RuntimeError: peer', None, None, 'Traceback')\n"
            "say('failed', 0, 'TrainingDiverged', 'NaN at step 3', None, None, None)",
            TrainingDiverged,
            "NaN at step 3",
        ),
        ("say('failed', -1, 'TryLater', 'the Ray cluster is gone', 'x', 'y', None)", TryLater, "cluster is gone"),
    ],
)
def test_the_likeliest_cause_of_an_end_is_raised_as_its_own_kind(
    scripted: Callable[..., Gateway], body: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        listen(scripted(body), threading.Event(), Told(), silent)  # type: ignore[arg-type]


def test_sigterm_is_handed_to_the_workers_and_the_old_handler_comes_back(scripted: Callable[..., Gateway]) -> None:
    gateway = scripted(
        """
say("progress", "training", 1, 3)
assert sys.stdin.buffer.readline() == b"stop\\n"
say("failed", 0, "TryLater", "stopped by SIGTERM at step 1", None, "run again", None)
"""
    )
    before = signal.getsignal(signal.SIGTERM)

    def stop(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TryLater, match="at step 1"), handing_on_sigterm(gateway) as stopped:
        listen(gateway, stopped, Told(), stop)  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_switchboard_hears_the_newest_group_alone() -> None:
    board = Switchboard()
    board.begin("a:1", 0, 2)
    board.begin("a:1", 1, 2)
    assert board.say("a:1", 0, b"one\n")
    assert board.take()[3] == [(0, b"one\n")]
    assert board.say("a:1", 0, b"two\n")
    board.begin("b:2", 0, 1)
    assert not board.say("a:1", 0, b"from one that Ray gave up\n")
    assert board.say("b:2", 0, b"three\n")
    assert (board.ask("a:1"), board.ask("b:2")) == (LEAVE, GO)
    board.stop()
    assert (board.ask("a:1"), board.ask("b:2")) == (LEAVE, STOP)
    begun, count, silent_for, lines = board.take()
    assert (begun, count, lines) == (2, 1, [(0, b"three\n")])
    assert silent_for >= 0


def test_a_hand_answers_or_gives_back_the_error() -> None:
    import pickle

    hand = Hand(pickle.dumps(double))
    assert pickle.loads(hand.work(pickle.dumps(3))) == (True, 6)
    done, error = pickle.loads(hand.work(pickle.dumps(-1)))
    assert not done
    assert isinstance(error, BadInput)
    assert error.fix == "none below 0"
    assert hand.about() == environment()


def test_machines_that_differ_are_told_by_what() -> None:
    here = dict(environment())
    assert difference(here, dict(here)) is None
    assert difference(here, {**here, "torch": "1.0"}) == f"torch 1.0 instead of {here['torch'][:12]}"
    assert "code none instead" in str(difference(here, {name: value for name, value in here.items() if name != "code"}))
    assert json.dumps(here)


def test_trials_are_under_way_together_unless_they_have_stages_in_common() -> None:
    from pipeline.trials import together

    rate = {"learning_rate": {"low": 1.0e-4, "high": 1.0e-2}}
    ray = {"engine": "ray", "workers": 4}
    said = {**BASE, "sweep": {"space": rate}}
    assert together(Params.model_validate(said)) == 1
    assert together(Params.model_validate({**said, "compute": ray})) == 4
    assert together(Params.model_validate({**said, "compute": ray, "train": {"machine": {"shard": True}}})) == 1
    stages = [{"name": "first"}, {"name": "second"}]
    later = {"stages.second.learning_rate": rate["learning_rate"]}
    chain = {**BASE, "train": {"stages": stages}, "compute": ray}
    assert together(Params.model_validate({**chain, "sweep": {"space": later}})) == 1, "the first stage is trained once for all"
    assert together(Params.model_validate({**chain, "sweep": {"space": rate}})) == 4
