"""The secrets of the shared stack as files, for compose.yaml and for a Kubernetes Secret: made once, 32 random bytes each.

    python infra/make_secrets.py                                    makes what is missing in infra/secrets/
    kubectl -n tuneline create secret generic tuneline --from-file=infra/secrets

Nothing is printed but names. A file that is there stays as it is: to change a secret, remove its file, run this, and give it to
whoever keeps it (docs/security.md).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLAIN = (
    "postgres",
    "ledger",
    "mlflow",
    "prefect",
    "mlflow-admin",
    "mlflow-cookies",
    "s3-mlflow",
    "s3-tuneline",
    "s3-admin",
    "ray-token",
)
BUCKETS = {"mlflow": "tuneline-artifacts", "tuneline": "tuneline-data"}
"""Who may use which bucket, as in the stack of processes."""


def make(folder: Path) -> list[str]:
    """Make what is missing; the names of what was made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = [name for name in PLAIN if _write(folder / name, secrets.token_urlsafe(32))]
    made += ["prefect-api"] if _write(folder / "prefect-api", f"tuneline:{secrets.token_urlsafe(32)}") else []
    keys = {who: (folder / f"s3-{who}").read_text() for who in ("admin", *BUCKETS)}
    made += ["s3.json"] if _write(folder / "s3.json", json.dumps(_accounts(keys), indent=1)) else []
    return made


def _accounts(keys: dict[str, str]) -> dict[str, list[object]]:
    """SeaweedFS's own file of who may do what."""
    actions = {"admin": ["Admin", "Read", "Write", "List"]}
    actions |= {who: [f"{verb}:{bucket}" for verb in ("Read", "Write", "List", "Tagging")] for who, bucket in BUCKETS.items()}
    credentials = {who: [{"accessKey": f"{who}-key", "secretKey": key}] for who, key in keys.items()}
    return {"identities": [{"name": who, "credentials": credentials[who], "actions": actions[who]} for who in keys]}


def _write(path: Path, text: str) -> bool:
    try:
        # Read by the users of the containers too, who are nobody on this machine: the folder keeps everybody else out.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE / "secrets")
    said = parser.parse_args()
    print("made: " + (", ".join(make(said.folder)) or "nothing, all are there"))
