"""The main job, end to end, on the small base and the helpdesk task that ship: `make demo`.

Each line that begins with $ is a tuneline command that anyone can type; the demo only drops the week's batch into the inbox
before it. All commands run in this one process, so that torch and the rest are imported once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parent.parent
INBOX = ROOT / "inbox"
MODEL = "helpdesk"
TICKET = "Hi, my order A-48213 came with a broken kettle. I want my money back, please hurry!"


def main() -> None:
    """Tell the story, or forget it with --clean."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clean", action="store_true", help="forget an earlier demo: its state, tags and batches")
    if arguments.parse_args().clean:
        clean()
        return
    os.chdir(ROOT)
    if tags():
        sys.exit("The demo has been here before (its runs are tagged tuneline/helpdesk/…). `make demo-clean` forgets them.")
    start = time.monotonic()
    story()
    print(f"\nThe story took {time.monotonic() - start:.0f} s after installation.")


def story() -> None:
    heading("Week 1: the first batch arrives")
    batch(1)
    tuneline("run", expect=0)
    tuneline("promote 1 --to production --by demo --reason 'first model'", expect=0)

    heading("Week 2: customers ask for new things; a new version learns them")
    batch(2)
    tuneline("run", expect=0)
    on_new_rows("inbox/week2.jsonl")
    tuneline("promote 2 --to production --by demo --reason 'better on week 2'", expect=0)
    tuneline(f"ask {shlex.quote(TICKET)}", expect=0)

    heading("Week 3: broken rows, and a block that someone mislabelled")
    batch(3)
    tuneline("run", expect=1)
    print("\nThe gate said no (exit code 1): nothing was registered. Rows that were no rows are in quarantine, with reasons:")
    quarantine()
    tuneline("run", expect=0)

    heading("Someone complains about version 2: back to version 1")
    tuneline("rollback --stage production --by demo --reason 'a complaint'", expect=0)
    tuneline("releases", expect=0)
    tuneline("history", expect=0)

    heading("What is in production, and can we prove it?")
    tuneline("audit show production", expect=0)
    tuneline("audit verify production", expect=0)
    where_to_look()


def heading(text: str) -> None:
    print(f"\n=== {text} ===", flush=True)


def batch(week: int) -> None:
    """Drop a week's rows into the inbox, as a mail robot or an export job would."""
    INBOX.mkdir(exist_ok=True)
    target = INBOX / f"week{week}.jsonl"
    command = [
        sys.executable,
        "examples/helpdesk/make_batches.py",
        "--week",
        str(week),
        "--out",
        str(target),
        "--seed",
        "7",
    ]
    subprocess.run(command, check=True)
    print(f"(inbox/{target.name}: {sum(1 for _ in target.open('rb'))} lines)", flush=True)


def tuneline(command: str, *, expect: int) -> None:
    """Run one tuneline command in this process and insist on its exit code."""
    from pipeline.__main__ import app
    from pipeline.errors import TunelineError

    print(f"\n$ tuneline {command}", flush=True)
    try:
        code = app(shlex.split(command), standalone_mode=False) or 0
    except TunelineError as error:
        print(f"error: {error}")
        code = error.exit_code
    sys.stdout.flush()
    if code != expect:
        sys.exit(f"the demo expected exit code {expect}, and this was {code}")


def newest() -> Workspace:
    """The folder of the newest run."""
    from pipeline.backends.run_folder import find_kept, open_kept
    from pipeline.wiring import World

    world = World.here()
    return open_kept(world.git, world.project, find_kept(world.git, MODEL, None), remote=world.settings.dvc_remote)


def on_new_rows(source: str) -> None:
    """Show how candidate and champion do on the test rows of one week; the report page has every slice."""
    from pipeline.domain.measured import EvaluationReport

    report = EvaluationReport.read(newest().evaluation_record)
    ours, theirs = report.slice("source", source, "candidate"), report.slice("source", source, "champion")
    if ours is None or theirs is None or theirs.comparison is None:
        sys.exit(f"the evaluation has no slice for {source}")
    lead = theirs.comparison
    print(f"\nOn the {ours.rows} held-out rows of {source}, {ours.metric}:")
    print(f"  candidate   {ours.score:.3f}  ({ours.low:.3f} to {ours.high:.3f})")
    print(f"  champion    {theirs.score:.3f}  ({theirs.low:.3f} to {theirs.high:.3f})")
    print(f"  difference {lead.difference:+.3f}  ({lead.low:+.3f} to {lead.high:+.3f}), paired by row, 95 % interval")


def quarantine() -> None:
    """Show what was quarantined in the newest run, by reason, with an example each."""
    import json

    from pipeline.domain.data import QuarantinedRow, Snapshot

    workspace = newest()
    by_code: dict[str, list[QuarantinedRow]] = {}
    for shard in Snapshot.read(workspace.snapshot_record).quarantine:
        for line in (workspace.snapshot / shard.path).read_text().splitlines():
            row = QuarantinedRow.model_validate(json.loads(line))
            by_code.setdefault(row.code, []).append(row)
    for code, rows in sorted(by_code.items()):
        print(f"  {len(rows):2} {code}: {rows[0].source}:{rows[0].line} {rows[0].reason}")


def where_to_look() -> None:
    from flows.server import running
    from pipeline.backends.run_folder import find_kept
    from pipeline.wiring import World

    world = World.here()
    kept = find_kept(world.git, MODEL, None)
    folder = world.project.runs / kept.key
    server = running(world.project)
    print("\nWhere to look:")
    print(f"  report       {(folder / 'work/release/report.html').as_uri()}")
    print(f"  validation   {(folder / 'work/validate/validation.html').as_uri()}")
    print(f"  Data Docs    {next(iter(sorted((folder / 'work/validate/data_docs').rglob('index.html')))).as_uri()}")
    print(f"  Prefect      {server.ui if server else 'tuneline up'}   (tuneline down stops it)")
    print("  MLflow       .venv/bin/tuneline ui, then http://127.0.0.1:5000")
    print(f"  DVC          cd {folder.relative_to(ROOT)} && dvc status   (with .venv active)")


def tags() -> list[str]:
    listed = subprocess.run(["git", "tag", "--list", f"tuneline/{MODEL}/*"], capture_output=True, text=True, cwd=ROOT, check=True)
    return listed.stdout.split()


def clean() -> None:
    """Remove what the demo made. Refuses where runs of other models share the state folder."""
    every = subprocess.run(
        ["git", "tag", "--list", "tuneline/*"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split()
    others = sorted({name.split("/")[1] for name in every} - {MODEL})
    if others:
        sys.exit(f".tuneline also holds runs of {', '.join(others)}: not removed. Use a clone of its own for the demo.")
    subprocess.run([sys.executable, "-m", "pipeline", "down"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for name in tags():
        subprocess.run(["git", "tag", "--delete", name], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(ROOT / ".tuneline", ignore_errors=True)
    shutil.rmtree(ROOT / ".dvc" / "cache", ignore_errors=True)
    subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
    for week in (1, 2, 3):
        (INBOX / f"week{week}.jsonl").unlink(missing_ok=True)
    print("forgotten")


if __name__ == "__main__":
    main()
