"""Single records: who has this one, and forgetting it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show
from pipeline.commands.records_lines import who_has_lines
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
    from pipeline.steps.who_has import who_has as look_up
    from pipeline.terminal import reporter

    found = look_up(
        record_text(record),
        model=loaded.model.name,
        key=world.record_key,
        past=world.past_runs,
        index=world.record_index,
        ledger=world.ledger,
        stages=loaded.release.stages,
        quarantine=quarantine,
        progress=reporter(),
    )
    show(found, json, who_has_lines)


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
