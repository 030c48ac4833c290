"""Where the world is: addresses of stores and servers, and secrets. From the environment (TUNELINE_…) only.

Params say what to do and are recorded; settings say where, may hold secrets, and never enter a record, a log or a lock.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Unset means the embedded default below the project's `.tuneline/` folder."""

    model_config = SettingsConfigDict(env_prefix="TUNELINE_", extra="ignore", frozen=True)

    home: Path | None = None
    """The state folder; default `.tuneline` in the project."""
    mlflow_uri: SecretStr | None = None
    """MLflow tracking and registry address; default SQLite in the state folder."""
    ledger_url: SecretStr | None = None
    """SQLAlchemy URL of the release ledger; default SQLite in the state folder. PostgreSQL: postgresql+psycopg://…"""
    prefect_api: str | None = None
    """URL of a Prefect API to use; default a local server that is started once and reused."""
    dvc_remote: str | None = None
    """Name of the DVC remote to push to; default the one in .dvc/config."""
    record_key: SecretStr | None = None
    """The secret of keyed digests, 64 hex digits; default a file in the state folder, made once (docs/forgetting.md)."""
    signing_key: Path | None = None
    """The private key that signs releases, EC P-256 in PEM; default a file in the state folder, made once (docs/evidence.md)."""
    ledger_anchor: SecretStr | None = None
    """A folder, or an address such as s3://bucket/prefix, where the ledger's head is anchored beside git (docs/evidence.md)."""
    judge_url: SecretStr | None = None
    """Where evaluate.judge's model is asked: an OpenAI-compatible address such as https://HOST/v1 (docs/judge.md)."""
    judge_key: SecretStr | None = None
    """The key that is sent there, where one is wanted."""
    serving_keys: Path | None = None
    """The file of API keys, hashed; default serving/keys.json in the state folder (docs/serving.md)."""
    tls_cert: Path | None = None
    """PEM file of the certificate, and those between it and a root, that `tuneline serve` shows; with tls_key."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    serve_url: str | None = None
    """The server that `tuneline monitor` puts canary prompts to, such as http://127.0.0.1:8321; default: it loads the release
    itself (docs/monitoring.md)."""
    serve_key: SecretStr | None = None
    """An API key of that server, with the scope infer."""
    vllm_url: str | None = None
    """Where serve.engine vllm finds its server: an address such as http://127.0.0.1:8000."""
    vllm_key: SecretStr | None = None
    """The key that is sent there, where one is wanted."""
    ray_address: str | None = None
    """Where compute.engine ray finds its cluster: HOST:PORT of the head (docs/ray.md). This machine must be a node of it."""
    ray_token: SecretStr | None = None
    """The cluster's token; without one Ray lets nobody in who is to be let in."""
    workers: Annotated[int, Field(ge=1, le=64)] = min(os.cpu_count() or 1, 8)
    """How many processes take rows in; 1 keeps all work in one. What is written does not depend on it."""
    identities: Path | None = None
    """The file of people and services that may act on releases, with keys and roles; default none: anyone may, unsigned
    (docs/releases.md)."""
    actor_key: Path | None = None
    """The private key of whoever acts here, EC P-256 in PEM; needed where identities are kept."""
    notify: SecretStr | None = None
    """Whom notices go to: Apprise addresses such as mailtos://… or slack://…, with spaces or commas between (docs/people.md)."""
    actor: str | None = None
    """Who is acting, where a command is not told with --by; default the login name."""


@cache
def settings() -> Settings:
    return Settings()
