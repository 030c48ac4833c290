"""release: which stages there are, and what each asks of a version. What the rules mean is domain/stage_rules.py's to decide."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from pipeline.domain.stage_rules import ApprovalRules as ApprovalRules
from pipeline.domain.stage_rules import Freeze as Freeze
from pipeline.domain.stage_rules import StageRules as StageRules
from pipeline.params.section import Section


class ApprovalParams(Section):
    remind_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """How often people are told again that a version waits for them."""
    expire_days: Annotated[float, Field(gt=0, le=365)] = 14.0
    """Days after which nobody is waited for any more; nothing is promoted then."""
    look_minutes: Annotated[float, Field(ge=1, le=1440)] = 15.0
    """How often those that wait are looked at, for reminders, for their end, and for rules that time or traffic meets. A decision
    in Prefect or by tuneline approve is acted on at once."""


class ReleaseParams(Section):
    stages: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("staging", "production")
    """What a version can hold, in the order in which it rises. Every registered version is a candidate."""
    promote_on_pass: str | None = None
    """A stage that a version takes by policy as soon as the gate has passed it; default: a person promotes."""
    promote_when_approved: bool = True
    """Whether a version that waits for approvals takes the stage, by policy, once all that its rules ask for is there."""
    approval: ApprovalParams = ApprovalParams()
    """How long, and how, a version waits for people."""
    rules: dict[str, StageRules] = {}
    """What a stage asks of a version that is to hold it; none: that the gate has passed it."""

    @model_validator(mode="after")
    def _check_stage(self) -> ReleaseParams:
        if self.promote_on_pass is not None and self.promote_on_pass not in self.stages:
            raise ValueError(
                f"promote_on_pass names {self.promote_on_pass!r}, which is none of the stages {', '.join(self.stages)}"
            )
        for stage in self.stages:
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", stage) or stage == "latest":
                raise ValueError(f"{stage!r} can be no stage: lower-case letters, digits, - and _; 'latest' is MLflow's own")
        if len(set(self.stages)) < len(self.stages):
            raise ValueError(f"a stage is named twice: {', '.join(self.stages)}")
        for stage, rules in self.rules.items():
            for named in (stage, rules.after):
                if named is not None and named not in self.stages:
                    raise ValueError(f"rules name {named!r}, which is none of the stages {', '.join(self.stages)}")
            if rules.after is not None and self.stages.index(rules.after) >= self.stages.index(stage):
                raise ValueError(f"rules.{stage}.after: {rules.after} does not come before {stage} in stages")
        return self

    def rules_of(self, stage: str) -> StageRules:
        """The rules of a stage, or those that all have."""
        return self.rules.get(stage, StageRules())
