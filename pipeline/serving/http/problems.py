"""What a client is told when something is wrong: a status, and OpenAI's error object with message, type, param and code.

Nothing of a prompt, a key or a path enters a message. Every code that can be answered is in docs/serving.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.errors import Conflict, Misuse, TryLater, TunelineError
from pipeline.serving.asked import Full, NotServed

INVALID = "invalid_request_error"
_FIELDS = {"schema": "response_format", "text": "input"}
"""Fields of an Ask that a request calls otherwise."""


class Problem(Exception):
    """A request that is answered with an error. `kind` is OpenAI's `type`; param: the field of the request that is at fault."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def bad(message: str, param: str | None, code: str = "invalid_value") -> Problem:
    """A 400: the request itself is at fault."""
    return Problem(400, code, message, param=param)


def too_many(what: str, seconds: float, *, kind: str, code: str = "rate_limit_exceeded") -> Problem:
    """A 429 that says when to come again."""
    wait = max(1, math.ceil(seconds))
    return Problem(429, code, f"{what}; try again in {wait} s", kind=kind, headers={"retry-after": str(wait)})


def no_such_model(name: str) -> Problem:
    shown = name if len(name) <= 100 else f"{name[:100]}…"
    return Problem(404, "model_not_found", f"the model {shown!r} is not served here; see /v1/models", param="model")


def problem_of(error: Exception) -> Problem:
    """What a client is told of an error. Of what is broken on our side no more than that it is; the log has the rest."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Full):
        return too_many(error.what, error.retry_after, kind="requests", code="queue_full")
    if isinstance(error, NotServed):
        return Problem(404, "model_not_found", _said(error), param="model")
    if isinstance(error, Conflict):
        return Problem(409, "conflict", _said(error))
    if isinstance(error, TunelineError) and error.exit_code == 1:
        return Problem(409, "rules_not_met", _said(error))
    if isinstance(error, Misuse):
        return Problem(400, "invalid_value", _said(error), param=_param(error))
    if isinstance(error, TryLater):
        return Problem(503, "not_ready", _said(error), kind="server_error", headers={"retry-after": "1"})
    if isinstance(error, TimeoutError):
        return Problem(504, "answer_timeout", "the answer took too long and was ended", kind="server_error")
    return Problem(500, "internal_error", "something is broken on the server; its log says what", kind="server_error")


def _said(error: TunelineError) -> str:
    return f"{error.what}; {error.fix}" if error.fix else error.what


def _param(error: TunelineError) -> str | None:
    """The field of the request at fault, where the engine names one and not a place on disk."""
    where = error.where or ""
    return _FIELDS.get(where, where) if where.replace("_", "").isalnum() else None
