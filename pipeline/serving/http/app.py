"""The app: which path is which endpoint, who may call it, and what becomes of errors. ASGI; what endpoints do is answers.py's.

There is no router beyond a table of exact paths: nothing a client writes is matched against files, patterns or names of code.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from pipeline.params import ServeParams
from pipeline.serving.http.access import Access, Caller
from pipeline.serving.http.bodies import Gone
from pipeline.serving.http.calls import GONE, Call
from pipeline.serving.http.counted import Counted
from pipeline.serving.http.keys import Scope
from pipeline.serving.http.problems import Problem, problem_of

LOG = logging.getLogger("tuneline.serve")

Handler = Callable[[Call, Caller], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers one path and method. scopes: one of them is needed; none: anybody may ask. rest: the path goes on."""

    name: str
    method: str
    path: str
    handle: Handler
    scopes: tuple[Scope, ...] = ()
    rest: bool = False


class App:
    """The ASGI application over a table of endpoints."""

    def __init__(self, endpoints: tuple[Endpoint, ...], params: ServeParams, access: Access, counted: Counted) -> None:
        self._exact: dict[str, dict[str, Endpoint]] = {}
        self._rest: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            (self._rest if endpoint.rest else self._exact).setdefault(endpoint.path, {})[endpoint.method] = endpoint
        self._seconds = params.timeouts.answer
        self._access = access
        self._counted = counted

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call = Call(scope, receive, send)
        self._counted.begun()
        name = "unknown"
        try:
            endpoint = self._find(scope["path"], scope["method"])
            name = endpoint.name
            async with asyncio.timeout(self._seconds):
                await endpoint.handle(call, self._admit(endpoint, call))
        except Gone:
            call.status = GONE
        except asyncio.CancelledError:
            # The server ends, and this took longer than it waits. Told, not raised: nobody is above who could do more.
            call.said["code"] = "shutting_down"
            await call.fail(Problem(503, "shutting_down", "the server was ended meanwhile", kind="server_error"))
        except Exception as error:
            await self._fail(call, error)
        finally:
            self._counted.ended(name, call.status, call.seconds)
            said = "".join(f" {key}={value}" for key, value in call.said.items())
            LOG.info("%s %d %.3fs id=%s%s", name, call.status, call.seconds, call.id, said)

    def _find(self, path: str, method: str) -> Endpoint:
        methods = self._exact.get(path)
        if methods is None:
            begin, _, _ = path.rpartition("/")
            methods = self._rest.get(f"{begin}/")
        if methods is None:
            raise Problem(404, "unknown_path", "there is no such path; docs/serving.md lists them")
        endpoint = methods.get(method)
        if endpoint is None:
            allowed = ", ".join(sorted(methods))
            raise Problem(405, "wrong_method", f"this path takes {allowed}", headers={"allow": allowed})
        return endpoint

    def _admit(self, endpoint: Endpoint, call: Call) -> Caller:
        if not endpoint.scopes:
            return Caller("", "anybody", 0, 0)
        caller = self._access.caller(call.request, *endpoint.scopes)
        if caller.id:
            call.said["key"] = caller.id
        call.headers |= self._access.count_request(caller)
        return caller

    async def _fail(self, call: Call, error: Exception) -> None:
        problem = problem_of(error)
        call.said["code"] = problem.code
        if problem.status >= 500 and problem.status != 503:
            # The frames, not the message: it may hold what a client wrote.
            where = "".join(traceback.format_tb(error.__traceback__)[-3:])
            LOG.error("%s in answering %s\n%s", type(error).__name__, call.id, where.rstrip())
        await call.fail(problem)
