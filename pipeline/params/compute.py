"""The section `compute`: on what heavy work is done. It moves no digest: no stage of dvc.yaml and no record depends on it.

Where the cluster is, and by what token one may use it, are settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.params.learning import NotNegative, Positive
from pipeline.params.section import Count, Section


class ComputeParams(Section):
    engine: Literal["local", "ray"] = "local"
    """local: this machine. ray: rows are taken in, models trained and measured, and trials of a sweep run on the Ray cluster at
    TUNELINE_RAY_ADDRESS; see docs/ray.md."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """ray: how many workers share the work; train.machine.processes is then 1."""
    least: Annotated[int, Field(ge=1, le=1024)] = 1
    """ray: when machines are lost, training goes on with no fewer workers than this, and waits for others below it."""
    cpus: Positive = 1.0
    """ray: cores that each worker reserves; whole ones are its threads too."""
    gpus: NotNegative = 0.0
    """ray: GPUs that each worker reserves. At most one such worker runs on a machine."""
    attempts: Annotated[int, Field(ge=0, le=1000)] = 5
    """ray: how often work begins again, from the last checkpoint, after workers were lost."""
    patience: Positive = 600.0
    """ray: seconds that a run waits for room on the cluster before it says: try again later."""
    from_mib: NotNegative = 64.0
    """ray: fewer MiB of rows than this are taken in here, since workers take seconds to start."""
    from_rows: Count = 256
    """ray: fewer questions than this are asked here, since workers take as long as it takes to load a model."""

    @model_validator(mode="after")
    def _check_least(self) -> ComputeParams:
        if self.least > self.workers:
            raise ValueError(f"least is {self.least}, and there are {self.workers} workers")
        return self
