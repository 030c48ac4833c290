"""A reward model as judge: of two answers the better is the one that it scores higher. Implements ports.Judge.

It is an adapter of the objective reward on the project's base, admitted as strictly as any. It sees one answer at a time, so that
no order sways it; but it was trained on somebody's choices, and prefers what they did, their love of length included
(docs/rlhf.md). A judge that the candidate was itself trained against (PPO) flatters it: name another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.domain.tuning import Output
from pipeline.errors import Misuse
from pipeline.modeling.adapters.admission import admit, attach
from pipeline.modeling.adapters.handshake import NAME
from pipeline.modeling.answering.likelihood import rows_of
from pipeline.modeling.base import base_ref
from pipeline.modeling.chain import digest_folder
from pipeline.modeling.forward import pooled_logits
from pipeline.modeling.loading import context_length, device, inference, load_base, load_tokenizer
from pipeline.modeling.texts.rows import by_length, pad
from pipeline.modeling.texts.template import ChatTemplate
from pipeline.params import ModelParams
from pipeline.ports import Progress, Question, silent

_WHERE = "evaluate.judge.model"


class RewardJudge:
    """The reward model in `folder`, on the base in the folder `base`, of which params say `model`. Loaded when first asked.

    Raises Misuse when it is no reward model, Broken when it is not what it says (see admission.admit).
    """

    def __init__(self, folder: Path, base: Path, model: ModelParams, *, batch_size: int = 16) -> None:
        self._base, self._batch_size = base, batch_size
        self._admitted = admit(folder, base_ref(model, base, None))
        said = self._admitted.handshake
        if said.output is not Output.SCORE or self._admitted.template is None:
            fix = "name the folder of an adapter of the objective reward"
            raise Misuse(f"a judge gives a score, and this adapter gives {said.output}", where=_WHERE, fix=fix)
        self._digest = digest_folder(folder)
        self._known: dict[tuple[str, str], float] = {}
        self._unsaid = {"of scores that are no numbers": 0, "because a reward model reads no rubric": 0}

    @property
    def name(self) -> str:
        return f"reward model {self._digest[:12]}"

    def prefer(self, asked: Sequence[Question], *, progress: Progress = silent) -> list[float | None]:
        texts = [(one.input, answer) for one in asked for answer in (one.first, one.second)]
        self._score([text for text in dict.fromkeys(texts) if text not in self._known], progress)
        found: list[float | None] = []
        for one in asked:
            first, second = self._known[one.input, one.first], self._known[one.input, one.second]
            if not (math.isfinite(first) and math.isfinite(second)):
                self._unsaid["of scores that are no numbers"] += 1
                found.append(None)
            else:
                found.append(0.5 if first == second else float(first > second))
        return found

    def holds(self, rubric: str, prompt: str, answer: str) -> bool | None:
        self._unsaid["because a reward model reads no rubric"] += 1
        return None

    def why_not(self) -> str:
        return "; ".join(f"{count} times {why}" for why, count in self._unsaid.items() if count)

    def scores(self, inputs: Sequence[str], answers: Sequence[str], *, progress: Progress = silent) -> list[float]:
        """What each answer is worth after its conversation."""
        texts = list(zip(inputs, answers, strict=True))
        self._score([text for text in dict.fromkeys(texts) if text not in self._known], progress)
        return [self._known[text] for text in texts]

    def _score(self, texts: Sequence[tuple[str, str]], progress: Progress) -> None:
        if not texts:
            return
        template, model = self._template, self._model
        longest = self._admitted.handshake.max_length
        room = min(longest, context_length(model) or longest)
        # As in its training: prompt and answer with its end, the prompt's start cut where there is no room for it.
        rows = rows_of(self._tokenizer, lambda: template, [text for text, _ in texts], [text for _, text in texts], room=room)
        ids = [[*one[0].input_ids] for one in rows]
        done = 0
        for places in by_length([len(text) for text in ids], self._batch_size):
            batch = pad([ids[place] for place in places], self._tokenizer.pad_token_id)
            with inference():
                found = pooled_logits(model, {name: tensor.to(device()) for name, tensor in batch.items()}).squeeze(-1)
            for place, score in zip(places, found.double().cpu().tolist(), strict=True):
                self._known[texts[place]] = score
            done += len(places)
            progress(f"scores of {self.name}", done, len(texts))

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._base)

    @cached_property
    def _template(self) -> ChatTemplate:
        assert self._admitted.template is not None  # see __init__
        return ChatTemplate(self._tokenizer, self._admitted.template)

    @cached_property
    def _model(self) -> Any:
        said = self._admitted.handshake
        return attach(load_base(self._base, said.output, said.labels, quantize=said.quantized), self._admitted, NAME)
