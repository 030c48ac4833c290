"""What MLflow's aliases say, without MLflow, which takes seconds to import: from its SQLite file, or by asking its server.

Only to be looked at: what moves an alias goes through mlflow.py.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path

from pipeline.errors import TryLater

PATIENCE = 3.0
MOST_BYTES = 8 << 20


def aliases(location: Path | str, model: str) -> dict[str, str]:
    """Alias → version of a model; nothing for a model that was never registered. location: the SQLite file, or the server's URI.

    Raises TryLater where it does not answer, or is of a sort that only MLflow itself can read.
    """
    if isinstance(location, Path):
        return _in_file(location, model)
    if location.startswith(("http://", "https://")):
        return _of_server(location, model)
    raise TryLater("MLflow's store is a database, which only MLflow reads", fix="tuneline reconcile compares and repairs")


def _in_file(path: Path, model: str) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)) as db:
            found = db.execute("select alias, version from registered_model_aliases where name = ?", (model,))
            return {str(alias): str(version) for alias, version in found}
    except sqlite3.Error as error:
        raise TryLater(f"MLflow's store cannot be read: {error}", where=str(path)) from error


def _of_server(uri: str, model: str) -> dict[str, str]:
    address = urllib.parse.urlsplit(uri)
    shown = f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")
    asked = f"{shown}{address.path.rstrip('/')}/api/2.0/mlflow/registered-models/get?name={urllib.parse.quote(model)}"
    request = urllib.request.Request(asked, headers=_credentials(address))
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            found = json.loads(answer.read(MOST_BYTES))["registered_model"]
        return {str(one["alias"]): str(one["version"]) for one in found.get("aliases", ())}
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return {}
        raise TryLater(f"MLflow answered {error.code}", where=shown, fix="read its log; does it know you?") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TryLater(f"MLflow does not answer ({type(error).__name__})", where=shown, fix="is it up?") from None


def _credentials(address: urllib.parse.SplitResult) -> dict[str, str]:
    """As MLflow's own client takes them: from the environment, or from the address."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or urllib.parse.unquote(address.username or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or urllib.parse.unquote(address.password or "")
    if not user:
        return {}
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
