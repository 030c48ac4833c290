"""Every error says what went wrong, where, how to fix it, and whether a retry helps.

The kinds map onto exit codes (docs/runbook.md): 2 misuse, 3 try again later, 4 broken. Exit code 1, "a check said no",
has no exception where a failed check is a value in a record; RulesUnmet is one, since nothing was made. Nothing here imports
anything.
"""

from __future__ import annotations


class TunelineError(Exception):
    """Base of all errors that Tuneline raises on purpose.

    what: one sentence that says what is wrong. where: file, line, key, or the like. fix: what the reader can do.
    """

    exit_code = 4
    retryable = False

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, which Prefect and process pools use.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


class Misuse(TunelineError):
    """The request cannot be carried out as asked: wrong parameters, unknown version, unreadable source."""

    exit_code = 2


class BadParams(Misuse):
    """params.yaml is wrong. `what` lists every problem, a line each."""


class BadInput(Misuse):
    """A data source cannot be read as what it was said to be."""


class TryLater(TunelineError):
    """Someone else holds what is needed, or a service does not answer: nothing is wrong with the request."""

    exit_code = 3
    retryable = True


class CapReached(TunelineError):
    """A cap on time or cost stopped the work at a point from which it goes on. Only a person can raise the cap, so nothing is
    tried again by itself."""

    exit_code = 3


class Conflict(TunelineError):
    """The world moved between reading and writing (a stale expectation); nothing was changed."""

    exit_code = 3


class Stale(Conflict):
    """A run that was taken over, or whose lease ended, tried to write. Nothing was changed, and trying again never helps."""


class RulesUnmet(TunelineError):
    """A stage does not take a version yet. `unmet` are all the conditions that are missing; nothing was changed."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None, unmet: tuple[str, ...] = ()) -> None:
        super().__init__(what, where=where, fix=fix)
        self.unmet = unmet or tuple(line.strip(" -") for line in what.splitlines()[1:])


class Broken(TunelineError):
    """Something is damaged or not what it claims to be. A retry does not help."""


class Tampered(Broken):
    """Bytes do not match the digest that was recorded for them."""


class TrainingDiverged(Broken):
    """NaN or Inf appeared in loss, gradient or weights. The step is in the message; nothing was published."""


class RewardHacked(Broken):
    """Answers score high and are what nobody wanted. The rollout and its step are in the message; nothing was published."""


def _rebuild(kind: type[TunelineError], what: str, where: str | None, fix: str | None) -> TunelineError:
    return kind(what, where=where, fix=fix)
