"""Composes `tuneline serve`: engine, app, keys and what moves releases, over the stores of one project.

No decision is made here; what is heavy is imported when a server is opened.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from socket import socket
from typing import TYPE_CHECKING, Any

from pipeline.domain.release import ModelVersion
from pipeline.errors import Misuse, TunelineError
from pipeline.wiring import World, find_base, redaction
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.params import Params
    from pipeline.serving.asked import Engine
    from pipeline.serving.http.feedback import FeedbackDesk
    from pipeline.serving.http.keeping import Keeper
    from pipeline.serving.http.keys import KeyFile
    from pipeline.serving.http.request_log import RequestLog
    from pipeline.serving.http.server import Server, Tls
    from pipeline.serving.making import Maker

LOG = logging.getLogger("tuneline.serve")


def key_file(world: World) -> KeyFile:
    """The file of the project's API keys."""
    from pipeline.serving.http.keys import KeyFile

    return KeyFile(world.settings.serving_keys or world.project.serving / "keys.json")


@dataclass(frozen=True)
class Hosted:
    """A server that is bound and not started yet."""

    url: str
    world: World
    params: Params
    engine: Engine
    server: Server
    bound: socket
    keeper: Keeper

    def start(self) -> None:
        """Load who is to answer, aliases and tags mended first; from then on, who connects is answered as soon as `run` is."""
        from pipeline.deeds import mend
        from pipeline.serving.http.server import BACKLOG

        try:
            for line in mend(self.world, self.params):
                LOG.warning("repaired: %s", line)
        except TunelineError as error:
            LOG.warning("not all could be repaired: %s", error)
        self.engine.start()
        self.bound.listen(BACKLOG)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then answers under way end, and the engine is closed."""
        try:
            self.server.run(self.bound)
        finally:
            LOG.info("nobody is answered any more")
            self.keeper.close()
            self.engine.close()
            LOG.info("ended")


def open_server(world: World, params: Params, *, host: str | None = None, port: int | None = None) -> Hosted:
    """Everything that serves, put together; the address is taken, so that who cannot have it knows before a model is loaded.

    Raises Misuse: an address beyond this machine without keys, TLS files that are none, an address that is in use.
    """
    from pipeline.serving.http.access import Access, is_loopback
    from pipeline.serving.http.admin import Admin
    from pipeline.serving.http.answers import Answers
    from pipeline.serving.http.app import App
    from pipeline.serving.http.counted import Counted
    from pipeline.serving.http.keeping import Keeper
    from pipeline.serving.http.server import Server, address_of, bind

    given = {"host": host, "port": port}
    serve = params.serve.model_copy(update={name: value for name, value in given.items() if value is not None})
    _check_stages(params)
    keys, tls = key_file(world), _tls(world)
    alone = is_loopback(serve.host)
    if not alone:
        _check_open_address(serve.host, keys, tls)
    bound = bind(serve.host, serve.port)
    engine = make_engine(world, params)
    access = Access(keys, serve.rates, needs_keys=serve.keys == "required" or not alone)
    counted, keeper = Counted(engine, lambda: server.guard.closed), Keeper()
    answers = Answers(
        engine,
        access,
        counted,
        model=params.model.name,
        task=params.model.task,
        params=serve,
        log=_request_log(world, params, keeper),
        feedback=_feedback_desk(world, params, engine, keeper),
        draining=lambda: server.draining,
    )
    admin = Admin(ProjectDeeds(world, params), engine, serve.limits)
    server = Server(App((*answers.endpoints(), *admin.endpoints()), serve, access, counted), serve, tls)
    return Hosted(address_of(bound, tls), world, params, engine, server, bound, keeper)


def make_engine(world: World, params: Params) -> Engine:
    """What answers, following the ledger of the project."""
    from pipeline.serving.engine import ReleaseEngine
    from pipeline.serving.traffic import TrafficFile

    return ReleaseEngine(
        params.model.name,
        params.serve,
        maker=_maker(world, params),
        ledger=world.ledger,
        registry=world.registry,
        traffic=TrafficFile(world.project.serving / "traffic.db"),
        verify=_check_signature,
        roll_back=lambda version, stage, why: _roll_back(world, params, version, stage, why),
    )


class ProjectDeeds:
    """What the admin endpoints do, by the same deeds as the commands. Implements http.admin.Deeds."""

    def __init__(self, world: World, params: Params) -> None:
        self._world = world
        self._params = params

    def promote(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]:
        from pipeline.deeds import move_to

        return _shown(move_to(self._world, self._params, version, to, by=by, reason=reason))

    def approve(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]:
        from pipeline.deeds import give_approval

        return _shown(give_approval(self._world, self._params, version, to, by=by, reason=reason))

    def refuse(self, version: str, to: str, *, by: str, reason: str) -> Mapping[str, Any]:
        from pipeline.deeds import give_veto

        return _shown(give_veto(self._world, self._params, version, to, by=by, reason=reason))

    def roll_back(self, stage: str, *, by: str, reason: str, to: str | None, leaving: str | None) -> Mapping[str, Any]:
        from pipeline.deeds import move_back

        return _shown(move_back(self._world, self._params, stage, by=by, reason=reason, to=to, leaving=leaving))

    def releases(self) -> Sequence[Mapping[str, Any]]:
        from pipeline.steps.releases import releases

        model = self._params.model.name
        return [_shown(row) for row in releases(model, ledger=self._world.ledger, registry=self._world.registry)]


def speak() -> None:
    """Plain lines on stderr: what was asked and how it ended, without a word of it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("tuneline.serve", "pipeline.serving"):
        logging.getLogger(name).setLevel(logging.INFO)


def _shown(record: Any) -> Mapping[str, Any]:
    shown: Mapping[str, Any] = record.model_dump(mode="json", exclude_none=True)
    return shown


def _maker(world: World, params: Params) -> Maker:
    """What makes the answers: this process, or a vLLM server."""
    workspace, serve = Workspace(world.project.root), params.serve

    def base() -> Path:
        return find_base(world, workspace, params)

    if serve.engine == "vllm":
        from pipeline.backends.vllm import VllmMaker

        return VllmMaker(world.settings.vllm_url, world.settings.vllm_key, base, params.model, most=serve.batch + serve.queue)
    from pipeline.serving.engine import built_in

    return built_in(base, params.model, serve)


def _check_signature(version: ModelVersion, folder: Path) -> None:
    """Refuse a folder whose signature does not hold; versions from before there were any have none."""
    from pipeline.backends.signing import verify_folder
    from pipeline.domain.evidence import KEY, SIGNATURE, has_evidence

    if has_evidence(version):
        verify_folder(version.files, folder / SIGNATURE, folder / KEY, inside=SIGNATURE)


def _roll_back(world: World, params: Params, version: str, stage: str, why: str) -> None:
    from pipeline.deeds import move_back

    move_back(world, params, stage, by=world.actor, reason=why, leaving=version)


def _request_log(world: World, params: Params, keeper: Keeper) -> RequestLog | None:
    from pipeline.serving.http.request_log import RequestLog

    wanted, redact = params.serve.log, redaction(params)
    if not wanted.share:
        return None
    path, most = world.project.requests, wanted.max_bytes
    return RequestLog(path, redact, keeper, share=wanted.share, days=wanted.days, max_bytes=most)


def _feedback_desk(world: World, params: Params, engine: Engine, keeper: Keeper) -> FeedbackDesk:
    from pipeline.serving.http.feedback import FeedbackDesk

    wanted = params.serve.feedback
    book = world.feedback if wanted.keep_hours else None
    return FeedbackDesk(params.model.name, engine, wanted, book=book, redact=redaction(params), keeper=keeper)


def _tls(world: World) -> Tls | None:
    from pipeline.serving.http.server import Tls

    cert, key = world.settings.tls_cert, world.settings.tls_key
    if (cert is None) != (key is None):
        raise Misuse("TLS needs both a certificate and its key", fix="set TUNELINE_TLS_CERT and TUNELINE_TLS_KEY")
    return Tls(cert, key) if cert and key else None


def _check_open_address(host: str, keys: KeyFile, tls: Tls | None) -> None:
    from datetime import UTC, datetime

    if not any(key.why_not(datetime.now(UTC)) is None for key in keys.all()):
        raise Misuse(f"{host} can be reached by others, and there is no API key", fix="tuneline keys add NAME, then serve again")
    if tls is None:
        LOG.warning("keys and prompts go over the network in the clear: no TLS files are set")


def _check_stages(params: Params) -> None:
    serve, stages = params.serve, params.release.stages
    named = {"serve.stage": serve.stage}
    named |= {"serve.canary.stage": serve.canary.stage} if serve.canary.share else {}
    named |= {"serve.shadow.stage": serve.shadow.stage} if serve.shadow.share else {}
    for key, stage in named.items():
        if stage not in stages:
            raise Misuse(f"{key} names {stage!r}, which is none of the stages {', '.join(stages)}", where="params.yaml")
