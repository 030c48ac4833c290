"""The file of canary prompts: fixed questions and what must be answered, a JSON object a line, read through the strict parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import regex
from pydantic import ValidationError

from pipeline.curation.reasons import Rejected
from pipeline.curation.strict_json import parse
from pipeline.domain.monitoring import CanaryPrompt
from pipeline.errors import BadInput

_MOST_BYTES = 1 << 20
_MOST = 500
_DEPTH = 16
_FIX = 'a line: {"name": "opening hours", "prompt": "When do you open?", "pattern": "nine|9"}; docs/monitoring.md'


def read_canary_prompts(path: Path) -> tuple[CanaryPrompt, ...]:
    """All prompts of the file. Raises BadInput that names the line."""
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        raise BadInput(f"there is no such file of at most {_MOST_BYTES} bytes", where=str(path), fix="monitor.canary_prompts")
    found: list[CanaryPrompt] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            found.append(_prompt(line, f"{path}:{number}", number))
    if not found or len(found) > _MOST or len({prompt.name for prompt in found}) < len(found):
        raise BadInput(f"{len(found)} prompts: 1 to {_MOST} are wanted, each of a name of its own", where=str(path), fix=_FIX)
    return tuple(found)


def _prompt(line: bytes, where: str, number: int) -> CanaryPrompt:
    try:
        row: Any = parse(line, _DEPTH)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        asked = {name: row.pop(name) for name in ("prompt", "text", "messages") if name in row}
        if len(asked) != 1:
            raise ValueError("give one of prompt, text, messages")
        [(name, value)] = asked.items()
        value = [{"role": "user", "content": value}] if name == "prompt" else value
        prompt = CanaryPrompt.model_validate({"name": f"line {number}", **row, "asked": value})
        if sum(given is not None for given in (prompt.expect, prompt.pattern, prompt.fields)) != 1:
            raise ValueError("give one of expect, pattern, fields")
        if prompt.pattern is not None:
            regex.compile(prompt.pattern)
    except (Rejected, ValidationError, ValueError, regex.error) as error:
        said = error.reason if isinstance(error, Rejected) else str(error).splitlines()[0]
        raise BadInput(f"this is no canary prompt: {said}", where=where, fix=_FIX) from None
    return prompt
