"""A registry in a folder, with the semantics of MLflow's that matter: same run same version, aliases without compare-and-swap
or history, deleting a version silently removes its aliases. One file an alias, so that processes may share it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.backends.mlflow import replace_folder
from pipeline.errors import Broken, Misuse


class FolderRegistry:
    """Implements ports.Registry. A run's logged model lies in `root`/runs/RUN/model, whatever else it logged beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def register(self, name: str, *, run_id: str, source: str, tags: Mapping[str, str]) -> str:
        assert source == f"runs:/{run_id}/model"
        for version in self.versions(name):
            if self._meta(name, version)["run_id"] == run_id:
                self.set_version_tags(name, version, tags)
                return version
        number = str(1 + max(map(int, self.versions(name)), default=0))
        fresh = self.root / "models" / name / ".new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _write(fresh / "meta.json", {"run_id": run_id, "tags": dict(tags)})
        shutil.copytree(self.root / "runs" / run_id / "model", fresh / "files")
        # A version is there whole or not at all, as in a database.
        fresh.rename(fresh.with_name(number))
        return number

    def version_tags(self, name: str, version: str) -> dict[str, str]:
        return dict(self._meta(name, version)["tags"])

    def set_version_tags(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        meta = self._meta(name, version)
        _write(self.root / "models" / name / version / "meta.json", {**meta, "tags": {**meta["tags"], **tags}})

    def versions(self, name: str) -> list[str]:
        return sorted((p.name for p in (self.root / "models" / name).glob("*/") if p.name.isdigit()), key=int)

    def put(self, name: str, version: str, folder: Path, at: str) -> None:
        self._meta(name, version)
        replace_folder(folder, self.root / "models" / name / version / "files" / at)

    def artifacts(self, name: str, version: str) -> Path:
        self._meta(name, version)
        place = self.root / "models" / name / version / "files"
        if not place.is_dir():
            raise Broken("the files are gone", where=str(place))
        return place

    def run_artifacts(self, run_id: str) -> Path:
        place = self.root / "runs" / run_id / "logged"
        if not place.is_dir():
            raise Broken("the run's files are gone", where=str(place))
        return place

    def aliases(self, name: str) -> dict[str, str]:
        return {p.name: p.read_text() for p in (self.root / "aliases" / name).glob("*") if not p.name.startswith(".")}

    def point(self, name: str, alias: str, version: str | None) -> None:
        place = self.root / "aliases" / name / alias
        if version is None:
            place.unlink(missing_ok=True)
            return
        self._meta(name, version)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{alias}.{os.getpid()}")
        fresh.write_text(version)
        os.replace(fresh, place)

    def delete(self, name: str, version: str) -> None:
        shutil.rmtree(self.root / "models" / name / version)
        for alias, named in self.aliases(name).items():
            if named == version:
                self.point(name, alias, None)

    def _meta(self, name: str, version: str) -> dict:
        try:
            return json.loads((self.root / "models" / name / version / "meta.json").read_text())
        except FileNotFoundError as error:
            raise Misuse(f"{name} has no version {version}") from error


def _write(path: Path, value: object) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(value))
    os.replace(fresh, path)
