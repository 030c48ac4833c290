"""The job of those whom questions are shared out to: the models that they load, and one call of a part of the rows.

Picklable and without torch until the first call, so that it can be sent before anything is loaded.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.domain.record import FileDigest
from pipeline.errors import Misuse
from pipeline.params import ModelParams


@dataclass(frozen=True, slots=True)
class Call:
    """A method of Subjects asked of `name`. columns: lists of rows, as many as the method takes. how: its other arguments."""

    method: str
    name: str
    columns: list[list[Any]]
    how: Mapping[str, Any]

    def only(self, places: Sequence[int]) -> Call:
        """The same of some rows."""
        return Call(self.method, self.name, [[column[place] for place in places] for column in self.columns], self.how)


@dataclass(slots=True)
class Asking:
    """Answers calls with models that it loads at the first one. adapters: folder and files by name, in the order of adding.

    threads: of the one who answers. What it gives is what Subjects remember: values before they are made answers of.
    """

    base: Path
    model: ModelParams
    adapters: Mapping[str, tuple[Path, tuple[FileDigest, ...] | None]]
    threads: int
    root: Path = Path()
    subjects: Any = field(default=None, repr=False)

    def __call__(self, call: Call) -> list[Any]:
        if self.subjects is None:
            self.subjects = self._load()
        made = getattr(self.subjects, call.method)(call.name, *call.columns, **call.how)
        if call.method == "predict":
            return [(one.label, one.score) for one in made]
        if call.method == "embeddings":
            return list(made)
        return list(self.subjects.raw)

    def _load(self) -> Any:
        for path in (self.base, *(folder for folder, _ in self.adapters.values())):
            if not path.is_dir():
                raise Misuse(
                    f"{platform.node()} does not see what it is to ask",
                    where=str(path),
                    fix="mount the project, its state folder and the base at the same place on every node (docs/ray.md)",
                )
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        import torch

        torch.set_num_threads(self.threads)
        from pipeline.modeling.answering.telling import Telling

        subjects = Telling(self.base, self.model, root=self.root)
        for name, (folder, files) in self.adapters.items():
            subjects.add(name, folder, files=files)
        return subjects
