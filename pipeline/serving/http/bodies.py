"""A request's body: read no further than the limit, parsed strictly, and never before its size and depth are known.

Compressed bodies are refused (a bomb is small until it is opened), and so is what is not declared as JSON: a page in a browser
can send other types to a loopback address without being asked, JSON it cannot.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from pipeline.curation.reasons import Code, Rejected
from pipeline.curation.strict_json import parse
from pipeline.params.serve import LimitParams
from pipeline.serving.http.problems import Problem, bad

_LARGE = 1 << 16


class Gone(Exception):
    """The client went away; nobody is left to tell."""


async def read_object(request: Request, limits: LimitParams) -> dict[str, Any]:
    """The JSON object that a request carries. Raises Problem (413, 415, 400), Gone when the client left meanwhile."""
    body = await _read(request, limits.body_bytes)
    try:
        # What is large is parsed in a thread, so that others are answered meanwhile.
        value = await asyncio.to_thread(parse, body, limits.json_depth) if len(body) > _LARGE else parse(body, limits.json_depth)
    except Rejected as error:
        code = "too_deep" if error.code is Code.TOO_DEEP else "invalid_json"
        raise bad(f"the body cannot be read: {error.reason}", None, code) from None
    if not isinstance(value, dict):
        raise bad("the body must be a JSON object", None, "invalid_json")
    return value


async def _read(request: Request, most: int) -> bytes:
    headers = request.headers
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(415, "unsupported_encoding", "compressed bodies are not taken; send the JSON as it is")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "unsupported_type", "the body must be JSON, with Content-Type: application/json")
    length = headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > most:
        raise _too_large(most)
    body = bytearray()
    try:
        async for chunk in request.stream():
            if len(body) + len(chunk) > most:
                raise _too_large(most)
            body += chunk
    except ClientDisconnect:
        raise Gone from None
    return bytes(body)


def _too_large(most: int) -> Problem:
    return Problem(413, "body_too_large", f"the body is longer than {most} bytes")
