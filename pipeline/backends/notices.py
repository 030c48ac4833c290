"""Tells people through Apprise: mail, Slack, Teams, ntfy, and whatever else has an address. Implements ports.Notifier.

A notice is written into the outbox (notices_outbox.py), which is all that a deed waits for; a thread of each address delivers,
and the process waits a bounded time for them before it ends. What was not delivered is tried again by the next process that
tells or catches up: at least once, in order, and no more than so often. Apprise is imported by those threads only.

No address, nor any part of one, is ever said: addresses go by their number and their sort.
"""

from __future__ import annotations

import atexit
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from pipeline.backends.exposure import loopback
from pipeline.backends.notices_outbox import Outbox, Undelivered
from pipeline.domain.notices import Notice, NoticeKind
from pipeline.ports import Notifier

LOG = logging.getLogger("tuneline.notices")
THREAD = "tuneline-notices"
TRIES = 2
"""How often one turn tries, with PAUSE seconds in between."""
PAUSE = 1.0
SEND_SECONDS = 20.0
"""What takes longer is waited for no more, however slowly the other side goes on to answer."""
MOST_HANGING = 3
"""How many deliveries to one address a process leaves hanging before it tells that address nothing more."""
FINISH_SECONDS = 10.0
"""How long the end of the process waits for deliveries under way."""

_BETWEEN = re.compile(r"[\s,]+(?=[a-z][a-z0-9+.-]{0,30}://)", re.IGNORECASE)
_BAD = frozenset({NoticeKind.REFUSED, NoticeKind.REVOKED, NoticeKind.RUN_FAILED, NoticeKind.UNHEALTHY, NoticeKind.DRIFT})


class Notices:
    """addresses: Apprise's, with spaces or commas between; None: nobody is told, and nothing is kept. outbox: the file."""

    def __init__(self, addresses: SecretStr | None, outbox: Path) -> None:
        said = addresses.get_secret_value() if addresses else ""
        self._outbox = Outbox(outbox)
        self._lanes = [_Lane(number, one, self._outbox) for number, one in enumerate(split_addresses(said), start=1)]
        self._ready = False
        if self._lanes:
            atexit.register(self.finish)

    def tell(self, notice: Notice) -> None:
        """Returns once it is written down. Never raises: what cannot be kept is sent from memory, once."""
        if not self._lanes:
            return
        try:
            self._prepare()
            if not self._outbox.keep(notice.id or uuid4().hex, notice.model_dump_json(), [lane.name for lane in self._lanes]):
                return
        except (sqlite3.Error, OSError) as error:
            LOG.warning("%r cannot be kept (%s), and is sent once", notice.title, error)
            for lane in self._lanes:
                lane.wake(notice)
            return
        self._wake()

    def catch_up(self) -> None:
        """Try again what an earlier process could not deliver. Never raises."""
        if not self._lanes:
            return
        try:
            self._prepare()
            if self._outbox.undelivered().waiting:
                self._wake()
        except (sqlite3.Error, OSError) as error:
            LOG.warning("what is still to be told cannot be read: %s", error)

    def finish(self, seconds: float | None = None) -> bool:
        """Wait for deliveries under way, but no longer than FINISH_SECONDS; whether all ended. What did not is kept."""
        deadline = time.monotonic() + (FINISH_SECONDS if seconds is None else seconds)
        ended = [lane.idle.wait(max(deadline - time.monotonic(), 0.0)) for lane in self._lanes]
        return all(ended)

    def undelivered(self) -> Undelivered:
        return self._outbox.undelivered()

    def _prepare(self) -> None:
        if self._ready:
            return
        for lane in self._lanes:
            lane.name = self._outbox.name_of(lane.address)
        if gone := self._outbox.forget_others([lane.name for lane in self._lanes]):
            LOG.warning("%d deliveries to addresses that are set no more were dropped", gone)
        self._ready = True

    def _wake(self) -> None:
        for lane in self._lanes:
            lane.wake()


class Heard:
    """Passes on notices of some kinds. Implements ports.Notifier."""

    def __init__(self, notifier: Notifier, kinds: frozenset[NoticeKind]) -> None:
        self._notifier = notifier
        self._kinds = kinds

    def tell(self, notice: Notice) -> None:
        if notice.kind in self._kinds:
            self._notifier.tell(notice)


def split_addresses(text: str) -> list[str]:
    """Addresses with spaces or commas between; a comma within one stays."""
    return [one.strip(" ,\t\r\n") for one in _BETWEEN.split(text) if one.strip(" ,\t\r\n")]


def ways(addresses: SecretStr) -> Iterator[tuple[str, bool | None]]:
    """Each address by its number and sort; whether notices go encrypted or stay on this machine, None if it is no address."""
    for number, address in enumerate(split_addresses(addresses.get_secret_value()), start=1):
        plugin = _plugin(address)
        if plugin is None:
            yield _named(number, address), None
            continue
        # Services with one scheme alone go by https, and so does ntfy to its own cloud.
        safe = plugin.secure or not plugin.protocol or getattr(plugin, "mode", None) == "cloud" or loopback(plugin.host or "")
        yield _named(number, address), bool(safe)


def _plugin(address: str) -> Any:
    _overheard()
    import apprise

    asset = apprise.AppriseAsset(app_id="Tuneline", app_desc="Tuneline", storage_mode="memory")
    return apprise.Apprise.instantiate(address, asset=asset, suppress_exceptions=True)


def _named(number: int, address: str) -> str:
    """An address without anything of it that is secret."""
    sort = re.match(r"([a-zA-Z][a-zA-Z0-9]{0,20})://", address)
    return f"address {number} ({sort[1].lower() if sort else 'of no sort'})"


class _Lane:
    """One address, and the thread that delivers to it, which lives only while there is work."""

    def __init__(self, number: int, address: str, outbox: Outbox) -> None:
        self.address = address
        self.name = ""
        self.idle = threading.Event()
        self.idle.set()
        self._said = _named(number, address)
        self._outbox = outbox
        self._lock = threading.Lock()
        self._again = False
        self._unkept: list[Notice] = []
        self._plugin: Any = None
        self._turn = 0
        """Which thread is the one that counts: a thread that hangs is left to itself."""
        self._since: float | None = None

    def wake(self, unkept: Notice | None = None) -> None:
        with self._lock:
            self._again = True
            if unkept is not None:
                self._unkept.append(unkept)
            if self._since is not None and time.monotonic() - self._since > SEND_SECONDS and self._turn < MOST_HANGING:
                LOG.warning("%s has not answered for %g s, and is not waited for", self._said, SEND_SECONDS)
                self._since, self._turn = None, self._turn + 1
                self.idle.set()
            if self.idle.is_set():
                self.idle.clear()
                threading.Thread(target=self._work, args=(self._turn,), name=THREAD, daemon=True).start()

    def _work(self, turn: int) -> None:
        while True:
            with self._lock:
                if turn != self._turn:
                    return
                if not self._again:
                    self.idle.set()
                    return
                self._again, unkept, self._unkept = False, self._unkept, []
            try:
                for notice in unkept:
                    if problem := self._try(notice):
                        LOG.warning("%r was not delivered to %s: %s", notice.title, self._said, problem)
                self._drain(turn)
            except (sqlite3.Error, OSError) as error:
                LOG.warning("what is still to be told cannot be read: %s", error)
            except Exception as error:  # a thread that dies must not leave the process waiting for it
                LOG.warning("notices to %s stopped: %s", self._said, type(error).__name__)

    def _drain(self, turn: int) -> None:
        while turn == self._turn and (taken := self._outbox.take(self.name) if self.name else None):
            notice = Notice.model_validate_json(taken.body)
            problem = self._try(notice)
            if problem is None:
                self._outbox.delivered(taken.id, self.name)
                continue
            self._outbox.failed(taken.id, self.name, f"{self._said}: {problem}")
            again = "it is kept, and the next start tries again"
            LOG.warning("%r was not delivered to %s: %s; %s", notice.title, self._said, problem, again)
            return  # what comes after it would fare no better, and has to wait for its turn

    def _try(self, notice: Notice) -> str | None:
        """What stood in the way, or None once it is delivered."""
        problem: str | None = None
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE)
            self._since = time.monotonic()
            problem = self._deliver(notice)
            self._since = None
            if problem is None:
                return None
        return problem

    def _deliver(self, notice: Notice) -> str | None:
        try:
            import apprise

            if self._plugin is None:
                self._plugin = _plugin(self.address)
            if self._plugin is None:
                return "it is no address that Apprise knows (docs/people.md)"
            sort = apprise.NotifyType.WARNING if notice.kind in _BAD else apprise.NotifyType.INFO
            done = self._plugin.notify(body="\n".join(notice.lines) or notice.title, title=notice.title, notify_type=sort)
            return None if done else _overheard().reason()
        except Exception as error:  # plugins raise what they like, and their words may hold the address
            return type(error).__name__


class _Overheard(logging.Filter):
    """Learns from what Apprise logs why a delivery failed, and lets nothing of it through: its lines name hosts and paths."""

    def __init__(self) -> None:
        super().__init__()
        self._reasons: dict[int, str] = {}
        for name in ("apprise", "urllib3.connectionpool"):
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.threadName != THREAD or record.thread is None:
            return True
        text = record.getMessage()
        if status := re.search(r"error=(\d{3})\b", text):
            self._reasons[record.thread] = f"it answered {status[1]}"
        elif "connection error" in text.lower():
            self._reasons[record.thread] = "no connection, or no answer in time"
        return False

    def reason(self) -> str:
        """Why this thread's last delivery failed."""
        return self._reasons.pop(threading.get_ident(), "the service did not take it")


@cache
def _overheard() -> _Overheard:
    return _Overheard()
