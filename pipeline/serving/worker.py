"""The thread that owns the models: takes from the queue, lets rows join, step and leave, and hands out what they say.

Whatever else touches a model (loading, warming, forgetting) is done here too, between two steps: no lock is held over one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from pipeline.errors import Broken, TryLater, TunelineError
from pipeline.modeling.answering.lanes import Lane
from pipeline.modeling.answering.together import Together
from pipeline.modeling.answering.under_way import Moved
from pipeline.serving.tickets import Ticket, Waiting, hand_out

log = logging.getLogger(__name__)


class Worker:
    """One for each Together. Everything it is given to do, it does in its own thread."""

    def __init__(self, together: Together, waiting: Waiting) -> None:
        self._together = together
        self._waiting = waiting
        self._deeds: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._thread = threading.Thread(target=self._run, name="tuneline-models", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait until it has ended; the queue must be closed."""
        if self._thread.is_alive():
            self._thread.join()

    def do(self, what: Callable[[], Any]) -> Future[Any]:
        """Have something done between two steps."""
        done: Future[Any] = Future()
        self._deeds.append((what, done))
        self._waiting.stir()
        if self._waiting.closed and not self._thread.is_alive():
            self._refuse_deeds()
        return done

    def _run(self) -> None:
        try:
            while not self._waiting.closed:
                self._round()
        except BaseException:
            log.exception("the thread that owns the models ended")
            self._waiting.close()
        finally:
            self._stop()

    def _round(self) -> None:
        # Rows that nobody waits for go first: one of the deeds may be to take their adapter off.
        for lane in self._together.lanes:
            for row in [row for row in lane.rows if row.tag.cancelled]:
                lane.leave(row)
        while self._deeds:
            _carry_out(*self._deeds.popleft())
        under_way = sum(len(lane.rows) for lane in self._together.lanes)
        coming = [ticket for ticket in self._waiting.take(under_way) if not ticket.cancelled]
        if not coming and not under_way:
            self._waiting.wait(0.5)
            return
        self._label([ticket for ticket in coming if ticket.row is None])
        by_lane: dict[int, list[Ticket]] = {}
        for ticket in coming:
            if ticket.row is not None:
                by_lane.setdefault(id(ticket.voice.lane), []).append(ticket)
        for tickets in by_lane.values():
            self._join(tickets[0].voice.lane, tickets)
        for lane in self._together.lanes:
            self._step(lane)
        self._waiting.running(sum(len(lane.rows) for lane in self._together.lanes))

    def _step(self, lane: Lane) -> None:
        try:
            self._tell(lane.step())
        except Exception as error:
            log.exception("a step failed")
            self._fail([row.tag for row in lane.clear()], error)

    def _join(self, lane: Lane, tickets: list[Ticket]) -> None:
        try:
            self._tell(lane.join([ticket.row for ticket in tickets]))
        except Exception as error:
            log.exception("prompts could not be read")
            for ticket in tickets:
                lane.leave(ticket.row)
            self._fail(tickets, error)

    def _label(self, tickets: list[Ticket]) -> None:
        by_voice: dict[int, list[Ticket]] = {}
        for ticket in tickets:
            by_voice.setdefault(id(ticket.voice), []).append(ticket)
        for some in by_voice.values():
            try:
                found = self._together.label(some[0].voice, [ticket.text or [] for ticket in some])
            except Exception as error:
                log.exception("texts could not be labelled")
                self._fail(some, error)
            else:
                hand_out((ticket, labels, 0) for ticket, labels in zip(some, found, strict=True))

    def _tell(self, moved: Iterable[Moved]) -> None:
        told = []
        for row, what in moved:
            if isinstance(what, Exception) or what.text or what.chances or what.finish is not None:
                told.append((row.tag, what, len(row.made)))
            if not isinstance(what, Exception) and what.finish is not None:
                self._waiting.took(row.tag)
        hand_out(told)

    def _fail(self, tickets: Iterable[Ticket], error: Exception) -> None:
        said = error if isinstance(error, TunelineError) else Broken(f"the model failed: {type(error).__name__}: {error}")
        hand_out((ticket, said, 0) for ticket in tickets)

    def _stop(self) -> None:
        rest = [row.tag for lane in self._together.lanes for row in lane.clear()]
        self._fail([*rest, *self._waiting.take_all()], TryLater("the server stops", fix="try again, or ask another server"))
        self._waiting.running(0)
        self._refuse_deeds()

    def _refuse_deeds(self) -> None:
        while self._deeds:
            self._deeds.popleft()[1].set_exception(TryLater("the server stops"))


def _carry_out(what: Callable[[], Any], done: Future[Any]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(what())
    except BaseException as error:
        done.set_exception(error)
