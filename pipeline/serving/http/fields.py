"""Takes the fields of a request one by one, each checked, and refuses what nobody took. No field's meaning stands here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.serving.http.problems import Problem, bad


class Fields:
    """A JSON object whose fields are taken; null counts as not given, as OpenAI has it."""

    def __init__(self, body: Mapping[str, Any], within: str = "") -> None:
        self._left = {name: value for name, value in body.items() if value is not None}
        self._within = within

    def path(self, name: str) -> str:
        return f"{self._within}{name}"

    def has(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def text(self, name: str, default: str | None = None, *, longest: int | None = None) -> str:
        value = self._left.pop(name, default)
        if value is None:
            raise bad(f"{self.path(name)} is missing", self.path(name), "missing_required_parameter")
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        if longest is not None and len(value) > longest:
            raise self.wrong(name, f"no longer than {longest} characters")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def whole(self, name: str, default: int | None, low: int, high: int) -> int | None:
        value = self._left.pop(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, "a whole number")
        if not low <= value <= high:
            raise self.wrong(name, f"from {low} to {high}")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "a number")
        if not low <= value <= high:  # NaN included
            raise self.wrong(name, f"from {low:g} to {high:g}")
        return float(value)

    def object(self, name: str) -> dict[str, Any] | None:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return value

    def list(self, name: str, most: int) -> list[Any] | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, list) or not value:
            raise self.wrong(name, "a list with at least one entry")
        if len(value) > most:
            raise self.wrong(name, f"a list of no more than {most}", code="too_many")
        return value

    def ignore(self, *names: str) -> None:
        """Fields that change no answer."""
        for name in names:
            self._left.pop(name, None)

    def refuse(self, neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Fields that mean something which is not done here: only values that ask for nothing pass."""
        for name, values in neutral.items():
            if name in self._left and self._left.pop(name) not in values:
                raise bad(f"{self.path(name)} is not supported here", self.path(name), "unsupported_parameter")

    def done(self) -> None:
        """Refuse what nobody took."""
        for name in self._left:
            shown = self.path(name[:60])
            raise bad(f"there is no parameter {shown!r}", shown, "unknown_parameter")

    def wrong(self, name: str, wanted: str, code: str = "invalid_value") -> Problem:
        return bad(f"{self.path(name)} must be {wanted}", self.path(name), code)
