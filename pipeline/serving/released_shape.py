"""What a released model takes and gives, for the registry that stores it: its signature and its settings.

Kept apart from released_model.py, which MLflow runs as a script. No torch here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.domain.data import Task
from pipeline.params import ModelParams

MODEL_FILE = Path(__file__).with_name("released_model.py")
"""What to give mlflow.pyfunc.log_model as python_model; the adapter folder goes into its artifacts as "adapter"."""


def settings(model: ModelParams, *, max_new_tokens: int = 128) -> dict[str, Any]:
    """What to log as model_config. Each key may be overridden when loading: mlflow.pyfunc.load_model(uri, model_config={…}).

    base, revision: as in params. root: where a relative base starts; the current folder unless overridden.
    """
    return {
        "base": model.base,
        "revision": model.revision or "",
        "root": ".",
        "max_new_tokens": max_new_tokens,
        "batch_size": 32,
    }


def signature(task: Task) -> Any:
    """The MLflow signature: messages or prompt to answer (generate), text to label and score (classify)."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    if task is Task.CLASSIFY:
        given = [ColSpec(DataType.string, "text")]
        made = [ColSpec(DataType.string, "label"), ColSpec(DataType.double, "score")]
    else:
        given = [ColSpec(AnyType(), "messages", required=False), ColSpec(DataType.string, "prompt", required=False)]
        made = [ColSpec(DataType.string, "answer")]
    return ModelSignature(inputs=Schema(given), outputs=Schema(made))
