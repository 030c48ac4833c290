"""Keeps a canary release to the declared objectives: the first it breaks takes its share away, and its stage if params say so."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipeline.domain.serving import Release
from pipeline.params.serve import SloParams
from pipeline.serving.alarms import Alarms
from pipeline.serving.following import Follower
from pipeline.serving.watching import Outcome, Watch

Breach = Callable[[str, str, str], None]
"""Called in a thread with version, stage and a sentence, when a canary release breaks its objectives and is to be rolled back."""


class CanaryGuard:
    """stage: of the canary release. roll_back: what takes the stage back in the ledger; None: nobody does."""

    def __init__(self, slo: SloParams, stage: str, follower: Follower, alarms: Alarms, roll_back: Breach | None) -> None:
        self._slo, self._stage, self._follower, self._alarms, self._roll_back = slo, stage, follower, alarms, roll_back
        self._lock = threading.Lock()
        self._watches: dict[str, Watch] = {}

    def note(self, release: Release, outcome: Outcome) -> bool:
        """What became of a request to the canary release; whether that stopped it."""
        with self._lock:
            broken = self._watch(release).note(outcome)
        return self._judge(release, broken)

    def heard(self, release: Release, good: bool) -> bool:
        """What a person thought of its answer; whether that stopped it."""
        with self._lock:
            broken = self._watch(release).heard(good)
        return self._judge(release, broken)

    def _watch(self, release: Release) -> Watch:
        if release.digest not in self._watches:
            self._watches = {release.digest: Watch(self._slo)}
        return self._watches[release.digest]

    def _judge(self, release: Release, broken: str | None) -> bool:
        if broken is None or not self._follower.stop("canary", release.version):
            return False
        sentence = f"the canary release {release.name} was stopped: {broken}"
        self._alarms.set(f"canary {release.version}", sentence)
        if self._slo.then == "roll_back" and self._roll_back is not None:
            threading.Thread(target=self._take_back, args=(release.version, sentence), daemon=True).start()
        return True

    def _take_back(self, version: str, sentence: str) -> None:
        assert self._roll_back is not None
        try:
            self._roll_back(version, self._stage, sentence)
        except Exception as error:
            self._alarms.set(f"roll back {version}", f"{self._stage} could not be rolled back: {error}")
