"""The `tuneline` command: puts the commands together, and turns errors into a sentence and an exit code.

What a command does stands in pipeline/commands/. Everything is imported lazily, so that --help answers at once. Results go
to stdout (JSON with --json), all else to stderr. Exit codes: 0 done, 1 a check said no, 2 misuse, 3 try again later, 4 broken.
"""

from __future__ import annotations

import os
import sys

import typer

from pipeline.commands import (
    audit,
    backup,
    curve,
    data,
    drift,
    export,
    gate,
    gc,
    identity,
    keys,
    look,
    monitor,
    plan,
    records,
    release,
    report,
    run,
    schedule,
    serve,
    status,
    sweep,
)
from pipeline.errors import TunelineError

app = typer.Typer(
    rich_markup_mode=None,  # its renderer costs 130 ms of import
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Keeps a fine-tuned language model fresh and accountable.",
)
for command in (
    run.run,
    run.ingest,
    look.explore,
    look.advise,
    drift.drift,
    plan.plan,
    sweep.sweep,
    curve.curve,
    release.promote,
    release.rollback,
    release.approve,
    release.refuse,
    release.revoke,
    release.releases,
    release.history,
    release.at,
    release.reconcile,
    status.status,
    release.ask,
    serve.serve,
    monitor.monitor,
    report.report,
    export.export,
    audit.rebuild,
    backup.backup,
    backup.restore,
    gc.gc,
    records.who_has,
    records.forget,
    run.worktree,
    schedule.schedule,
    schedule.worker,
    run.up,
    run.down,
    run.ui,
    run.doctor,
):
    app.command()(command)
app.command(hidden=True)(run.step)
app.add_typer(data.app, name="data")
app.add_typer(audit.app, name="audit")
app.add_typer(gate.app, name="gate")
app.add_typer(identity.app, name="identity")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """The console script."""
    # Threads that wait for each other by spinning make a machine that does other work besides tens of times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except TunelineError as error:
        kind = "error" if error.exit_code != 3 else "not now"
        print(f"{kind}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
