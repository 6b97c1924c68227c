"""OpenAI's wire: chat completions and embeddings, and its errors.

A chat is a call on the endpoint `generate`, embeddings are one on `embed`: they share the
windows with Cohere's calls of that name.
"""

import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import orjson

from millpond.simulator.author import DIMENSIONS, Author, Text
from millpond.simulator.books import Against, Page, QuotaSpent
from millpond.simulator.limits import AtOnce, Limit, Unit, Units
from millpond.simulator.wire import (
    Answer,
    Asked,
    Invalid,
    fields,
    tokens_of,
    units_of,
    wrong_texts,
    wrong_type,
)

TEXTS_MAX = 2_048
CHOICES_MAX = 128
#: Without `max_tokens`, a text may be so long.
TOKENS_MAX = 16_384
#: What a message costs beside its content.
TOKENS_PER_MESSAGE = 4

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
STREAM_TYPE = "text/event-stream; charset=utf-8"

#: The same request is answered byte for byte the same, so all are created at one moment.
CREATED = 1_700_000_000
FINGERPRINT = "fp_millpond"

WRONG_TYPES = orjson.dumps({"id": 7, "object": 7, "choices": "none", "data": "none", "usage": []})

CHAT_FIELDS = {
    "model": "string",
    "messages": "list",
    "max_tokens": "int",
    "max_completion_tokens": "int",
    "n": "int",
    "seed": "int",
    "temperature": "number",
    "top_p": "number",
    "frequency_penalty": "number",
    "presence_penalty": "number",
    "stream": "bool",
    "stream_options": "object",
    "user": "string",
}

EMBEDDINGS_FIELDS = {
    "model": "string",
    "encoding_format": "string",
    "dimensions": "int",
    "user": "string",
}

#: `type` and `code` of errors, by status; a limit that is reached has its own.
ERRORS: dict[int, tuple[str, str | None]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "unknown_url"),
    413: ("invalid_request_error", None),
    429: ("requests", "rate_limit_exceeded"),
}
SERVER_ERROR = ("server_error", None)


@dataclass(frozen=True, slots=True)
class Chat:
    """`usage`: a stream is to end with what it cost."""

    model: str
    messages: list[tuple[str, str]]
    max_tokens: int
    n: int = 1
    stream: bool = False
    usage: bool = False

    def answer(self, author: Author, answer_id: str) -> Answer:
        asked = "\n".join(f"{role}: {content}" for role, content in self.messages)
        texts = [author.text(asked, tokens_max=self.max_tokens, nth=nth) for nth in range(self.n)]
        characters = sum(len(content) for _, content in self.messages)
        read = tokens_of(characters) + TOKENS_PER_MESSAGE * len(self.messages)
        written = sum(len(text.words) for text in texts)
        units = Units(
            inputs=1,
            characters=characters + sum(len(str(text)) for text in texts),
            tokens=read + written,
        )
        usage = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
        chat_id = f"chatcmpl-{answer_id.replace('-', '')}"
        pieces = partial(self._pieces, texts, chat_id, usage) if self.stream else None
        return Answer(units, partial(self._body, texts, chat_id, usage), pieces)

    def _body(self, texts: Sequence[Text], chat_id: str, usage: dict[str, Any]) -> bytes:
        choices: list[dict[str, Any]] = [
            {
                "index": nth,
                "message": {
                    "role": "assistant",
                    "content": str(text),
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": _finish_reason(text),
            }
            for nth, text in enumerate(texts)
        ]
        head = self._head(chat_id, "chat.completion")
        return orjson.dumps({**head, "choices": choices, "usage": usage, "service_tier": "default"})

    def _pieces(self, texts: Sequence[Text], chat_id: str, usage: dict[str, Any]) -> list[bytes]:
        """For each choice its role, its tokens and its end; then the usage; then that it is done.

        Where the usage is asked for, the other chunks have a null in its place.
        """
        head = self._head(chat_id, "chat.completion.chunk")
        if self.usage:
            head["usage"] = None
        chunks = []
        for nth, text in enumerate(texts):
            deltas: list[dict[str, str]] = [
                {"role": "assistant", "content": ""},
                *({"content": piece} for piece in text.pieces()),
            ]
            choices: list[dict[str, Any]] = [
                {"index": nth, "delta": delta, "logprobs": None, "finish_reason": None}
                for delta in deltas
            ]
            end = _finish_reason(text)
            choices.append({"index": nth, "delta": {}, "logprobs": None, "finish_reason": end})
            chunks += [{**head, "choices": [choice]} for choice in choices]
        if self.usage:
            chunks.append({**head, "choices": [], "usage": usage})
        return [*(_event(orjson.dumps(chunk)) for chunk in chunks), _event(b"[DONE]")]

    def _head(self, chat_id: str, kind: str) -> dict[str, Any]:
        return {
            "id": chat_id,
            "object": kind,
            "created": CREATED,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }


@dataclass(frozen=True, slots=True)
class Embeddings:
    model: str
    texts: list[str]
    base64: bool

    def answer(self, author: Author, answer_id: str) -> Answer:
        units = units_of(self.texts, inputs=len(self.texts))
        return Answer(units, partial(self._body, author, units.tokens))

    def _body(self, author: Author, read: int) -> bytes:
        vectors = [author.vector(text) for text in self.texts]
        data = [
            {
                "object": "embedding",
                "index": nth,
                "embedding": _base64(vector) if self.base64 else vector,
            }
            for nth, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": read, "total_tokens": read}
        return orjson.dumps({"object": "list", "data": data, "model": self.model, "usage": usage})


def request(endpoint: str, body: bytes) -> Asked | Invalid:
    asked = fields(body)
    if isinstance(asked, Invalid):
        return asked
    read = {"generate": _chat, "embed": _embeddings}[endpoint]
    return read(asked)


def _chat(fields: Mapping[str, Any]) -> Chat | Invalid:
    if wrong := wrong_type(fields, CHAT_FIELDS) or _without_model(fields):
        return wrong
    messages = _messages(fields.get("messages", []))
    if isinstance(messages, Invalid):
        return messages
    max_tokens = TOKENS_MAX
    for name in ("max_tokens", "max_completion_tokens"):
        asked = fields.get(name, TOKENS_MAX)
        if asked < 1:
            return Invalid(f"Invalid '{name}': must be 1 or more, but got {asked}.", name)
        max_tokens = min(max_tokens, asked)
    n = fields.get("n", 1)
    if not 1 <= n <= CHOICES_MAX:
        return Invalid(f"Invalid 'n': must be from 1 to {CHOICES_MAX}, but got {n}.", "n")
    stream = fields.get("stream", False)
    options = fields.get("stream_options")
    if options is not None and not stream:
        return Invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
        )
    usage = (options or {}).get("include_usage") is True
    return Chat(fields["model"], messages, max_tokens, n, stream, usage)


def _messages(given: Sequence[object]) -> list[tuple[str, str]] | Invalid:
    if not given:
        return Invalid("Missing required parameter: 'messages'.", "messages")
    messages = []
    for index, one in enumerate(given):
        match one:
            case {"role": str(role), "content": str(content)} if role in ROLES:
                messages.append((role, content))
            case {"content": list()}:
                return Invalid(
                    "content in parts is not simulated, only strings",
                    f"messages[{index}].content",
                )
            case _:
                return Invalid(
                    f"Invalid 'messages[{index}]': it must have a content that is a string, and"
                    f" a role of {', '.join(ROLES)}.",
                    f"messages[{index}]",
                )
    return messages


def _embeddings(fields: Mapping[str, Any]) -> Embeddings | Invalid:
    if wrong := wrong_type(fields, EMBEDDINGS_FIELDS) or _without_model(fields):
        return wrong
    given = fields.get("input", [])
    if not isinstance(given, str | list):
        return Invalid("Invalid type for 'input': expected a string or a list of them.", "input")
    texts = [given] if isinstance(given, str) else given
    if wrong := wrong_texts("input", texts, TEXTS_MAX):
        return wrong
    form = fields.get("encoding_format", "float")
    if form not in ("float", "base64"):
        return Invalid(
            f"Invalid value: '{form}'. Supported values are: 'float' and 'base64'.",
            "encoding_format",
        )
    return Embeddings(fields["model"], texts, base64=form == "base64")


def _without_model(fields: Mapping[str, Any]) -> Invalid | None:
    return None if fields.get("model") else Invalid("you must provide a model parameter", "model")


def _finish_reason(text: Text) -> str:
    return "length" if text.cut else "stop"


def _event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


def _base64(vector: Sequence[float]) -> str:
    return b64encode(struct.pack(f"<{DIMENSIONS}f", *vector)).decode()


def error(status: int, message: str, param: str | None = None) -> bytes:
    kind, code = ERRORS.get(status, SERVER_ERROR)
    return _error(message, kind, code, param)


def _error(message: str, kind: str, code: str | None, param: str | None = None) -> bytes:
    fault = {"message": message, "type": kind, "param": param, "code": code}
    return orjson.dumps({"error": fault})


def refusal(endpoint: str, against: Against) -> tuple[int, bytes]:
    """Both are 429; clients tell them apart by the code."""
    match against:
        case Limit(written=written, unit=unit):
            kind = "tokens" if unit is Unit.TOKENS else "requests"
            message = f"Rate limit reached on {endpoint}: limit {written}. Please try again later."
            return 429, _error(message, kind, "rate_limit_exceeded")
        case AtOnce(written=written):
            message = f"Rate limit reached on {endpoint}: limit {written}. Please try again later."
            return 429, _error(message, "requests", "rate_limit_exceeded")
        case QuotaSpent(settled=settled, quota=quota):
            message = (
                f"You exceeded your current quota of {quota} characters: {settled} were used,"
                " please check your plan and billing details."
            )
            return 429, _error(message, "insufficient_quota", "insufficient_quota")


def headers(page: Page, at_ms: float, service_ms: int | None) -> dict[str, str]:
    """How the shortest window of calls and that of tokens are filled."""
    found = {} if service_ms is None else {"openai-processing-ms": str(service_ms)}
    for name, unit in (("requests", Unit.CALLS), ("tokens", Unit.TOKENS)):
        standing = page.standing(unit, at_ms)
        if standing is not None:
            found[f"x-ratelimit-limit-{name}"] = str(standing.amount)
            found[f"x-ratelimit-remaining-{name}"] = str(standing.left)
            found[f"x-ratelimit-reset-{name}"] = duration(standing.whole_ms)
    return found


def duration(ms: float) -> str:
    """As `12ms`, `1s` or `6m0s`; never shorter than it is."""
    whole_ms = ceil(ms)
    if 0 < whole_ms < 1_000:
        return f"{whole_ms}ms"
    minutes, rest_ms = divmod(whole_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest_ms / 1_000:g}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
