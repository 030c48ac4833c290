"""Whether what is to be measured belongs together and is what was recorded. Records and folders in, errors out."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.domain.curated import Splits
from pipeline.domain.measured import SuiteFiles
from pipeline.domain.model import Champion, TrainingRun
from pipeline.domain.record import describe_files, digest_value, first_difference
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.params import ModelParams


def check_inputs(
    training: TrainingRun,
    champion: Champion,
    splits: Splits,
    model: ModelParams,
    *,
    adapter: Path,
    champion_adapter: Path | None,
) -> None:
    """Refuse to measure what does not belong together (Misuse) or is not what was recorded (Tampered)."""
    if training.splits != splits.digest:
        raise Misuse(
            f"the adapter was trained on splits {training.splits[:12]}, the test rows are of splits {splits.digest[:12]}",
            fix="train on these splits first: rows held out here may have been trained on there",
        )
    if training.task is not model.task:
        raise Misuse(f"the adapter was trained to {training.task}, params say {model.task}", where="model.task")
    if wrong := first_difference(adapter, training.adapter):
        raise Tampered(f"the candidate's adapter is not the one that was trained: {wrong}", where=str(adapter))
    if champion.adapter_digest is None:
        return
    if champion_adapter is None or not champion_adapter.is_dir():
        raise Broken(
            f"version {champion.version} holds production, but its adapter is not here to be measured",
            where=str(champion_adapter),
            fix="run again, which puts the champion's adapter beside the data",
        )
    found = digest_value([f.model_dump(mode="json") for f in describe_files(champion_adapter)])
    if found != champion.adapter_digest:
        raise Tampered(
            f"the champion's adapter has digest {found[:12]}, version {champion.version} was recorded with "
            f"{champion.adapter_digest[:12]}",
            where=str(champion_adapter),
        )
    if (task := _task_of(champion_adapter)) not in (None, model.task):
        raise Misuse(
            f"version {champion.version} holds production and was trained to {task}, params say {model.task}",
            where="model.task",
            fix="give the new task a model name of its own",
        )


def check_files(files: SuiteFiles, folder: Path) -> None:
    """Raise Tampered where a file that params ask to read is not the recorded one, or another lies beside them."""
    recorded = tuple(
        file.model_copy(update={"path": file.path.removeprefix("files/")}) for those in files.files.values() for file in those
    )
    if recorded and (wrong := first_difference(folder / "files", recorded)):
        raise Tampered(f"a file that evaluation reads is not the recorded one: {wrong}", where=str(folder))


def _task_of(adapter: Path) -> str | None:
    """What the adapter says it was trained to do. Whether it says so rightly is checked when it is loaded."""
    try:
        told = json.loads((adapter / "tuneline.json").read_text(encoding="utf-8"))
        return str(told["task"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
