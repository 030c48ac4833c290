"""Runs the app: a socket that is bound first, connections that are guarded, TLS, and an end that lets answers finish.

SIGTERM or SIGINT: nothing more is accepted, answers under way have `drain` seconds, then the process ends with 0. A second
SIGINT ends it at once.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from pipeline.errors import Misuse
from pipeline.params import ServeParams
from pipeline.serving.http.guarded import Guard, GuardedProtocol

LOG = logging.getLogger("tuneline.serve")
_SPARE_FILES = 128
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of a certificate and its key."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """A server's context, TLS 1.2 or newer. Raises Misuse for files that are none."""
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            made.load_cert_chain(self.cert, self.key, password=lambda: b"")
        except (OSError, ValueError) as error:
            fix = "TUNELINE_TLS_CERT and TUNELINE_TLS_KEY name PEM files, the key without a passphrase"
            raise Misuse(f"the certificate and its key cannot be used: {error}", where=str(self.cert), fix=fix) from None
        return made


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises Misuse where that address is not to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise Misuse(f"cannot listen at {host}, port {port}: {error.strerror}", fix="--port 0 takes any free one") from None
    bound.setblocking(False)
    return bound


def address_of(bound: socket.socket, tls: Tls | None) -> str:
    """The URL that a bound socket is reached by."""
    host, port = bound.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def raise_file_limit(wanted: int) -> int:
    """Let this process open as many files as it may; how many connections there is room for, `wanted` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or soft < hard):
        soft = wanted + _SPARE_FILES if hard == resource.RLIM_INFINITY else min(hard, max(soft, wanted + _SPARE_FILES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(8, min(wanted, soft - _SPARE_FILES))


class Server:
    """One server; `run` blocks until a signal or `stop`."""

    def __init__(self, app: Callable[..., Any], params: ServeParams, tls: Tls | None = None) -> None:
        self.guard = Guard(params.timeouts, raise_file_limit(params.limits.connections))
        self._timeouts = params.timeouts
        context = tls.context() if tls else None
        config = uvicorn.Config(
            app,
            http=partial(GuardedProtocol, self.guard),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=params.timeouts.idle,  # type: ignore[arg-type]
            timeout_graceful_shutdown=params.timeouts.drain,  # type: ignore[arg-type]
            ssl_context_factory=(lambda *_: context) if context else None,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._uvicorn = _Quiet(config)

    @property
    def draining(self) -> bool:
        return self._uvicorn.should_exit

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._uvicorn.server_state.connections)

    @property
    def started(self) -> bool:
        return self._uvicorn.started

    def run(self, bound: socket.socket) -> None:
        """Serve until told to end."""
        # The loop asks for the descriptor of every connection; a silent TLS handshake is closed like a silent request.
        with asyncio.Runner(loop_factory=partial(_TlsLoop, self._timeouts.header)) as runner:
            runner.run(self._uvicorn.serve(sockets=[bound]))

    def stop(self) -> None:
        """As SIGTERM does; safe from any thread."""
        self._uvicorn.should_exit = True


class _Quiet(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not remembered, so that uvicorn does not raise the signal again when all is done: a drained server ends with 0.
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        LOG.info("told to end: nothing more is accepted, what is under way is finished")
        await super().shutdown(sockets)


class _TlsLoop(asyncio.SelectorEventLoop):
    """A loop whose TLS servers do not wait a minute for a handshake, nor half a minute for its end."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        if kwargs.get("ssl") is not None:
            kwargs |= {"ssl_handshake_timeout": self._seconds, "ssl_shutdown_timeout": self._seconds}
        return await super().create_server(*args, **kwargs)
