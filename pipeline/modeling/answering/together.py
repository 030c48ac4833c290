"""Adapters that answer together: loaded, each under an inner name of its own, their rows in as few calls as the base allows.

What is admitted, how a prompt is read and which tokens end an answer is as in generate.py, so that what is served is what was
measured; here rows come and go between tokens. Only one thread may use models (put, take_off, join, step, label); the rest
may be called from any, put too for what has a model of its own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.domain.data import Task
from pipeline.domain.record import FileDigest, canonical_json, describe_files, digest_value
from pipeline.domain.tuning import Output
from pipeline.errors import BadInput, Misuse
from pipeline.modeling.adapters.admission import Admitted, admit
from pipeline.modeling.adapters.carriers import Carriers
from pipeline.modeling.adapters.handshake import Handshake
from pipeline.modeling.answering.grammars import ANY_OBJECT, Grammars
from pipeline.modeling.answering.lanes import Lane
from pipeline.modeling.answering.plain_text import ids_of
from pipeline.modeling.answering.prefix_store import PrefixStore
from pipeline.modeling.answering.row_adapters import RowAdapters
from pipeline.modeling.answering.sampling import Choice
from pipeline.modeling.answering.saying import Saying
from pipeline.modeling.answering.under_way import Moved, Row
from pipeline.modeling.base import base_ref
from pipeline.modeling.forward import pooled_logits
from pipeline.modeling.loading import context_length, device, end_tokens, inference, load_tokenizer
from pipeline.modeling.texts.encoding import encode_texts
from pipeline.modeling.texts.rows import pad
from pipeline.modeling.texts.template import ChatTemplate
from pipeline.params import ModelParams


@dataclass(eq=False, slots=True)
class Voice:
    """An adapter that can answer. digest: of its files. limit: tokens that prompt and answer may have together, if known."""

    name: str
    digest: str
    said: Handshake
    template: ChatTemplate | None
    model: Any
    lane: Lane | None
    adapters: RowAdapters | None
    limit: int | None
    ends: frozenset[int]


class Together:
    """path: the base's folder; model: what params say of it. prefix_tokens: how much of prompts that were read is kept."""

    def __init__(self, path: Path, model: ModelParams, *, prefix_tokens: int = 4096) -> None:
        self.params = model
        self.tokenizer = load_tokenizer(path)
        self.ref = base_ref(model, path, None)
        self.prefixes = PrefixStore(prefix_tokens)
        output = Output.TEXT if model.task is Task.GENERATE else Output.LABEL
        self._carriers = Carriers(path, self.tokenizer, output)
        self._numbers = itertools.count(1)
        self._lanes: dict[tuple[int, str], Lane] = {}
        self._adapters: dict[int, RowAdapters] = {}
        self._grammars: dict[tuple[int, frozenset[int]], Grammars] = {}
        self._reading = threading.Lock()

    def judge(self, adapter: Path, files: tuple[FileDigest, ...] | None = None) -> Admitted:
        """Admit an adapter's folder (see admission.py) without touching a model. Raises Broken, Tampered or Misuse."""
        admitted = admit(adapter, self.ref, files=files)
        said = admitted.handshake
        if said.task is not self.params.task:
            raise Misuse(f"the adapter does the task {said.task}, not {self.params.task}", where=str(adapter))
        if said.output is Output.SCORE:
            raise Misuse("a reward model gives a number, which nobody can be answered by", where=str(adapter))
        return admitted

    def put(self, admitted: Admitted, files: tuple[FileDigest, ...] | None = None) -> Voice:
        """Let what was admitted answer. Raises Broken, leaving others as they were, when it does not behave as recorded."""
        said = admitted.handshake
        name = f"voice_{next(self._numbers):06d}"
        digest = digest_value([file.model_dump(mode="json") for file in files or describe_files(admitted.folder)])
        try:
            model = self._carriers.put(admitted, name)
        finally:
            if said.shares_base:  # a refused one may have switched the others off, or added layers
                for others in self._adapters.values():
                    others.renew()
        adapters: RowAdapters | None = None
        if said.shares_base:
            if id(model) not in self._adapters:
                self._adapters[id(model)] = RowAdapters(model)
            adapters = self._adapters[id(model)]
            adapters.renew()
        template = ChatTemplate(self.tokenizer, admitted.template) if admitted.template is not None else None
        ends = frozenset(end_tokens(model, self.tokenizer))
        voice = Voice(name, digest, said, template, model, None, adapters, context_length(model), ends)
        if self.params.task is Task.GENERATE:
            key = (id(model), name if said.dora else "")
            if key not in self._lanes:
                pad_id, bytes_of = self.tokenizer.pad_token_id, self._bytes_of(voice)
                self._lanes[key] = Lane(model, pad_id, self.prefixes, bytes_of, adapters, mixes=not said.dora)
            voice.lane = self._lanes[key]
        return voice

    def take_off(self, voice: Voice) -> None:
        """Forget an adapter that answers nobody any more, and free what it held."""
        self.prefixes.forget(voice.digest)
        self._carriers.take_off(voice.model, voice.said, voice.name)
        key, other = id(voice.model), getattr(voice.model, "peft_config", {})
        if not voice.said.shares_base or voice.name in other:  # the model carried nothing else
            self._adapters.pop(key, None)
            self._lanes = {of: lane for of, lane in self._lanes.items() if of[0] != key}
            self._grammars = {of: grammars for of, grammars in self._grammars.items() if of[0] != key}
        else:
            self._lanes.pop((key, voice.name), None)
            self._adapters[key].renew()

    def prompt_ids(
        self,
        voice: Voice,
        messages: Sequence[Mapping[str, Any]] | None,
        prompt: str | None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[int]:
        """What `voice` reads of a conversation, or of plain text. Raises BadInput when nothing can be made of it."""
        if (messages is None) == (prompt is None):
            raise BadInput("an ask has messages or a prompt, one of the two")
        with self._reading:
            if prompt is not None:
                ids = ids_of(self.tokenizer, [prompt])[0]
            else:
                if voice.template is None:
                    raise BadInput("this release has no chat template", fix="ask for a completion of a prompt")
                said: Any = {"messages": messages, "tools": tools} if tools else messages
                try:
                    text = canonical_json(said)
                except (TypeError, ValueError, RecursionError) as error:
                    raise BadInput(f"the messages are no JSON: {error}", where="messages") from error
                ids = voice.template.prompts([text])[0]
        if not ids:
            raise BadInput("there is nothing to go on from", where="prompt", fix="give a prompt that has a token")
        return ids

    def row(
        self,
        voice: Voice,
        ids: list[int],
        *,
        chat: bool,
        most: int,
        choice: Choice,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        schema: Mapping[str, Any] | None = None,
        json_object: bool = False,
        tag: Any = None,
    ) -> Row:
        """An answer that is wanted, ready to join. It gets no more tokens than the model has positions left."""
        if voice.limit is not None and len(ids) >= voice.limit:
            raise BadInput(f"the prompt has {len(ids)} tokens; the model has room for {voice.limit}, the answer included")
        if most < 1:
            raise BadInput("an answer has one token at the least", where="max_tokens")
        ends = voice.ends | {voice.template.end_id} if chat and voice.template is not None else voice.ends
        grammar = None
        if schema is not None or json_object:
            with self._reading:
                grammar = self._grammars_of(voice, ends).of_schema(schema if schema is not None else ANY_OBJECT)
        room = most if voice.limit is None else min(most, voice.limit - len(ids))
        saying = Saying(self.tokenizer, stop)
        return Row(voice.name, voice.digest, ids, room, ends, saying, choice, grammar, logprobs, tag)

    def join(self, lane: Lane, rows: Sequence[Row]) -> list[Moved]:
        return lane.join(rows)

    @property
    def lanes(self) -> list[Lane]:
        return list(self._lanes.values())

    def label(self, voice: Voice, texts: Sequence[list[int]]) -> list[list[tuple[str, float]]]:
        """Of each text in ids the labels with their probabilities, likeliest first."""
        batch = {name: tensor.to(device()) for name, tensor in pad(texts, self.tokenizer.pad_token_id).items()}
        with inference():
            if voice.adapters is not None:
                voice.adapters.only(voice.name)
            chances = pooled_logits(voice.model, batch).float().softmax(-1).tolist()
        return [sorted(zip(voice.said.labels, row, strict=True), key=lambda one: -one[1]) for row in chances]

    def text_ids(self, voice: Voice, text: str) -> list[int]:
        """A text to be labelled, cut as it was in training."""
        longest = min(voice.said.max_length, voice.limit or voice.said.max_length)
        with self._reading:
            ids = encode_texts(self.tokenizer, [text], max_length=longest)[0][0]
        if not ids:
            raise BadInput("there is nothing to label", where="text")
        return list(ids)

    def _grammars_of(self, voice: Voice, ends: frozenset[int]) -> Grammars:
        key = (id(voice.model), ends)
        if key not in self._grammars:
            self._grammars[key] = Grammars(self.tokenizer, int(voice.model.config.get_text_config().vocab_size), sorted(ends))
        return self._grammars[key]

    def _bytes_of(self, voice: Voice) -> Any:
        """What a token adds to a text; the vocabulary is read when that is first asked."""

        def bytes_of(token: int) -> bytes:
            if token in self.tokenizer.all_special_ids:
                return str(self.tokenizer.convert_ids_to_tokens(token)).encode()
            with self._reading:
                return self._grammars_of(voice, voice.ends).bytes_of(token)

        return bytes_of
