"""Composes the monitor over the stores of a project: the log read window by window, each judged, noted for triggers, told to
people when enough have fired, and shown on a page.

What a window comes to is steps/monitor.py's; when an alarm stands, domain/monitoring.py's. Nothing is asked of a release but
canary prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.data import Task
from pipeline.domain.monitoring import (
    Alarm,
    CanaryAnswer,
    CanaryPrompt,
    LoggedRequest,
    Measure,
    MonitorReport,
    alarm_states,
    hour_of,
    window_name,
)
from pipeline.domain.notices import Notice, NoticeKind
from pipeline.domain.signals import Signal, SignalKind
from pipeline.errors import TunelineError
from pipeline.ports import Notifier, Progress, Signals, silent
from pipeline.wiring import World, notifier_of, redaction

if TYPE_CHECKING:
    from pipeline.comparing import Side
    from pipeline.params import Params

_REMEMBERED = 50
Answerer = Callable[[CanaryPrompt], tuple[str, str, str]]
"""A canary prompt → the answer's id, the release that gave it, the answer."""


@dataclass(frozen=True)
class Watched:
    """What one look came to. reports: of the windows that were full; alarms: all that stand. page: where to read on."""

    reports: tuple[MonitorReport, ...]
    alarms: tuple[Alarm, ...]
    canaries: tuple[CanaryAnswer, ...]
    refused: int
    page: Path


def watch(
    world: World,
    params: Params,
    *,
    signals: Signals | None = None,
    notifier: Notifier | None = None,
    answerer: Answerer | None = None,
    now: datetime | None = None,
    progress: Progress = silent,
) -> Watched:
    """Look at all windows that have become full since the last look. signals, notifier, answerer: default the project's own.

    Safe to repeat: a window that is looked at again takes the place of itself. Raises TryLater while another monitor of the model
    is at work.
    """
    from pipeline.backends.run_locks import one_run_at_a_time

    model = params.model.name
    with one_run_at_a_time(world.project, f"{model}.monitor"):
        look = _Look(world, params, signals or world.run_book, notifier or notifier_of(world, params), now or datetime.now(UTC))
        canaries = look.ask(answerer) if params.monitor.canary_prompts else ()
        reports = tuple(look.windows(progress))
        return look.end(reports, canaries)


class _Look:
    def __init__(self, world: World, params: Params, signals: Signals, notifier: Notifier, now: datetime) -> None:
        from pipeline.backends.monitor_files import MonitorFiles
        from pipeline.curation.request_lines import RequestLines

        self.world, self.params, self.now = world, params, now
        self.model = params.model.name
        self.signals, self.notifier = signals, notifier
        self.files = MonitorFiles(world.project.monitor / self.model)
        self.reading = self.files.reading()
        self.lines = RequestLines(world.project.requests)
        self._references: dict[str, tuple[str, Side] | None] = {}

    def ask(self, answerer: Answerer | None) -> tuple[CanaryAnswer, ...]:
        """Put the canary prompts to whoever answers, and note what came of it."""
        from pipeline.curation.canary_prompts import read_canary_prompts
        from pipeline.evaluation.monitoring import canaries, canary_answer

        prompts = read_canary_prompts(self.world.git.root / str(self.params.monitor.canary_prompts))
        ask = answerer or _answerer(self.world, self.params)
        answers, release = [], None
        for prompt in prompts:
            try:
                id, release, said = ask(prompt)
            except TunelineError as error:
                answers.append(CanaryAnswer(name=prompt.name, passed=False, why=f"not answered: {error.what}"))
                continue
            self.reading.canaries.append(id)
            answers.append(canary_answer(prompt, said))
        measure = canaries(answers, failures=self.params.monitor.canary_failures)
        self._note(measure, f"canaries {self.now:%Y-%m-%dT%H:%M:%SZ}", self.now, release or self.model)
        return tuple(answers)

    def windows(self, progress: Progress) -> Iterator[MonitorReport]:
        """Judge each window as it becomes full."""
        held: dict[str, list[LoggedRequest]] = {}
        since = datetime.fromisoformat(self.reading.since) if self.reading.since else None
        last, ours = None, set(self.reading.canaries)
        for request in self.lines.since(since):
            release = request.release or last
            last = release
            if release is None or not release.startswith(f"{self.model}@") or request.id in ours:
                continue
            if self.reading.seen(release, request):
                continue
            waiting = held.setdefault(release, [])
            if self._ends_before(waiting, request):
                yield self._judged(release, waiting, progress)
                waiting = held[release] = []
            waiting.append(request)
            if self._is_full(waiting):
                yield self._judged(release, waiting, progress)
                held[release] = []
        for release, waiting in held.items():
            if waiting and self._is_over(waiting):
                yield self._judged(release, waiting, progress)
                held[release] = []
        left = [waiting[0].at for waiting in held.values() if waiting]
        ends = [datetime.fromisoformat(at) for at, _ in self.reading.read.values()]
        if oldest := min(left, default=max(ends, default=None)):
            self.reading.since = oldest.isoformat()

    def end(self, reports: tuple[MonitorReport, ...], canaries: tuple[CanaryAnswer, ...]) -> Watched:
        from pipeline.evaluation.monitor_page import monitor_page

        alarms = self._alarms(reports)
        self.files.show(monitor_page(self.model, self.files.reports(), alarms, canaries))
        self.files.save(self.reading)
        return Watched(reports, alarms, canaries, self.lines.refused, self.files.page)

    def _is_full(self, waiting: Sequence[LoggedRequest]) -> bool:
        window = self.params.monitor.window
        return window.hours is None and len(waiting) >= window.requests

    def _ends_before(self, waiting: Sequence[LoggedRequest], request: LoggedRequest) -> bool:
        hours = self.params.monitor.window.hours
        return hours is not None and bool(waiting) and request.at >= hour_of(waiting[0].at, hours)[1]

    def _is_over(self, waiting: Sequence[LoggedRequest]) -> bool:
        hours = self.params.monitor.window.hours
        return hours is not None and self.now >= hour_of(waiting[0].at, hours)[1]

    def _judged(self, release: str, requests: list[LoggedRequest], progress: Progress) -> MonitorReport:
        from pipeline.steps.monitor import looks_of, monitor

        progress("judging windows", 0, 0)
        found = self._reference(release)
        first = self.files.first_answers(release)
        whole = first is not None and len(first) >= self.params.monitor.reference_rows
        begin = hour_of(requests[0].at, hours)[0] if (hours := self.params.monitor.window.hours) else requests[0].at
        report = monitor(
            requests,
            self.params.monitor,
            model=self.model,
            release=release,
            window=window_name(release, begin, "" if hours else requests[0].id),
            snapshot=found[0] if found else None,
            reference=found[1] if found else None,
            first_answers=first if whole else None,
        )
        if not whole:
            looks = looks_of(requests)
            self.files.keep_first(release, looks if first is None else first + looks)
        for measure in report.measures:
            self._note(measure, report.window, report.end, release)
        self.files.add(report)
        self.reading.judged(release, requests[-1])
        return report

    def _note(self, measure: Measure, window: str, at: datetime, release: str) -> None:
        """For triggers; and who is concerned is told when an alarm begins or ends with this window."""
        if not measure.judged:
            return
        signal = Signal(
            model=self.model,
            what=measure.what,
            window=window,
            at=at,
            fired=measure.fired,
            amount=measure.amount,
            detail=measure.detail,
            release=release,
        )
        self.signals.note(signal)
        states = self._states(release, measure.what)
        if not states or states[-1] == (states[-2] if len(states) > 1 else False):
            return
        drift = measure.what in (SignalKind.DRIFT, SignalKind.ANSWERS)
        title = f"{release}: {measure.detail}" if states[-1] else f"{release}: {measure.what.value} is as it should be again"
        rule = self.params.monitor.alarm
        lines = (
            f"{rule.fired} of the last {rule.of} windows fired, this one among them." if states[-1] else measure.detail,
            f"tuneline monitor shows it: {self.files.page}",
        )
        self.notifier.tell(
            Notice(kind=NoticeKind.DRIFT if drift else NoticeKind.UNHEALTHY, model=self.model, title=title, lines=lines)
        )

    def _states(self, release: str, what: SignalKind) -> list[bool]:
        rule = self.params.monitor.alarm
        recent = self.signals.recent(self.model, what, count=_REMEMBERED)
        fired = [signal.fired for signal in recent if signal.release == release]
        return alarm_states(fired, least=rule.fired, of=rule.of)

    def _alarms(self, reports: Sequence[MonitorReport]) -> tuple[Alarm, ...]:
        """What stands of the releases that were seen last: those of this look, or of the newest signals of each sort."""
        found = []
        for what in SignalKind:
            recent = self.signals.recent(self.model, what, count=_REMEMBERED)
            for release in dict.fromkeys(signal.release for signal in recent if signal.release):
                if release not in _current(recent, reports):
                    continue
                states = self._states(release, what)
                detail = next((s.detail for s in reversed(recent) if s.release == release and s.fired), "")
                if states and states[-1]:
                    began = len(states) < 2 or not states[-2]
                    found.append(Alarm(what=what, release=release, began=began, detail=detail))
        return tuple(found)

    def _reference(self, release: str) -> tuple[str, Side] | None:
        """The digest of the snapshot that a release's training read, and rows drawn of it, as the log would hold them."""
        if release not in self._references:
            self._references[release] = self._drawn(release)
        return self._references[release]

    def _drawn(self, release: str) -> tuple[str, Side] | None:
        from pipeline.comparing import Side
        from pipeline.curation.drawing import columns_of, draw
        from pipeline.domain.release import version_record
        from pipeline.steps.monitor import cleaned

        version = release.rpartition("@")[2]
        try:
            record = version_record(self.world.ledger.events(self.model), version)
            snapshots = self.world.snapshots(self.model)
            past = next((one for one in snapshots.all() if record.tag in (one.tag, one.tag.removeprefix("refs/tags/"))), None)
            if past is None:
                return None
            with snapshots.opened(past) as folder:
                rows = draw(folder, past.snapshot.shards, self.params.monitor.reference_rows)
        except TunelineError:
            # A release whose snapshot is not here is watched all the same; its report says what was not compared.
            return None
        side = Side("snapshot", past.snapshot.rows, columns_of(rows, past.snapshot.sources))
        return past.snapshot.digest, cleaned(side, self._redact)

    @cached_property
    def _redact(self) -> Callable[[str], str]:
        return redaction(self.params)


def _current(recent: Sequence[Signal], reports: Sequence[MonitorReport]) -> set[str]:
    """Releases that still answer: those of this look, else those of the newest signal."""
    seen = {report.release for report in reports}
    return seen | {str(recent[-1].release)} if recent else seen


def _answerer(world: World, params: Params) -> Answerer:
    """Who is asked canary prompts: the running server where settings name one, else the release itself, loaded here."""
    labels = params.model.task is Task.CLASSIFY
    if world.settings.serve_url:
        from pipeline.backends.served import ServedModel

        key = world.settings.serve_key
        served = ServedModel(world.settings.serve_url, key.get_secret_value() if key else None, params.model.name)
        return lambda prompt: served.answer(prompt.asked, labels=labels)
    from pipeline.deeds import ask_release

    def ask(prompt: CanaryPrompt) -> tuple[str, str, str]:
        text = prompt.asked if isinstance(prompt.asked, str) else prompt.asked[-1]["content"]
        said: dict[str, Any] = ask_release(world, params, params.serve.stage, text)
        return "", said["release"], str(said.get("label") or said.get("answer") or "")

    return ask
