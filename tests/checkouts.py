"""Makes the repositories that tests work in: real git, our own code, DVC's config. No test lives here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_checkout(folder: Path, params: str | None = None) -> Path:
    """A repository such as a user has: our code (a copy), dvc.yaml and DVC's config, committed."""
    folder.mkdir(parents=True)
    for name in ("pipeline", "flows", "examples/base"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    if params is not None:
        (folder / "params.yaml").write_text(params)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "config", "user.name", "Someone")
    git(folder, "config", "user.email", "someone@localhost")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "start")
    return folder
