"""A release as an MLflow model: logged with the code that it needs, loaded as any MLflow user would. Nothing is decided here.

Runs, versions and aliases are mlflow.py's. MLflow is passed no path or URI that a user made.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def log_released_model(
    run_id: str,
    *,
    adapter: Path,
    code: Path,
    package: Path,
    settings: Mapping[str, Any],
    signature: Any,
    metadata: Mapping[str, str],
) -> str:
    """Log the adapter as a pyfunc model of a run and return its `models:/m-…` URI; a run that has one keeps it.

    code: the models-from-code file. package: our own package, shipped with the model as a zip: it loads without Tuneline.
    settings: its model_config, which `mlflow.pyfunc.load_model(uri, model_config={…})` overrides key by key.
    """
    import mlflow

    client = mlflow.MlflowClient()
    if whole := whole_model(client, run_id):
        return f"models:/{whole}"
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run(run_id=run_id, log_system_metrics=False):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            artifacts={"adapter": str(adapter)},
            code_paths=[str(packed(package, Path(folder)))],
            model_config=dict(settings),
            signature=signature,
            pip_requirements=_requirements(),
            metadata=dict(metadata),
        )
    return str(info.model_uri)


def whole_model(client: Any, run_id: str) -> str | None:
    """Id of the model that a run has logged to its end. One that was killed while its files were put there stays pending."""
    from mlflow.entities import LoggedModelStatus

    outputs = client.get_run(run_id).outputs
    logged = (client.get_logged_model(output.model_id) for output in (outputs.model_outputs if outputs else ()))
    return next((str(model.model_id) for model in logged if model.status == LoggedModelStatus.READY), None)


def packed(package: Path, folder: Path) -> Path:
    """A package as one zip in `folder`, from which Python imports; the same bytes from the same files.

    A server takes a request for every file, and there are hundreds. Not compressed, so that what is searched for in a release (a
    record to be forgotten, a word) is found in it.
    """
    target = folder / f"{package.name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(package.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(package.parent).as_posix()
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes())
    return target


def answer_once(name: str, version: str, row: Mapping[str, str], *, root: Path) -> dict[str, Any]:
    """Load a registered version as any MLflow user would, and let it answer one row. root: where a relative base starts."""
    import mlflow
    import pandas

    released = mlflow.pyfunc.load_model(f"models:/{name}/{version}", model_config={"root": str(root)})
    answers: list[dict[str, Any]] = released.predict(pandas.DataFrame([dict(row)])).to_dict("records")
    return answers[0]


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "transformers", "peft", "mlflow", "pydantic")]
