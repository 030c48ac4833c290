"""Answers, labels, likelihoods and vectors of several subjects: the bare base and any number of admitted adapters.

Evaluation and serving both ask here, so what is measured is what is served. One question at a time: a lock holds others back.
What was asked before of the very same subject is not asked again where a folder to remember in is given. Likelihoods are
weighing.py's, who stands here standing.py's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.domain.data import Task
from pipeline.errors import Misuse
from pipeline.modeling.adapters.reading import likeliest, mean_states
from pipeline.modeling.answering.centroids import Centroids
from pipeline.modeling.answering.greedy import generation, greedy
from pipeline.modeling.answering.plain_text import ids_of
from pipeline.modeling.answering.standing import BASE as BASE
from pipeline.modeling.answering.stopping import cut, ended
from pipeline.modeling.answering.weighing import Weighing
from pipeline.modeling.loading import context_length, end_tokens
from pipeline.modeling.texts.encoding import encode_texts
from pipeline.params import ModelParams
from pipeline.ports import Progress, silent


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label and its probability, as the model has it."""

    label: str
    score: float


@dataclass(slots=True)
class Spent:
    """What answers of one subject took so far. remembered: how many of them were made before, which took no time now."""

    answers: int = 0
    remembered: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


class Subjects(Weighing):
    """Those who answer; see Standing for who they are. cache: a folder where what was made is remembered, None for nowhere."""

    def __init__(self, path: Path, model: ModelParams, *, root: Path = Path(), cache: Path | None = None) -> None:
        super().__init__(path, model, root=root, cache=cache)
        self._spent: dict[str, Spent] = {}
        self._centroids: Centroids | None = None

    def answers(
        self,
        name: str,
        inputs: Sequence[str],
        *,
        max_new_tokens: int = 128,
        stop: Sequence[str] = (),
        raw: bool = False,
        batch_size: int = 32,
        progress: Progress = silent,
    ) -> list[str]:
        """What `name` answers to each input (canonical JSON of its messages; `raw`: the prompt's text), greedily, in their order.

        `base` is the bare base under the same template and precision as the first adapter added, so that a comparison shows the
        tuning and nothing else. A prompt that leaves no room for `max_new_tokens` loses its start. stop: strings that end an
        answer and are no part of it. What it took is told by `spent`.
        """
        with self._lock:
            self._check_task(Task.GENERATE)
            model, template = self._model(name), None if raw else self._template_of(name)
            limit = context_length(model)
            if limit is not None and max_new_tokens >= limit:
                raise Misuse(f"the base has room for {limit} tokens in all", where="max_new_tokens", fix="ask for fewer")
            own = {*end_tokens(model, self.tokenizer)} | ({template.end_id} if template else set())
            ends = tuple(sorted(own))
            how = generation(max_new_tokens, ends, self.tokenizer.pad_token_id)

            def make(places: list[int]) -> list[Any]:
                texts = [inputs[place] for place in places]
                prompts = template.prompts(texts) if template else ids_of(self.tokenizer, texts)
                prompts = [ids[-(limit - max_new_tokens) :] if limit is not None else ids for ids in prompts]
                halt = ended(self.tokenizer, stop)
                batches = self._in_batches(f"answers of {name}", len(prompts), batch_size, progress)
                with self._active(name):
                    made = greedy(model, prompts, how, ended=halt, batch_size=batch_size, told=batches["told"])
                found = []
                for prompt, ids in zip(prompts, made, strict=True):
                    count = next((n for n, i in enumerate(ids) if i in ends), len(ids))
                    said = template.answer_text(ids, ends) if template else self._plain(ids[:count])
                    found.append([cut(said, stop), len(prompt), min(count + 1, len(ids))])
                return found

            settings = {
                "template": template.digest if template else None,
                "max_new_tokens": max_new_tokens,
                "stop": list(stop),
                "ends": list(ends),
            }
            before = time.perf_counter()
            found, known = self._once("answers", name, settings, list(inputs), make)
            spent = self._spent.setdefault(name, Spent())
            spent.seconds += time.perf_counter() - before
            spent.answers += len(found)
            spent.remembered += known
            spent.prompt_tokens += sum(prompt for _, prompt, _ in found)
            spent.answer_tokens += sum(answer for *_, answer in found)
            return [str(text) for text, *_ in found]

    def spent(self, name: str) -> Spent:
        """What the answers of `name` took since these subjects stand here; a copy."""
        told = self._spent.get(name, Spent())
        return Spent(told.answers, told.remembered, told.prompt_tokens, told.answer_tokens, told.seconds)

    def spelled(self, inputs: Sequence[str], outputs: Sequence[str], kinds: Sequence[str]) -> list[str]:
        """What the right answers are, as a model under the first adapter's template would say them; see ChatTemplate.spelled."""
        with self._lock:
            return self._template_of(BASE).spelled(inputs, outputs, kinds)

    def predict(self, name: str, texts: Sequence[str], *, batch_size: int = 32, progress: Progress = silent) -> list[Prediction]:
        """The label that `name` gives each text, in the order of `texts`.

        `base` has no head of its own: it answers with the label whose training texts lie nearest in its embeddings, which is
        what one gets without tuning; it needs `learn_centroids` first.
        """
        with self._lock:
            self._check_task(Task.CLASSIFY)
            if name == BASE:
                if self._centroids is None:
                    raise Misuse("the bare base can pick no label before it has seen labelled texts", fix="call learn_centroids")
                return [Prediction(*p) for p in self._centroids.nearest(self._embed(name, texts, batch_size, progress))]
            subject = self._subject(name)
            longest = min(subject.handshake.max_length, context_length(subject.model) or subject.handshake.max_length)
            ids, _ = encode_texts(self.tokenizer, texts, max_length=longest)
            with self._active(name):
                picks = likeliest(subject.model, ids, **self._in_batches(f"labels of {name}", len(ids), batch_size, progress))
            return [Prediction(subject.handshake.labels[pick], score) for pick, score in picks]

    def learn_centroids(
        self, texts: Sequence[str], labels: Sequence[str], *, batch_size: int = 64, progress: Progress = silent
    ) -> None:
        """Show the bare base labelled training texts, so that `predict("base", …)` can answer."""
        with self._lock:
            self._check_task(Task.CLASSIFY)
            self._centroids = Centroids.fit(self._embed(BASE, texts, batch_size, progress), labels)

    def embeddings(
        self, name: str, texts: Sequence[str], *, batch_size: int = 64, progress: Progress = silent
    ) -> npt.NDArray[np.float32]:
        """Mean of the last hidden states of `name` over each text's tokens: [texts, hidden]. A text without a token is zeros."""
        with self._lock:
            found: npt.NDArray[np.float32] = self._embed(name, texts, batch_size, progress).numpy()
            return found

    def _embed(self, name: str, texts: Sequence[str], batch_size: int, progress: Progress) -> torch.Tensor:
        model = self._model(name)
        ids, _ = encode_texts(self.tokenizer, texts, max_length=min(512, context_length(model) or 512))
        found = torch.zeros(len(ids), model.config.hidden_size)
        some = [place for place, own in enumerate(ids) if own]
        batches = self._in_batches(f"embeddings of {name}", len(some), batch_size, progress)
        with self._active(name):
            found[some] = mean_states(model, [ids[place] for place in some], **batches)
        return found

    def _plain(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
