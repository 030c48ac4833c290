"""What goes between the gateway and its parent: numbered pieces of bytes, whole or not at all, and failures of workers."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

from pipeline.modeling.parallel.relay import FAILED

_HEAD = struct.Struct(">QQ")
FATAL = 2**64 - 1
"""The number of a frame that tells of an error which ends everything."""

OURSELVES = -1
"""The rank of the gateway, which is no worker."""


def write_frame(pipe: BinaryIO, number: int, content: bytes) -> None:
    pipe.write(_HEAD.pack(number, len(content)))
    pipe.write(content)
    pipe.flush()


def read_frame(pipe: BinaryIO) -> tuple[int, bytes]:
    """Raises EOFError where the pipe ends, between two frames or within one."""
    number, size = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    return number, _exactly(pipe, size)


def _exactly(pipe: BinaryIO, size: int) -> bytes:
    content = pipe.read(size)
    if len(content) != size:
        raise EOFError
    return content


def hand_on(pipe: BinaryIO, rank: int, said: list[Any]) -> None:
    """Tell the parent that worker `rank` failed. said: the message, as relay.failure makes it."""
    pipe.write(json.dumps([FAILED, rank, *said[1:]]).encode("ascii") + b"\n")
    pipe.flush()
