"""The weights with the least loss on the eval split so far: written aside, copied into each checkpoint, put back at the end.

When a step is the best is watch.py's to say. A digest goes with the file, since nothing else would notice a bad byte in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from pipeline.domain.record import digest_file
from pipeline.errors import Broken
from pipeline.modeling.loop.checkpoints import BEST
from pipeline.modeling.loop.trained import read_trained, write_trained
from pipeline.modeling.parallel.ranks import ranks


class Best:
    """One file in `folder`, beside the checkpoints. digest: its SHA-256; None as long as there was no best."""

    def __init__(self, folder: Path) -> None:
        self.digest: str | None = None
        self._path = folder / BEST

    def note(self, model: nn.Module) -> None:
        """Take the present weights. Of several processes all call this, and the first one's file counts."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_name(f".staging-{BEST}")
        write_trained(model, aside)
        if ranks().first:
            aside.replace(self._path)
        self.digest = ranks().as_first(digest_file(self._path) if ranks().first else "")

    def copy_into(self, checkpoint: Path) -> None:
        """Make it part of a checkpoint. A copy, not a link: one bad byte must not reach all checkpoints. Raises Broken when it
        has one already: earlier checkpoints have good copies."""
        if self.digest is not None:
            shutil.copyfile(self._path, checkpoint / BEST)
            self._check(checkpoint / BEST)

    def restore(self, checkpoint: Path, digest: str | None) -> None:
        """Go back to what was the best when a checkpoint was written."""
        self.digest = digest
        if ranks().first:
            self._path.unlink(missing_ok=True)
            if digest is not None:
                shutil.copyfile(checkpoint / BEST, self._path)
        ranks().wait()

    def put_back(self, model: nn.Module) -> None:
        """Give the model these weights, if there are any. Raises Broken when they are not those that were written."""
        if self.digest is None:
            return
        self._check(self._path)
        read_trained(model, self._path)

    def _check(self, path: Path) -> None:
        if digest_file(path) != self.digest:
            fix = "run again: it goes on from the last checkpoint, which has a copy of them"
            raise Broken("the best weights are not what was written", where=str(self._path), fix=fix)
