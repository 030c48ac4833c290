"""Regular expressions of params and schemas, tried on whatever a model says: in time linear in the text.

Python's engine backtracks, and of some patterns one answer could keep it for years. pydantic brings Rust's, which never does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import StringConstraints, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from pipeline.errors import Misuse


def matcher(pattern: str, where: str, *, whole: bool) -> Callable[[str], bool]:
    """Whether `pattern` matches a text, all of it or somewhere, in time linear in the text whatever the pattern.

    By the Rust engine that pydantic brings, which has no look-around and no back-references; dots do not match line ends unless
    (?s) says so. Raises Misuse for a pattern that it does not take.
    """
    for tried in (pattern, rf"\A(?:{pattern})\z") if whole else (pattern,):
        try:
            adapter: TypeAdapter[str] = TypeAdapter(Annotated[str, StringConstraints(pattern=tried)])
        except SchemaError as error:
            said = " ".join(str(error).split())[:300]
            fix = "use a regular expression without look-around and back-references: answers are matched in linear time"
            raise Misuse(f"the pattern {pattern!r} cannot be used: {said}", where=where, fix=fix) from None

    def matches(text: str) -> bool:
        try:
            adapter.validate_python(text)
        except ValidationError:
            return False
        return True

    return matches
