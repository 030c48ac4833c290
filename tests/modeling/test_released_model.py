"""A released adapter through MLflow: logged to a real store, loaded in a script of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from modeling_kit import model_params, run, train_params
from tuner_kit import SHAPES, make

ROOT = Path(__file__).parents[2]

LOG_AND_LOAD = """
import json, os, shutil, sys
import mlflow
from pathlib import Path
from pipeline.domain.data import Task
from pipeline.serving.released_shape import MODEL_FILE, settings, signature
sys.path.insert(0, {tests!r})
from modeling_kit import model_params
home, base = Path({home!r}), Path({base!r})
mlflow.set_tracking_uri(f"sqlite:///{{home}}/mlflow.db")
mlflow.set_experiment(experiment_id=mlflow.create_experiment("t", artifact_location=(home / "artifacts").as_uri()))
uris = []
for folder in ("generate", "classify", "both", "prefix"):
    task = "classify" if folder == "classify" else "generate"
    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(
            name="model", python_model=str(MODEL_FILE), artifacts={{"adapter": str(home / folder / "out" / "adapter")}},
            model_config=settings(model_params(base, task), max_new_tokens=12), signature=signature(Task(task)),
            code_paths=[{package!r}], pip_requirements=["mlflow"],
        )
    uris.append(info.model_uri)
(home / "uris.json").write_text(json.dumps(uris))
"""

PLAIN = """
import json, sys
import mlflow, pandas as pd
home = {home!r}
mlflow.set_tracking_uri(f"sqlite:///{{home}}/mlflow.db")
write, label, *others = [mlflow.pyfunc.load_model(uri) for uri in json.load(open(home + "/uris.json"))]
messages = [{{"role": "user", "content": "Where is Oslo?"}}]
out = {{
    "prompt": write.predict(pd.DataFrame({{"prompt": ["Where is Oslo?", "Where is Rome?"]}})).to_dict("list"),
    "messages": write.predict(pd.DataFrame({{"messages": [messages]}})).to_dict("list"),
    "json": write.predict([{{"messages": json.dumps(messages)}}]).to_dict("list"),
    "label": label.predict(pd.DataFrame({{"text": ["about cat 4", "about red 1"]}})).to_dict("list"),
    "others": [m.predict(pd.DataFrame({{"prompt": ["Where is Oslo?", "Where is Rome?"]}})).to_dict("list") for m in others],
    "code": sys.modules["pipeline"].__file__,
}}
try:
    label.predict(pd.DataFrame({{"words": ["x"]}}))
except Exception as error:
    out["refused"] = str(error)
try:
    mlflow.pyfunc.load_model(json.load(open(home + "/uris.json"))[0], model_config={{"base": {elsewhere!r}}})
except Exception as error:
    out["other base"] = str(error)
json.dump(out, open(home + "/out.json", "w"))
"""


@pytest.fixture(scope="module")
def home(chat_data, label_data, tiny_base, tmp_path_factory):
    home = tmp_path_factory.mktemp("released")
    for task, data in (("generate", chat_data), ("classify", label_data)):
        params = train_params(max_steps=60, dropout=0.0, save_steps=1000)
        run(data, tiny_base, home / task, params=params, model=model_params(tiny_base, task))
    # What replaces weights, a LoRA on top of that, and what stands before the text are released and asked the same way.
    make(tiny_base, home / "full", by=0.1, tuner="full")
    make(tiny_base, home / "both" / "out" / "adapter", by=0.1, start=home / "full")
    make(tiny_base, home / "prefix" / "out" / "adapter", by=0.1, **SHAPES["prefix"])
    return home


def test_a_script_that_knows_only_mlflow_gets_the_measured_answers(home, tiny_base, tmp_path):
    from pipeline.modeling.answering.generate import Subjects
    from pipeline.serving.released_model import as_input

    places = {"home": str(home), "base": str(tiny_base), "tests": str(Path(__file__).parent), "package": str(ROOT / "pipeline")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for script, folder in ((LOG_AND_LOAD, ROOT), (PLAIN, tmp_path)):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script.format(**places, elsewhere=str(elsewhere))],
            capture_output=True,
            text=True,
            timeout=400,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    out = json.loads((home / "out.json").read_text())
    ours = Subjects(tiny_base, model_params(tiny_base))
    asked = [as_input({"prompt": f"Where is {c}?"}) for c in ("Oslo", "Rome")]
    for name in ("generate", "both", "prefix"):
        ours.add(name, home / name / "out" / "adapter")
    expected, *others = [ours.answers(name, asked, max_new_tokens=12) for name in ("generate", "both", "prefix")]
    assert len({tuple(answers) for answers in (expected, *others)}) == 3
    assert out["others"] == [{"answer": answers} for answers in others]
    assert out["prompt"] == {"answer": expected}
    assert out["messages"] == out["json"] == {"answer": expected[:1]}
    assert out["label"]["label"] == ["animal", "colour"]
    assert all(0 < score <= 1 for score in out["label"]["score"])
    assert "text" in out["refused"]
    assert "config.json" in out["other base"]
    assert str(ROOT) not in out["code"]  # the code that was logged with it, not this checkout
    assert not list((home / "artifacts").rglob("*.pkl"))


def test_rows_are_taken_in_each_shape_and_refused_when_they_are_none():
    import pandas as pd

    from pipeline.errors import BadInput
    from pipeline.serving.released_model import as_input, as_rows

    said = '[{"content":"hi","role":"user"}]'
    assert as_rows(pd.DataFrame({"prompt": ["a", None], "messages": [None, said]})) == [{"prompt": "a"}, {"messages": said}]
    assert [as_input(row) for row in as_rows(["hi"])] == [said]
    assert as_input({"messages": json.loads(said)}) == as_input({"messages": said}) == said
    for row in ({}, {"prompt": 3}, {"messages": "["}, {"messages": [{"role": "user"}]}, {"messages": 7}):
        with pytest.raises(BadInput):
            as_input(row)
