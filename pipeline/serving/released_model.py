"""A released adapter as an MLflow model: `mlflow.pyfunc.load_model("models:/NAME@production")` in any script answers.

MLflow runs this file when it loads the model (models from code: no pickle). The adapter lies among the model's artifacts; the
base does not, it is found where params said or where model_config points, and must be the very one by digest. Answers are
made by the same code that evaluation measured.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

# In a released model this file lies beside code/, whose zip is the package as it was when the model was made.
SHIPPED = Path(__file__).with_name("code") / "pipeline.zip"
if SHIPPED.is_file() and "pipeline" not in sys.modules:
    sys.path.insert(0, str(SHIPPED))

from pipeline.domain.data import Task, messages_to_input  # noqa: E402
from pipeline.errors import BadInput  # noqa: E402

# MLflow asks for type hints to draw a signature from; ours depends on the task and is given when logging (released_shape.py).
warnings.filterwarnings("ignore", message=r".*Add type hints to the `predict` method")


class ReleasedModel(PythonModel):  # type: ignore[misc]
    """Takes a table (or a list of rows) and gives a table with one row for each, in order.

    generate: column `messages` (list of {role, content}, or its JSON) or `prompt` (one user message) → `answer`.
    classify: column `text` → `label`, `score`.
    """

    def load_context(self, context: Any) -> None:
        from pipeline.modeling.adapters.folder_checks import read_handshake
        from pipeline.modeling.answering.generate import Subjects
        from pipeline.modeling.base import locate_base
        from pipeline.params import ModelParams

        config = dict(context.model_config or {})
        adapter = Path(context.artifacts["adapter"])
        said = read_handshake(adapter)
        params = ModelParams(
            name="released",
            task=said.task,
            base=config.get("base") or said.base.id,
            revision=config.get("revision") or None,
        )
        self.task = said.task
        self.max_new_tokens = int(config.get("max_new_tokens", 128))
        self.batch_size = int(config.get("batch_size", 32))
        self.subjects = Subjects(locate_base(params, root=Path(config.get("root") or ".")), params)
        self.subjects.add("released", adapter)

    # Unannotated, because MLflow would hold callers to a hint on model_input as a schema.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        rows = as_rows(model_input)
        if self.task is Task.CLASSIFY:
            texts = [_text(row, "text") for row in rows]
            found = self.subjects.predict("released", texts, batch_size=self.batch_size)
            return pd.DataFrame({"label": [p.label for p in found], "score": [p.score for p in found]})
        inputs = [as_input(row) for row in rows]
        answers = self.subjects.answers("released", inputs, max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
        return pd.DataFrame({"answer": answers})


def as_rows(model_input: Any) -> list[dict[str, Any]]:
    """Rows of a DataFrame, a dict, or a list of dicts or texts. Empty cells are left out."""
    if isinstance(model_input, pd.DataFrame):
        rows = model_input.to_dict(orient="records")
        return [{str(k): v for k, v in row.items() if not (v is None or (isinstance(v, float) and v != v))} for row in rows]
    if isinstance(model_input, dict | str):
        model_input = [model_input]
    return [{"text": row, "prompt": row} if isinstance(row, str) else dict(row) for row in model_input]


def as_input(row: dict[str, Any]) -> str:
    """The canonical JSON of a row's prompt messages. Raises BadInput when it has neither messages nor prompt."""
    if "messages" not in row:
        return messages_to_input([{"role": "user", "content": _text(row, "prompt", "messages or prompt")}])
    messages = row["messages"]
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"messages is not JSON: {error}", where="messages") from error
    try:
        return messages_to_input([{"role": m["role"], "content": m["content"]} for m in messages])
    except (KeyError, TypeError) as error:
        raise BadInput("messages must be a list of objects with role and content", where="messages") from error


def _text(row: dict[str, Any], key: str, wanted: str | None = None) -> str:
    if not isinstance(row.get(key), str):
        raise BadInput(f"a row must have the text {wanted or key}; this one has {', '.join(row) or 'nothing'}", where=key)
    return str(row[key])


mlflow.models.set_model(ReleasedModel())
