"""Answers and labels of several subjects on one base: the bare base and any number of admitted adapters, switched in place.

Evaluation and serving both ask here, so what is measured is what is served. The base is loaded once for each kind of head and
precision; switching adapters takes milliseconds. A name is never given to another adapter later (a cache that knew the old
one would answer for the new). One question at a time: a lock holds others back.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from pipeline.domain.data import Task
from pipeline.domain.record import FileDigest
from pipeline.domain.tuning import Output
from pipeline.errors import Misuse
from pipeline.modeling.admission import admit, attach
from pipeline.modeling.base import base_ref, template_text
from pipeline.modeling.centroids import Centroids
from pipeline.modeling.encoding import encode_texts
from pipeline.modeling.handshake import Handshake
from pipeline.modeling.loading import context_length, device, end_tokens, inference, load_base, load_tokenizer
from pipeline.modeling.rows import by_length, pad
from pipeline.modeling.template import ChatTemplate
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
        self._models: dict[tuple[bool, tuple[str, ...]], Any] = {}
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
            kind = (said.quantized, said.labels)
            inner = f"subject_{len(self._used):06d}"
            model = self._models.get(kind) or self._load(said.output, said.labels, quantize=said.quantized)
            tuned = attach(model, admitted, inner)
            self._models[kind] = tuned
            template = ChatTemplate(self.tokenizer, admitted.template) if admitted.template is not None else None
            self._subjects[name] = _Subject(tuned, inner, said, template)
            self._used.add(name)
            return said

    def remove(self, name: str) -> None:
        """Forget an adapter and free what it held. Its name stays used."""
        with self._lock:
            subject = self._subjects.pop(name)
            others = [inner for inner in subject.model.peft_config if inner != subject.adapter]
            if others:
                subject.model.set_adapter(others[0], inference_mode=True)
                subject.model.delete_adapter(subject.adapter)
            else:
                self._models = {kind: model for kind, model in self._models.items() if model is not subject.model}

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
            texts = [""] * len(prompts)
            done = 0
            with self._active(name), inference():
                for batch in by_length([len(p) for p in prompts], batch_size):
                    for n, ids in zip(batch, self._greedy(model, [prompts[n] for n in batch], max_new_tokens, ends), strict=True):
                        texts[n] = template.answer_text(ids, ends)
                    done += len(batch)
                    progress(f"answers of {name}", done, len(prompts))
            return texts

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
                return [Prediction(*p) for p in self._centroids.nearest(self._embed(texts, batch_size, progress))]
            subject = self._subject(name)
            ids, _ = encode_texts(self.tokenizer, texts, max_length=subject.handshake.max_length)
            found: list[Prediction] = [Prediction("", 0.0)] * len(texts)
            done = 0
            with self._active(name), inference():
                for batch in by_length([len(i) for i in ids], batch_size):
                    logits = subject.model(**self._batch([ids[n] for n in batch])).logits.float()
                    scores, picks = logits.softmax(-1).max(-1)
                    for n, score, pick in zip(batch, scores.tolist(), picks.tolist(), strict=True):
                        found[n] = Prediction(subject.handshake.labels[pick], score)
                    done += len(batch)
                    progress(f"labels of {name}", done, len(texts))
            return found

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
        found = torch.zeros(len(texts), model.config.hidden_size)
        done = 0
        with self._active(BASE), inference():
            body = getattr(bare := getattr(model, "get_base_model", lambda: model)(), bare.base_model_prefix)
            for batch in by_length([len(i) for i in ids], batch_size):
                inputs = self._batch([ids[n] for n in batch])
                states = body(**inputs).last_hidden_state.float()
                mask = inputs["attention_mask"].unsqueeze(-1)
                found[batch] = ((states * mask).sum(1) / mask.sum(1)).cpu()
                done += len(batch)
                progress("embeddings of base", done, len(texts))
        return found

    def _greedy(self, model: Any, prompts: list[list[int]], max_new_tokens: int, ends: tuple[int, ...]) -> list[list[int]]:
        batch = self._batch(prompts, left=True)
        made = model.generate(**batch, generation_config=self._generation(max_new_tokens, ends))
        return list(made[:, batch["input_ids"].shape[1] :].tolist())

    def _generation(self, max_new_tokens: int, ends: tuple[int, ...]) -> GenerationConfig:
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            use_cache=True,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(ends),
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def _batch(self, texts: list[list[int]], *, left: bool = False) -> dict[str, torch.Tensor]:
        return {k: v.to(device()) for k, v in pad(texts, self.tokenizer.pad_token_id, left=left).items()}

    def _load(self, output: Output, labels: tuple[str, ...], *, quantize: bool) -> Any:
        # The head of a bare base is never asked, but the library wants to know its size.
        model = load_base(self.path, output, labels or ("0", "1"), quantize=quantize)
        model.config.pad_token_id = self.tokenizer.pad_token_id
        if output is Output.TEXT:
            model.config.use_cache = True
            # What a base's own config says of sampling and lengths would fill the gaps that ours leaves; only its ends are kept.
            model.generation_config = self._generation(1, end_tokens(model, self.tokenizer))
        return model

    def _model(self, name: str) -> Any:
        if name != BASE:
            return self._subject(name).model
        if not self._models:
            usual = Output.TEXT if self.params.task is Task.GENERATE else Output.LABEL
            self._models[(False, ())] = self._load(usual, (), quantize=False)
        return next(iter(self._models.values()))

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
            return model.disable_adapter() if hasattr(model, "disable_adapter") and self._subjects else contextlib.nullcontext()
        subject = self._subject(name)
        subject.model.set_adapter(subject.adapter, inference_mode=True)
        return contextlib.nullcontext()
