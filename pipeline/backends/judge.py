"""A judge behind any OpenAI-compatible address: POST …/chat/completions, temperature 0, one small JSON object as the verdict.

Whatever comes back is either that object or no verdict. What a judge reads (answers of a model, prompts of users) is given to it
as JSON strings, so that it can tell data from what it is told; what it does not heed is met by asking in both orders, see
evaluation/judging.py. The key goes into one header and nowhere else.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from pipeline.backends.judge_address import Address
from pipeline.backends.judge_words import claim_messages, question_messages, read_claim, read_preference, rejoinder
from pipeline.errors import Misuse
from pipeline.params.evaluate import JudgeParams
from pipeline.ports import Progress, Question, silent

TRIES = 4
"""At most so many requests for one verdict."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_OURS = frozenset({400, 401, 403, 404, 405, 410, 413, 415, 422})
"""Answers that say that we ask wrongly; the same question again would get the same."""
_GIVES_UP, _DOWN_S = 3, 60.0
"""After so many questions in a row that got no answer at all, the judge is taken for down and is not asked for so long."""
_DOWN = "it was taken for down and not asked"
_MOST_BYTES = 1_000_000
_MOST_TOKENS = 1024
"""For a verdict; a model that thinks aloud needs more than the verdict."""

T = TypeVar("T")
Messages = list[dict[str, str]]


class _NoVerdict(Exception):
    """Why, in a few words that hold nothing of what was asked. answered: whether the judge was there at all."""

    def __init__(self, why: str, *, answered: bool, pause: float | None = None, again: bool = False) -> None:
        super().__init__(why)
        self.why, self.answered, self.pause, self.again = why, answered, pause, again


class EndpointJudge:
    """The model `params.model` at `url`. Implements ports.Judge: never raises once asked, a missing verdict is None.

    key: sent as a bearer token, None where none is wanted. tries, first_pause: for tests. Raises Misuse for an address that would
    send the key or users' texts in clear over a network.
    """

    def __init__(
        self,
        params: JudgeParams,
        url: SecretStr | str | None,
        key: SecretStr | None = None,
        *,
        tries: int = TRIES,
        first_pause: float = _FIRST_PAUSE_S,
    ) -> None:
        if url is None:
            raise Misuse("nobody said where the judge is", where="TUNELINE_JUDGE_URL", fix="set it, or leave out evaluate.judge")
        self._params = params
        self._address = Address.of(url.get_secret_value() if isinstance(url, SecretStr) else url)
        self._key = _checked(key)
        self._tries, self._first_pause = tries, first_pause
        self._reasons: Counter[str] = Counter()
        self._unanswered, self._paused_until, self._down_until = 0, 0.0, 0.0

    @property
    def name(self) -> str:
        return f"{self._params.model} at {self._address.host}"

    def check(self) -> None:
        """Ask something small, before anything is measured. Raises Misuse where the judge says that it is asked wrongly: a bad
        key, an unknown model, no such address. One that is down or busy raises nothing: verdicts will be missing, and say why."""
        asked = question_messages("Which is a greeting?", "Hello", "Hello", "17")

        async def once() -> None:
            async with self._client() as client:
                response = await self._post(client, asked)
            if response.status in _OURS or 300 <= response.status < 400:
                said = rejoinder(response.body, self._secret())
                raise Misuse(
                    f"the judge {self.name} answers {response.status}{said}",
                    where="evaluate.judge, TUNELINE_JUDGE_URL",
                    fix="see that the address, TUNELINE_JUDGE_KEY and evaluate.judge.model are right",
                )

        with suppress(_NoVerdict):
            _in_a_loop(once())

    def prefer(self, asked: Sequence[Question], *, progress: Progress = silent) -> list[float | None]:
        messages = [question_messages(self._params.criterion, one.input, one.first, one.second) for one in asked]
        return self._ask_all(messages, read_preference, progress)

    def holds(self, rubric: str, prompt: str, answer: str) -> bool | None:
        return self._ask_all([claim_messages(rubric, prompt, answer)], read_claim, silent)[0]

    def why_not(self) -> str:
        """Of the verdicts that are missing, how many for which reason."""
        return "; ".join(f"{count} times {why}" for why, count in self._reasons.most_common())

    def _ask_all(self, asked: Sequence[Messages], read: Callable[[str], T | None], progress: Progress) -> list[T | None]:
        async def all_of_them() -> list[T | None]:
            turns, done = asyncio.Semaphore(self._params.concurrency), 0

            async def one(client: httpx.AsyncClient, messages: Messages) -> T | None:
                nonlocal done
                async with turns:
                    found = await self._verdict(client, messages, read)
                done += 1
                progress(f"verdicts of {self.name}", done, len(asked))
                return found

            async with self._client() as client:
                return list(await asyncio.gather(*(one(client, messages) for messages in asked)))

        return _in_a_loop(all_of_them())

    async def _verdict(self, client: httpx.AsyncClient, messages: Messages, read: Callable[[str], T | None]) -> T | None:
        try:
            said = await self._patiently(client, messages)
        except _NoVerdict as missing:
            self._unanswered = 0 if missing.answered else self._unanswered + 1
            if self._unanswered >= _GIVES_UP and missing.why != _DOWN:
                self._down_until = time.monotonic() + _DOWN_S
            self._reasons[missing.why] += 1
            return None
        self._unanswered = 0
        verdict = read(said)
        if verdict is None:
            self._reasons["it answered something else than a verdict"] += 1
        return verdict

    async def _patiently(self, client: httpx.AsyncClient, messages: Messages) -> str:
        """What the judge says, after as many tries as it takes. Raises _NoVerdict."""
        for left in range(self._tries - 1, -1, -1):
            await asyncio.sleep(max(0.0, self._paused_until - time.monotonic()))
            if self._unanswered >= _GIVES_UP and time.monotonic() < self._down_until:
                raise _NoVerdict(_DOWN, answered=False)
            try:
                return _content(await self._post(client, messages))
            except _NoVerdict as missing:
                if not missing.again or not left:
                    raise
                if missing.pause is not None and missing.pause > _LONGEST_PAUSE_S:
                    raise _NoVerdict(f"{missing.why}, and to wait longer than {_LONGEST_PAUSE_S:g} s", answered=False) from None
                await self._pause(missing, self._tries - 1 - left)
        raise AssertionError("the last try raises or returns")

    async def _pause(self, missing: _NoVerdict, tries: int) -> None:
        """As long as it was asked for, by all who ask; else twice as long each time, cut short by chance, so that those who were
        turned away together do not come back together (Brooker 2015, "Exponential Backoff and Jitter")."""
        if missing.pause is not None:
            self._paused_until = max(self._paused_until, time.monotonic() + missing.pause)
        await asyncio.sleep(random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE_S, self._first_pause * 2**tries))

    async def _post(self, client: httpx.AsyncClient, messages: Messages) -> _Response:
        """One request, all of it within the time limit and the size limit. Raises _NoVerdict for what keeps it from an answer."""
        body = {"model": self._params.model, "messages": messages, "temperature": 0, "max_completion_tokens": _MOST_TOKENS}
        try:
            async with asyncio.timeout(self._params.timeout_s), client.stream("POST", self._address.url, json=body) as response:
                data = bytearray()
                async for piece in response.aiter_raw():
                    data += piece
                    if len(data) > _MOST_BYTES:
                        raise _NoVerdict(f"it answered more than {_MOST_BYTES} bytes", answered=True)
                return _Response(response.status_code, bytes(data), response.headers)
        except TimeoutError:
            raise _NoVerdict(f"it took more than {self._params.timeout_s:g} s", answered=False, again=True) from None
        except httpx.HTTPError as error:
            # The kind of error alone: its text may hold the address.
            raise _NoVerdict(f"it could not be reached ({type(error).__name__})", answered=False, again=True) from None

    def _client(self) -> httpx.AsyncClient:
        headers = {"Accept-Encoding": "identity"}  # nothing is unpacked, so nothing unpacks to more than the limit
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._secret()}"
        limits = httpx.Limits(max_connections=self._params.concurrency)
        # A proxy of the environment is for the network, not for this machine. Redirects are not followed: the key stays here.
        return httpx.AsyncClient(
            headers=headers, timeout=None, limits=limits, follow_redirects=False, trust_env=not self._address.is_loopback
        )

    def _secret(self) -> str:
        return self._key.get_secret_value() if self._key is not None else ""


class _Response:
    def __init__(self, status: int, body: bytes, headers: httpx.Headers) -> None:
        self.status, self.body, self.headers = status, body, headers


def _content(response: _Response) -> str:
    """The text that the model gave. Raises _NoVerdict where there is none."""
    if response.status != 200:
        again = response.status in _AGAIN
        raise _NoVerdict(f"it answered {response.status}", answered=True, again=again, pause=_asked_to_wait(response.headers))
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _NoVerdict("it answered packed, though asked not to", answered=True)
    try:
        said: Any = json.loads(response.body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        said = None
    if not isinstance(said, str):
        raise _NoVerdict("it answered something else than a chat completion", answered=True)
    return said


def _asked_to_wait(headers: httpx.Headers) -> float | None:
    """Seconds, by the header Retry-After: a number of them, or a date (RFC 9110, section 10.2.3)."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
    return None


def _checked(key: SecretStr | None) -> SecretStr | None:
    if key is None or not key.get_secret_value():
        return None
    if not all("!" <= character <= "~" for character in key.get_secret_value()):
        fix = "see that the variable holds the key alone, without line ends or quotes"
        raise Misuse("the judge's key holds what no key holds", where="TUNELINE_JUDGE_KEY", fix=fix)
    return key


def _in_a_loop(asked: Awaitable[T]) -> T:
    """Run in a thread with an event loop of its own: the caller may stand in one already."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def whole() -> T:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await asked

    with ThreadPoolExecutor(1, "judge") as thread:
        waited = thread.submit(asyncio.run, whole())
        try:
            return waited.result()
        except BaseException:
            # Interrupted, here or there: what still waits in the other thread must not keep this one.
            for loop, task in running:
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel if task else loop.stop)
            raise
