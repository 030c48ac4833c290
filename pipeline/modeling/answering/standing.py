"""Who can be asked: the bare base and any number of admitted adapters, loaded, each under a name of its own.

LoRAs of one precision and head share one loaded base and are switched in place, in milliseconds; what replaces weights or puts
vectors before the text has a model of its own. A name is never given to another adapter later (a cache that knew the old one
would answer for the new). What is asked of them is generate.py's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel

from pipeline.domain.data import Task
from pipeline.domain.record import FileDigest, describe_files, digest_value
from pipeline.domain.tuning import Output
from pipeline.errors import Misuse
from pipeline.modeling.adapters.admission import admit
from pipeline.modeling.adapters.carriers import Carriers
from pipeline.modeling.adapters.handshake import Handshake
from pipeline.modeling.base import base_ref, template_text
from pipeline.modeling.loading import device_class, load_tokenizer
from pipeline.modeling.texts.template import ChatTemplate
from pipeline.params import ModelParams

BASE = "base"


@dataclass(slots=True)
class _Subject:
    model: Any
    adapter: str
    handshake: Handshake
    template: ChatTemplate | None
    digest: str


class Standing:
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
            digest = digest_value([file.model_dump(mode="json") for file in files or describe_files(adapter)])
            self._subjects[name] = _Subject(tuned, inner, said, template, digest)
            self._used.add(name)
            return said

    def remove(self, name: str) -> None:
        """Forget an adapter and free what it held. Its name stays used."""
        with self._lock:
            subject = self._subjects.pop(name)
            self._carriers.take_off(subject.model, subject.handshake, subject.adapter)

    @property
    def device_class(self) -> str:
        """On what kind of device they answer."""
        return device_class()

    def prompt_ids(self, name: str, inputs: Sequence[str]) -> list[list[int]]:
        """What `name` reads of each conversation before it answers, in ids."""
        with self._lock:
            self._check_task(Task.GENERATE)
            return self._template_of(name).prompts(inputs)

    def asks_as_taught(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
        """Whether prompts come to the ids that training has before the answers; rows that training would leave out are."""
        with self._lock:
            self._check_task(Task.GENERATE)
            template = self._template_of(name)
            taught = template.pairs(inputs, outputs)
            return all(one is None or one.prompt == ids for one, ids in zip(taught, template.prompts(inputs), strict=True))

    def _identity(self, name: str) -> dict[str, Any]:
        """All of `name` that its answers depend on: adapter and base by content, precision, machine and libraries."""
        return {
            "adapter": None if name == BASE else self._subject(name).digest,
            "weights": self.ref.weights,
            "tokenizer": self.ref.tokenizer,
            "quantized": self._quantized(name),
            "device": device_class(),
            "libraries": [torch.__version__, transformers.__version__],
        }

    def _quantized(self, name: str) -> bool:
        """The bare base is of the precision of the first adapter that was added."""
        first = next(iter(self._subjects.values()), None) if name == BASE else self._subject(name)
        return first is not None and first.handshake.quantized

    def _model(self, name: str) -> Any:
        """The model that `name` is asked through."""
        return self._carriers.bare(quantized=self._quantized(name)) if name == BASE else self._subject(name).model

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
