"""The section `serve`: who answers, how much is taken in, how long anything may take, who may ask how often.

Addresses and secrets (key file, TLS files, vLLM's address) are settings, not params. docs/serving.md is the guide.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.params.section import Count, Fraction, Section

Seconds = Annotated[float, Field(gt=0, le=3600)]


class LimitParams(Section):
    body_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 1 << 20
    """A longer body is refused while it is read (413), whatever its headers say."""
    json_depth: Annotated[int, Field(ge=8, le=200)] = 32
    """Brackets that nest deeper are refused before the body is parsed. A JSON schema lies about ten levels down."""
    messages: Count = 256
    """Messages of one chat request."""
    prompt_tokens: Count = 4096
    """Tokens of one prompt, as the template renders it; the base's own context may be shorter."""
    answer_tokens: Count = 1024
    """What max_tokens may be at most, and what a chat answer gets that asks for no number."""
    answers: Annotated[int, Field(ge=1, le=1024)] = 8
    """Answers of one request: its prompts times n."""
    texts: Annotated[int, Field(ge=1, le=4096)] = 64
    """Texts of one request to the classify endpoint."""
    connections: Annotated[int, Field(ge=8, le=100_000)] = 2048
    """Open connections; beyond, the one that has been silent longest gives way, and if none is silent the new one does."""


class TimeoutParams(Section):
    header: Seconds = 5.0
    """From an open connection, or the first byte of a further request on it, to the end of the request's headers."""
    body: Seconds = 8.0
    """From the end of the headers to the end of the body. header and body together bound how long a trickle can last."""
    idle: Seconds = 10.0
    """How long a connection may stay open between requests."""
    write: Seconds = 15.0
    """How long an answer may wait for a client that does not read it."""
    answer: Seconds = 300.0
    """How long one request may take in all; then its answer ends with an error and its slot is free."""
    drain: Seconds = 30.0
    """After SIGTERM: how long answers under way may still take."""


class CanaryParams(Section):
    stage: str = "staging"
    """Who holds this stage gets the share."""
    share: Fraction = 0.0
    """Of the requests that pin no version, how many the canary release answers; 0: none."""


class ShadowParams(Section):
    stage: str = "staging"
    """Who holds this stage answers too, unheard."""
    share: Fraction = 0.0
    """Of the requests, how many are also answered by the shadow; 0: none. It gets only what is left of the machine."""


class SloParams(Section):
    """Each is kept over the canary release's last `window` requests; one that is None is not kept."""

    errors: Fraction | None = 0.02
    """Share of requests that may fail."""
    p95_seconds: Annotated[float, Field(gt=0)] | None = None
    """Of answers: 95 in 100 may take no longer."""
    refusals: Fraction | None = None
    """Share of answers that may be empty or a refusal."""
    bad_feedback: Fraction | None = None
    """Of answers that feedback was given to, the share that may be bad."""
    min_requests: Count = 50
    """Nothing is decided on fewer."""
    window: Count = 500
    """So many requests back are looked at."""
    then: Literal["stop", "roll_back"] = "stop"
    """What becomes of a canary release that breaks one. stop: it gets no more requests until another holds its stage, or the
    server starts anew. roll_back: its stage is rolled back in the ledger as well. An alarm is raised either way."""


class RateParams(Section):
    """Of each key, unless the key itself says otherwise. Without keys, of all together."""

    requests_per_minute: Count = 600
    tokens_per_minute: Count = 200_000
    """Prompt and answer. What a request may use at most is taken beforehand; what it did not use is given back."""


class RequestLogParams(Section):
    share: Fraction = 0.0
    """Of the requests, how many are written down, with question and answer; 0: none. Personal data is redacted before. What
    `tuneline monitor` looks at (docs/monitoring.md)."""
    days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days after which what was written is removed."""
    max_bytes: Annotated[int, Field(ge=1 << 16)] = 256 << 20
    """All files together; beyond it the oldest goes, however young it is."""


class FeedbackParams(Section):
    """Feedback beyond a thumb that only steers a canary release: docs/monitoring.md."""

    keep_hours: Annotated[float, Field(ge=0, le=24 * 366)] = 0.0
    """How long every answer is kept, redacted, so that it can be told what feedback is about; 0: not at all, and then there is
    nothing that feedback could become."""
    max_answers: Count = 100_000
    """Of the answers kept, the oldest beyond these go."""
    max_chars: Annotated[int, Field(ge=100, le=1 << 20)] = 20_000
    """Of one corrected answer. Questions and answers that are longer are not kept, so feedback on them is a thumb alone."""


class ServeParams(Section):
    host: str = "127.0.0.1"
    """Address to listen at. Any but a loopback address needs keys (tuneline keys add) before anything is served."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8321
    """0: any free one; it is printed."""
    stage: str = "production"
    """Who holds this stage answers requests that pin no version."""
    engine: Literal["built_in", "vllm"] = "built_in"
    """What makes the answers: this process, or a vLLM server (TUNELINE_VLLM_URL), given adapters through its own API."""
    keys: Literal["auto", "required"] = "auto"
    """auto: a loopback address with an empty key file needs none to ask; to promote, approve and roll back always needs one."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Of requests that say none. 0, greedy, is how evaluation measured the release; OpenAI's own default is 1."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Answers under way at once, of all releases together."""
    queue: Annotated[int, Field(ge=0, le=100_000)] = 64
    """Answers that may wait beyond those; more are refused (429)."""
    poll_seconds: Annotated[float, Field(ge=0.02, le=60)] = 0.1
    """How often the ledger is asked whether it has moved."""
    hot: Annotated[int, Field(ge=1, le=64)] = 4
    """How many adapters stay loaded, the one in use and the one before it always among them."""
    limits: LimitParams = LimitParams()
    timeouts: TimeoutParams = TimeoutParams()
    canary: CanaryParams = CanaryParams()
    shadow: ShadowParams = ShadowParams()
    slo: SloParams = SloParams()
    rates: RateParams = RateParams()
    log: RequestLogParams = RequestLogParams()
    feedback: FeedbackParams = FeedbackParams()

    @model_validator(mode="after")
    def _check_stages(self) -> ServeParams:
        if self.canary.share and self.canary.stage == self.stage:
            raise ValueError(f"canary.stage: {self.stage} answers already; name another stage, or a share of 0")
        if self.shadow.share and self.shadow.stage == self.stage:
            raise ValueError(f"shadow.stage: {self.stage} answers already; name another stage, or a share of 0")
        return self
