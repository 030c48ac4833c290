"""Runs in MLflow that nothing needs any more, and their removal: marked, then their files, then, in a store of ours, their rows.

MLflow's own `gc` looks at runs that somebody has deleted and asks about nothing else. Which runs are needed is the caller's
knowledge. No file outside the folder of artefacts is ever removed, whatever the store says.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pipeline.backends.mlflow import RUN_KEY, answering

_PAGE = 1000
_OURS = "tuneline.commit"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A run that may go. key: the name that it had; folder: where its files lie, if that is a folder of ours."""

    run_id: str
    key: str
    folder: Path | None
    models: tuple[str, ...]


def leftover_runs(
    client: Any,
    experiment: str,
    *,
    keep_ids: Collection[str],
    keep_keys: Collection[str],
    before: datetime,
    artifacts: Path | None,
) -> Iterator[Leftover]:
    """The experiment's runs that a `tuneline run` made, ended before an instant, and are neither in keep_ids nor of keep_keys.

    Among them those that were marked as deleted by a removal that did not end. Runs of sweeps and of people are not ours to take.
    Raises TryLater when MLflow does not answer.
    """
    from mlflow.entities import ViewType

    with answering():
        found = client.get_experiment_by_name(experiment)
    if found is None:
        return
    name = re.compile(rf"{re.escape(experiment)}-[0-9]{{4,}}")
    token: str | None = None
    while True:
        with answering():
            page = client.search_runs([found.experiment_id], "", ViewType.ALL, _PAGE, page_token=token)
        for run in page:
            tags, info = run.data.tags, run.info
            key = tags.get(RUN_KEY) or info.run_name or ""
            ended = (info.end_time or info.start_time or 0) / 1000
            ours = _OURS in tags and name.fullmatch(key) is not None
            if not ours or info.run_id in keep_ids or info.status == "RUNNING" or ended >= before.timestamp():
                continue
            # A key that was taken away from a run went to another: begun anew, with other params.
            if RUN_KEY in tags and key in keep_keys:
                continue
            outputs = run.outputs.model_outputs if run.outputs else ()
            models = tuple(output.model_id for output in outputs)
            yield Leftover(info.run_id, key, _folder(info.artifact_uri, artifacts), models)
        token = page.token
        if not token:
            return


def remove_run(client: Any, left: Leftover) -> None:
    """Remove one for good; safe to repeat. On a server its rows stay, marked as deleted, until the server's own `mlflow gc`.

    Raises TryLater when MLflow does not answer.
    """
    with answering():
        _remove(client, left)


def _remove(client: Any, left: Leftover) -> None:
    from mlflow.exceptions import MlflowException

    run = client.get_run(left.run_id)
    if run.info.lifecycle_stage == "active":
        client.delete_run(left.run_id)
    for model in left.models:
        try:
            client.delete_logged_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    if left.folder is not None:
        shutil.rmtree(left.folder, ignore_errors=True)
    elif urlparse(run.info.artifact_uri).scheme not in ("", "file"):
        _remove_artifacts(run.info.artifact_uri)
    store: Any = getattr(client._tracking_client, "store", None)
    if hasattr(store, "_hard_delete_run"):
        store._hard_delete_run(left.run_id)


def _remove_artifacts(uri: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(uri)
    try:
        for file in repository.list_artifacts():
            repository.delete_artifacts(file.path)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _folder(uri: str, artifacts: Path | None) -> Path | None:
    """The run's own folder, where that lies in our folder of artefacts; removing it takes `artifacts/` within it along."""
    parts = urlparse(uri)
    if artifacts is None or parts.scheme not in ("", "file"):
        return None
    place = Path(unquote(parts.path))
    inside = place.is_relative_to(artifacts) and ".." not in place.parts and len(place.relative_to(artifacts).parts) >= 2
    return (place.parent if place.name == "artifacts" else place) if inside else None
