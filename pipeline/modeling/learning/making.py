"""Which learner a stage has: its objective's, given the model that is tuned, the items on both sides, and what else it needs."""

from __future__ import annotations

from typing import Any

from pipeline.domain.tuning import Objective, Tuner
from pipeline.modeling.job import Job
from pipeline.modeling.learning.judged import Judged
from pipeline.modeling.learning.labels import Labels
from pipeline.modeling.learning.learner import Learner
from pipeline.modeling.learning.pairs import Odds, Preferred
from pipeline.modeling.learning.references import Reference
from pipeline.modeling.learning.scores import Scores
from pipeline.modeling.learning.texts import Texts
from pipeline.modeling.loading import end_tokens
from pipeline.modeling.texts.mixing import new_order
from pipeline.modeling.texts.rows import Encoded
from pipeline.modeling.texts.template import ChatTemplate


def new_learner(job: Job, tuned: Any, train: Encoded, held: Encoded, *, tokenizer: Any, template: ChatTemplate | None) -> Learner:
    """The learner of `job` on `tuned` (as tuners.tunable gave it). template: needed for ppo, which reads answers."""
    if job.objective is Objective.PPO:
        assert template is not None
        return _answering(job, tuned, train, held, tokenizer, template)
    given: dict[str, Any] = {"pad_id": tokenizer.pad_token_id, "order": new_order(train, job.stage)}
    match job.objective:
        case Objective.PRETRAIN | Objective.SFT:
            return Texts(tuned, train, held, job.stage, **given)
        case Objective.CLASSIFY:
            return Labels(tuned, train, held, job.stage, **given)
        case Objective.REWARD:
            return Scores(tuned, train, held, job.stage, **given)
        case Objective.ORPO:
            return Odds(tuned, train, held, job.stage, **given)
        case Objective.DPO:
            return Preferred(tuned, train, held, job.stage, reference=_reference(job), **given)
        case Objective.KTO:
            return Judged(tuned, train, held, job.stage, reference=_reference(job), **given)


def _reference(job: Job) -> Reference:
    how = "nf4" if job.stage.tuner is Tuner.QLORA else ""
    # A fresh soft prompt or LoRA is switched off; tuned weights are asked before their first step.
    return Reference(job.start_digest, bare=job.start is None, how=how, cache=job.cache)


def _answering(job: Job, tuned: Any, train: Encoded, held: Encoded, tokenizer: Any, template: ChatTemplate) -> Learner:
    from pipeline.modeling.learning.ppo.cast import Cast
    from pipeline.modeling.learning.ppo.learner import PpoLearner
    from pipeline.modeling.learning.ppo.rewards import add_reward_model

    ends = tuple(sorted({template.end_id, *end_tokens(tuned, tokenizer)}))
    cast = Cast(tuned)
    for name, folder in job.rewards.items():
        add_reward_model(cast, name, folder, job.ref)

    def read(ids: Any) -> str:
        return template.answer_text(list(ids), ends)

    order = new_order(train, job.stage)
    return PpoLearner(cast, train, held, job.stage, read=read, ends=ends, pad_id=tokenizer.pad_token_id, prompts=order)
