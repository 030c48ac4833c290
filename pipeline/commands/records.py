"""Single records: who has this one, and forgetting it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import DEFAULT_PARAMS, By, Json, ParamsFile, Reason, open_world, show
from pipeline.commands.records_lines import forgotten_lines, who_has_lines
from pipeline.errors import Misuse

_MOST_BYTES = 16 << 20

Record = Annotated[
    str,
    typer.Argument(help="An example id, the text of a prompt or answer, keyed:DIGEST, - for stdin, or @FILE for its content."),
]


def who_has(
    record: Record,
    quarantine: Annotated[bool, typer.Option(help="Also read through all quarantined rows for the text; slow.")] = False,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Which snapshots, runs and releases saw a record, and on which side of the split."""
    world, loaded = open_world(params)
    from pipeline.forgetting import look_up
    from pipeline.terminal import reporter

    show(look_up(world, loaded, record_text(record), quarantine=quarantine, progress=reporter()), json, who_has_lines)


def forget(
    record: Record,
    reason: Reason,
    by: By = None,
    purge: Annotated[bool, typer.Option(help="Also take it out of cache, remote and derived files, and prove it.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Refuse when more rows than this hold it.")] = 20,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Keep a record out of every later snapshot; says what it had reached and what remains to be done."""
    world, loaded = open_world(params)
    from pipeline.forgetting import forget_record
    from pipeline.terminal import reporter

    done = forget_record(
        world, loaded, record_text(record), by=by or world.actor, reason=reason, limit=limit, purge=purge, progress=reporter()
    )
    show(done, json, forgotten_lines)
    raise typer.Exit(0 if done.clean else 1)


def record_text(record: str) -> str:
    """What the argument stands for. One line end at the end of a file or of stdin is not part of the record."""
    if record == "-":
        content = sys.stdin.buffer.read(_MOST_BYTES + 1)
    elif record.startswith("@"):
        path = Path(record[1:])
        if not path.is_file():
            raise Misuse("there is no such file", where=str(path), fix="write @FILE for a file's content; quote a text")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    else:
        return record
    if len(content) > _MOST_BYTES:
        raise Misuse(f"a record longer than {_MOST_BYTES >> 20} MiB", where=record, fix="give one row's text")
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Misuse(f"the record is not UTF-8: {error.reason}", where=record, fix="give its example id instead") from error
