"""Answers, labels and likelihoods of several subjects: the bare base and any number of admitted adapters.

Evaluation and serving both ask here, so what is measured is what is served. LoRAs of one precision and head share one loaded base
and are switched in place, in milliseconds; what replaces weights or puts vectors before the text has a model of its own. A
name is never given to another adapter later (a cache that knew the old one would answer for the new). One question at a time: a
lock holds others back.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from pipeline.domain.data import Task
from pipeline.domain.record import FileDigest
from pipeline.domain.tuning import Output
from pipeline.errors import Misuse
from pipeline.modeling.adapters.admission import admit
from pipeline.modeling.adapters.carriers import Carriers
from pipeline.modeling.adapters.handshake import Handshake
from pipeline.modeling.adapters.reading import likeliest, mean_states
from pipeline.modeling.answering.centroids import Centroids
from pipeline.modeling.answering.greedy import generation, greedy
from pipeline.modeling.answering.likelihood import log_probs, rows_of
from pipeline.modeling.base import base_ref, template_text
from pipeline.modeling.loading import context_length, end_tokens, load_tokenizer
from pipeline.modeling.texts.encoding import encode_texts
from pipeline.modeling.texts.template import ChatTemplate
from pipeline.params import ModelParams
from pipeline.ports import Progress, silent

BASE = "base"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label and its probability, as the model has it."""

    label: str
    score: float


@dataclass(slots=True)
class _Subject:
    model: Any
    adapter: str
    handshake: Handshake
    template: ChatTemplate | None


class Subjects:
    """Those who answer: `base`, and each adapter added under a name.

    path: the base's folder. model: what params say of it. root: where the relative path of model.chat_template starts.
    """

    def __init__(self, path: Path, model: ModelParams, *, root: Path = Path()) -> None:
        self.path = path
        self.params = model
        self._root = root
        self.tokenizer = load_tokenizer(path)
        # Without a template: each adapter brings its own, and a server need not have the file that params once named.
        self.ref = base_ref(model, path, None)
        self._carriers = Carriers(path, self.tokenizer, Output.TEXT if model.task is Task.GENERATE else Output.LABEL)
        self._subjects: dict[str, _Subject] = {}
        self._used: set[str] = {BASE}
        self._centroids: Centroids | None = None
        self._lock = threading.RLock()

    def add(self, name: str, adapter: Path, *, files: tuple[FileDigest, ...] | None = None) -> Handshake:
        """Load the adapter folder `adapter`, strictly (see admission.py), as `name`. Raises Misuse for a name used before."""
        with self._lock:
            if name in self._used:
                raise Misuse(f"the name {name!r} has been used", fix="give every adapter a name of its own")
            admitted = admit(adapter, self.ref, files=files)
            said = admitted.handshake
            if said.task is not self.params.task:
                raise Misuse(f"the adapter does the task {said.task}, not {self.params.task}", where=str(adapter))
            if said.output is Output.SCORE:
                raise Misuse("a reward model gives a number, which nobody can be answered by", where=str(adapter))
            inner = f"subject_{len(self._used):06d}"
            tuned = self._carriers.put(admitted, inner)
            template = ChatTemplate(self.tokenizer, admitted.template) if admitted.template is not None else None
            self._subjects[name] = _Subject(tuned, inner, said, template)
            self._used.add(name)
            return said

    def remove(self, name: str) -> None:
        """Forget an adapter and free what it held. Its name stays used."""
        with self._lock:
            subject = self._subjects.pop(name)
            self._carriers.take_off(subject.model, subject.handshake, subject.adapter)

    def answers(
        self,
        name: str,
        inputs: Sequence[str],
        *,
        max_new_tokens: int = 128,
        batch_size: int = 32,
        progress: Progress = silent,
    ) -> list[str]:
        """What `name` answers to each input (canonical JSON of its messages), greedily, in the order of `inputs`.

        `base` is the bare base under the same template and precision as the first adapter added, so that a comparison shows the
        tuning and nothing else. A prompt that leaves no room for `max_new_tokens` loses its start.
        """
        with self._lock:
            self._check_task(Task.GENERATE)
            model, template = self._model(name), self._template_of(name)
            prompts = template.prompts(inputs)
            limit = context_length(model)
            if limit is not None:
                if max_new_tokens >= limit:
                    raise Misuse(f"the base has room for {limit} tokens in all", where="max_new_tokens", fix="ask for fewer")
                prompts = [ids[-(limit - max_new_tokens) :] for ids in prompts]
            ends = tuple(sorted({template.end_id, *end_tokens(model, self.tokenizer)}))
            how = generation(max_new_tokens, ends, self.tokenizer.pad_token_id)
            told = partial(_tell, progress, f"answers of {name}", len(prompts))
            with self._active(name):
                made = greedy(model, prompts, how, batch_size=batch_size, told=told)
            return [template.answer_text(ids, ends) for ids in made]

    def spelled(self, inputs: Sequence[str], outputs: Sequence[str], kinds: Sequence[str]) -> list[str]:
        """What the right answers are, as a model under the first adapter's template would say them; see ChatTemplate.spelled."""
        with self._lock:
            return self._template_of(BASE).spelled(inputs, outputs, kinds)

    def log_probs(
        self,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        total: bool = False,
        batch_size: int = 32,
        progress: Progress = silent,
    ) -> list[float]:
        """How likely `name` finds each output after its input: the mean log-probability a token, in nats; `total`: their sum.

        inputs: canonical JSON of a conversation each; or empty, where the output is a document by itself. An output without a
        token that is predicted counts 0. See likelihood.rows_of for what is cut.
        """
        with self._lock:
            self._check_task(Task.GENERATE)
            model = self._model(name)
            room = context_length(model) or max([1024, *(s.handshake.max_length for s in self._subjects.values())])
            texts = rows_of(self.tokenizer, lambda: self._template_of(name), inputs, outputs, room=room)
            rows = sum(len(text) for text in texts)
            with self._active(name):
                sums, tokens = log_probs(model, texts, **self._in_batches(f"likelihoods of {name}", rows, batch_size, progress))
            return sums if total else [value / max(count, 1) for value, count in zip(sums, tokens, strict=True)]

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
                return [Prediction(*p) for p in self._centroids.nearest(self._embed(texts, batch_size, progress))]
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
            self._centroids = Centroids.fit(self._embed(texts, batch_size, progress), labels)

    def _embed(self, texts: Sequence[str], batch_size: int, progress: Progress) -> torch.Tensor:
        """Mean of the bare base's last hidden states over each text's tokens: [texts, hidden], on the CPU."""
        model = self._model(BASE)
        ids, _ = encode_texts(self.tokenizer, texts, max_length=min(512, context_length(model) or 512))
        with self._active(BASE):
            return mean_states(model, ids, **self._in_batches("embeddings of base", len(ids), batch_size, progress))

    def _in_batches(self, what: str, total: int, batch_size: int, progress: Progress) -> dict[str, Any]:
        """How texts are put together for a model, and who is told."""
        told = partial(_tell, progress, what, total)
        return {"pad_id": self.tokenizer.pad_token_id, "batch_size": batch_size, "told": told}

    def _model(self, name: str) -> Any:
        """The model that `name` is asked through; the bare base's is of the precision of the first adapter that was added."""
        if name != BASE:
            return self._subject(name).model
        first = next(iter(self._subjects.values()), None)
        return self._carriers.bare(quantized=first is not None and first.handshake.quantized)

    def _template_of(self, name: str) -> ChatTemplate:
        own = self._subject(name).template if name != BASE else next((s.template for s in self._subjects.values()), None)
        if own is not None:
            return own
        return ChatTemplate(self.tokenizer, template_text(self.params, self.path, root=self._root))

    def _subject(self, name: str) -> _Subject:
        if name not in self._subjects:
            raise Misuse(f"there is no {name!r} here", fix=f"one of {', '.join([BASE, *self._subjects])}")
        return self._subjects[name]

    def _check_task(self, task: Task) -> None:
        if self.params.task is not task:
            raise Misuse(f"this model does the task {self.params.task}, not {task}")

    def _active(self, name: str) -> Any:
        """A context in which `name` answers: its adapter switched on, or all switched off for the bare base."""
        if name == BASE:
            model = self._model(BASE)
            return model.disable_adapter() if isinstance(model, PeftModel) else contextlib.nullcontext()
        subject = self._subject(name)
        if subject.handshake.shares_base:
            subject.model.set_adapter(subject.adapter, inference_mode=True)
        return contextlib.nullcontext()


def _tell(progress: Progress, what: str, total: int, done: int) -> None:
    progress(what, done, total)
