"""notify: which news people are told. Who they are, and where, is a setting (TUNELINE_NOTIFY): it holds secrets."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.domain.notices import NoticeKind
from pipeline.params.section import Section

Kind = Annotated[NoticeKind, Field(strict=False)]


class NotifyParams(Section):
    kinds: Annotated[tuple[Kind, ...], Field(strict=False)] = tuple(NoticeKind)
    """Which news are told; default: all. docs/people.md says what each is about."""
