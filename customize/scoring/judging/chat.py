"""Any server of OpenAI's protocol: questions in, texts or reasons out; `openai` stays here.

The client's own retries see to 429, 500 and lost connections; what is left after them is counted,
and a server that cannot be reached at all is said in one message.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from customize.errors import EndpointError
from customize.files.parse import parse_json
from customize.files.text import Unreadable

FAILURES = 20
"""Questions in a row that may fail before the server is given up."""


@dataclass(frozen=True)
class Reply:
    """A text, or why there is none: `refused` by the model, or a failure of the server."""

    text: str = ""
    refused: bool = False
    failure: str = ""


@dataclass(frozen=True)
class ServerOptions:
    """Where a server is and how patiently it is asked; `key_variable` names the key's variable."""

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    retries: int = 5
    at_once: int = 8
    temperature: float = 0.7
    frequency_penalty: float = 0.1
    longest: int = 256


class Chat:
    """A server opened for questions; several are asked at the same time."""

    def __init__(self, options: ServerOptions) -> None:
        """Make the client; raises EndpointError where `openai` is not installed or no address."""
        try:
            import openai
        except ImportError:
            raise EndpointError(
                "the package `openai` is missing, which endpoints are asked through; expected it "
                'to be installed; run `pip install "customize[synthesis]"`'
            ) from None
        if not options.url.startswith(("http://", "https://")):
            raise EndpointError(
                f"endpoint {options.url!r}: no web address; expected one such as "
                "http://localhost:8000/v1; correct `url`"
            )
        self.options, self._openai = options, openai
        self._client = openai.OpenAI(
            base_url=options.url,
            # local servers want no key, and the client wants some text
            api_key=os.environ.get(options.key_variable) or "none",
            timeout=options.timeout,
            max_retries=options.retries,
        )
        self._structured, self._failed, self._lock = True, 0, threading.Lock()

    def ask_all(
        self, questions: Sequence[Sequence[Any]], seeds: Sequence[int], schema: Mapping[str, Any]
    ) -> list[Reply]:
        """Ask every question (its messages), answered in their order, by the JSON `schema`.

        Raises EndpointError when the server refuses the key or model, or keeps failing.
        """
        with ThreadPoolExecutor(self.options.at_once) as pool:
            asked = [
                pool.submit(self.ask, messages, seed, schema)
                for messages, seed in zip(questions, seeds, strict=True)
            ]
            return [future.result() for future in asked]

    def ask(self, messages: Sequence[Any], seed: int, schema: Mapping[str, Any]) -> Reply:
        """Ask one question; see `ask_all`."""
        errors = self._openai
        try:
            reply = self._create(messages, seed, schema)
        except (errors.AuthenticationError, errors.PermissionDeniedError) as error:
            raise self._unusable(
                f"it refuses the key ({error.status_code})",
                f"set {self.options.key_variable} to a key it knows",
            ) from None
        except errors.NotFoundError:
            cure = "correct `model` or `url` (which ends in /v1 on most servers)"
            raise self._unusable(f"it has no model {self.options.model!r} there", cure) from None
        except errors.OpenAIError as error:
            return self._note_failure(error)
        with self._lock:
            self._failed = 0
        return reply

    def _create(self, messages: Sequence[Any], seed: int, schema: Mapping[str, Any]) -> Reply:
        options = self.options
        arguments: dict[str, Any] = {
            "model": options.model,
            "messages": list(messages),
            "seed": seed,
            "temperature": options.temperature,
            "frequency_penalty": options.frequency_penalty,
            "max_tokens": options.longest,
        }
        create: Any = self._client.chat.completions.create
        if self._structured:
            try:
                return _reply(create(**arguments, response_format=_format(schema)))
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
                if "response_format" not in str(error):
                    raise
                self._structured = False  # a server without structured output: the prompt must do
        return _reply(create(**arguments))

    def _note_failure(self, error: Exception) -> Reply:
        """Count a failure; the server is given up when nothing else has come for a while."""
        first = (str(error).splitlines() or [""])[0][:120]
        failure = f"{type(error).__name__}: {first}"
        with self._lock:
            self._failed += 1
            failed = self._failed
        timed_out = isinstance(error, self._openai.APITimeoutError)
        lost = isinstance(error, self._openai.APIConnectionError) and not timed_out
        if failed >= FAILURES or lost:
            raise self._unusable(
                f"{failed} questions failed, the last with {failure}",
                "start the server or correct `url`, then repeat the command: it goes on",
            ) from None
        return Reply(failure=failure)

    def _unusable(self, found: str, cure: str) -> EndpointError:
        return EndpointError(
            f"endpoint {self.options.url}: {found}; expected a server of OpenAI's protocol; {cure}"
        )


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)},
    }


def _reply(answer: Any) -> Reply:
    """Take the text out of an answer; whatever a server leaves out counts as no text."""
    choices = getattr(answer, "choices", None) or []
    if not choices:
        return Reply()
    message = getattr(choices[0], "message", None)
    if getattr(message, "refusal", None) or choices[0].finish_reason == "content_filter":
        return Reply(refused=True)
    content = getattr(message, "content", None)
    return Reply(text=content if isinstance(content, str) else "")


def object_schema(properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Describe an object of exactly these properties."""
    return {
        "type": "object",
        "properties": {name: dict(kind) for name, kind in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }


LONGEST_ANSWER = 8000
"""Letters that are looked at; nothing asked for is nearly as long."""


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that an answer is, None for anything else or far too long a text."""
    if len(text) > LONGEST_ANSWER:
        return None
    try:
        content = parse_json(text)
    except Unreadable:
        return None
    return content if isinstance(content, dict) else None
