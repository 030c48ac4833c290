"""MLflow: runs with their curves and files (Tracker), model versions and aliases (Registry). No decision is made here.

Stages are the ledger's; the aliases written here are its projection. MLflow is passed no path or URI that a user made.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pipeline.errors import Broken, Misuse, TryLater

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}
RUN_KEY = "tuneline.run"


def connect(uri: str, artifacts: Path | None) -> Any:
    """An MlflowClient for `uri`. `artifacts` is where the files of new experiments go; None leaves it to the server."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow

    # After the import, which sets its own levels.
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.tuneline_artifacts = artifacts
    return client


class MlflowTracker:
    """One open MLflow run. Implements ports.Tracker."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self._run_id = run_id

    @property
    def run_id(self) -> str:
        return self._run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        there = self._client.get_run(self._run_id).data.params
        said = {k: str(v)[:6000] for k, v in params.items()}
        if any(there.get(k, v) != v for k, v in said.items()):
            self._begin_anew()
            there = {}
        # MLflow refuses to change a logged param; a resumed run logs the same ones again.
        fresh = [Param(k, v) for k, v in said.items() if there.get(k) != v]
        for start in range(0, len(fresh), 100):
            self._client.log_batch(self._run_id, params=fresh[start : start + 100])

    def _begin_anew(self) -> None:
        """Leave what an interrupted run of other params logged to itself, and go on in a run that the key finds now."""
        old = self._client.get_run(self._run_id)
        tags = {k: v for k, v in old.data.tags.items() if not k.startswith("mlflow.")}
        new = self._client.create_run(old.info.experiment_id, tags=tags, run_name=old.info.run_name)
        self._client.delete_tag(self._run_id, RUN_KEY)
        self._client.set_terminated(self._run_id, "KILLED")
        self._run_id = new.info.run_id

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, metrics=[Metric(k, float(v), now, step or 0) for k, v in metrics.items()])

    def log_dataset(self, name: str, digest: str, *, source: str, rows: int, context: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # MLflow caps a dataset's digest at 36 characters; the whole one is in its source and in the run's tags.
        dataset = Dataset(
            name=name,
            digest=digest[:36],
            source_type="dvc",
            source=json.dumps({"path": source, "sha256": digest}),
            profile=json.dumps({"num_rows": rows}),
        )
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(self._run_id, datasets=[DatasetInput(dataset=dataset, tags=[tag])])

    def log_file(self, path: Path, folder: str = "") -> None:
        self._client.log_artifact(self._run_id, str(path), folder or None)

    def log_folder(self, path: Path, folder: str) -> None:
        self._client.log_artifacts(self._run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_tag(self._run_id, key, value)


@contextmanager
def tracked_run(client: Any, experiment: str, key: str, tags: Mapping[str, str]) -> Iterator[MlflowTracker]:
    """Open the run with the key (`tuneline.run` tag), or a new one; close it FINISHED, or FAILED when the block raises.

    System metrics (CPU, memory, GPU) are sampled while it is open.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    experiment_id = _experiment(client, experiment)
    found = client.search_runs([experiment_id], f"tags.`{RUN_KEY}` = '{key}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
        client.update_run(run_id, status="RUNNING")
    else:
        run_id = client.create_run(experiment_id, tags={RUN_KEY: key, **tags}, run_name=key).info.run_id
    monitor = SystemMetricsMonitor(run_id, sampling_interval=2, resume_logging=bool(found), tracking_uri=str(client.tracking_uri))
    monitor.start()
    tracker = MlflowTracker(client, run_id)
    try:
        yield tracker
    except BaseException:
        monitor.finish()
        client.set_terminated(tracker.run_id, "FAILED")
        raise
    monitor.finish()
    client.set_terminated(tracker.run_id, "FINISHED")


class MlflowRegistry:
    """Registered models. Implements ports.Registry."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def register(self, name: str, *, run_id: str, source: str, tags: Mapping[str, str]) -> str:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for version in self._client.search_model_versions(f"name='{name}'"):
            if version.run_id == run_id:
                self.set_version_tags(name, str(version.version), tags)
                return str(version.version)
        model_id = source.removeprefix("models:/") if source.startswith("models:/m-") else None
        made = self._client.create_model_version(name, source, run_id=run_id, tags=dict(tags), model_id=model_id)
        return str(made.version)

    def version_tags(self, name: str, version: str) -> dict[str, str]:
        return dict(self._version(name, version).tags)

    def set_version_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(name, version, key, value)

    def versions(self, name: str) -> list[str]:
        with answering():
            found = self._client.search_model_versions(f"name='{name}'", max_results=10_000)
        return sorted((str(v.version) for v in found), key=int)

    def put(self, name: str, version: str, folder: Path, at: str) -> None:
        self._version(name, version)
        uri = self._client.get_model_version_download_uri(name, version)
        if urlparse(uri).scheme in ("", "file"):
            replace_folder(folder, Path(unquote(urlparse(uri).path)) / at)
            return
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(uri).log_artifacts(str(folder), at)

    def artifacts(self, name: str, version: str) -> Path:
        self._version(name, version)
        return _local(self._client.get_model_version_download_uri(name, version), f"{name} version {version}")

    def run_artifacts(self, run_id: str) -> Path:
        return _local(self._client.get_run(run_id).info.artifact_uri, f"run {run_id}")

    def aliases(self, name: str) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            return {k: str(v) for k, v in self._client.get_registered_model(name).aliases.items()}
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise TryLater(f"the registry did not answer: {_first_line(error)}", fix="try again") from error

    def point(self, name: str, alias: str, version: str | None) -> None:
        with answering():
            if version is None:
                self._client.delete_registered_model_alias(name, alias)
            else:
                self._client.set_registered_model_alias(name, alias, version)

    def _version(self, name: str, version: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise TryLater(f"the registry did not answer: {_first_line(error)}", fix="try again") from error
            raise Misuse(f"{name} has no version {version}", fix="tuneline releases lists what there is") from error


def replace_folder(source: Path, target: Path) -> None:
    """Put a copy of a folder at `target`, whole or not at all, in the place of what was there. What a crash leaves lies beside
    the folder that holds `target`, not in it, and goes the next time."""
    fresh, old = (target.parent.parent / f".{target.name}.{end}" for end in ("new", "old"))
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(source, fresh)
    for path in fresh.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def answering() -> Iterator[None]:
    """An MLflow that does not answer, or fails, is one to ask again later."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise TryLater(f"the registry did not answer: {_first_line(error)}", fix="try again") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    root: Path | None = getattr(client, "tuneline_artifacts", None)
    return str(client.create_experiment(name, artifact_location=(root / name).as_uri() if root else None))


def _local(uri: str, what: str) -> Path:
    """The folder behind an artifact URI: itself on this machine, a download elsewhere."""
    parts = urlparse(uri)
    if parts.scheme in ("", "file"):
        folder = Path(unquote(parts.path))
    else:
        import mlflow

        folder = Path(mlflow.artifacts.download_artifacts(uri))
    if not folder.is_dir():
        raise Broken(f"the files of {what} are gone", where=str(folder), fix="restore them from a backup; roll back until then")
    return folder
