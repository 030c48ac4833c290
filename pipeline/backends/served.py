"""Asks a running server of ours, as any client does: for canary prompts. The address is a setting, the key a secret."""

from __future__ import annotations

from typing import Any

import httpx

from pipeline.domain.monitoring import Asked
from pipeline.errors import BadInput, Misuse, TryLater

_SECONDS = 120.0


class ServedModel:
    """model: its name, by which whoever holds the served stage answers."""

    def __init__(self, url: str, key: str | None, model: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise Misuse("TUNELINE_SERVE_URL is no address", fix="http://127.0.0.1:8321")
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._model = model

    def answer(self, asked: Asked, *, labels: bool) -> tuple[str, str, str]:
        """(id, release, answer) at temperature 0. labels: the model gives labels.

        Raises TryLater for a server that does not answer, BadInput for one that refuses.
        """
        if labels:
            said = self._post("/v1/classify", {"model": self._model, "input": asked})
            return said["id"], said["model"], said["data"][0]["label"]
        if isinstance(asked, str):
            said = self._post("/v1/completions", {"model": self._model, "prompt": asked, "temperature": 0, "max_tokens": 256})
            return said["id"], said["model"], said["choices"][0]["text"]
        said = self._post("/v1/chat/completions", {"model": self._model, "messages": asked, "temperature": 0})
        return said["id"], said["model"], said["choices"][0]["message"]["content"]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            got = httpx.post(f"{self._url}{path}", json=body, headers=self._headers, timeout=_SECONDS, trust_env=False)
        except httpx.HTTPError as error:
            raise TryLater(f"the server does not answer: {type(error).__name__}", where=self._url, fix="tuneline serve") from None
        if got.status_code >= 500 or got.status_code == 429:
            raise TryLater(f"the server says {got.status_code}", where=self._url, fix="try again")
        if got.status_code != 200:
            raise BadInput(f"the server refuses with {got.status_code}", where=self._url, fix="TUNELINE_SERVE_KEY, model.name")
        found: dict[str, Any] = got.json()
        return found
