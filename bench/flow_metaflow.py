"""The stages of a run as a Metaflow flow, each a step that calls the same function: what bench/flow.py runs beside our own.

METAFLOW_HOME=… python bench/flow_metaflow.py --datastore local run --folder FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from metaflow import FlowSpec, Parameter, step

sys.path.insert(0, str(Path(__file__).resolve().parent))


class Stages(FlowSpec):  # type: ignore[misc]
    """validate … evaluate, one after the other; files lie in one folder, as they do in a run of ours."""

    folder = Parameter("folder", required=True)

    @step  # type: ignore[untyped-decorator]
    def start(self) -> None:
        self.next(self.validate)

    def _do(self, name: str) -> None:
        from flow_steps import run

        self.seconds = run(Path(self.folder), (name,))[name]

    @step  # type: ignore[untyped-decorator]
    def validate(self) -> None:
        self._do("validate")
        self.next(self.drift)

    @step  # type: ignore[untyped-decorator]
    def drift(self) -> None:
        self._do("drift")
        self.next(self.curate)

    @step  # type: ignore[untyped-decorator]
    def curate(self) -> None:
        self._do("curate")
        self.next(self.split)

    @step  # type: ignore[untyped-decorator]
    def split(self) -> None:
        self._do("split")
        self.next(self.train)

    @step  # type: ignore[untyped-decorator]
    def train(self) -> None:
        self._do("train")
        self.next(self.evaluate)

    @step  # type: ignore[untyped-decorator]
    def evaluate(self) -> None:
        self._do("evaluate")
        self.next(self.end)

    @step  # type: ignore[untyped-decorator]
    def end(self) -> None:
        pass


if __name__ == "__main__":
    Stages()
