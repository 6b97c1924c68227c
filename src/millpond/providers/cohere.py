"""Cohere's API, version 1: generate and embed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from millpond.domain.call import Claimed
from millpond.domain.job import Endpoint
from millpond.domain.quota import generate_need
from millpond.errors import Refused as RefusedByRule
from millpond.providers.http import Http, Reply
from millpond.providers.outcome import Answered, NoAnswer, NotSent, Outcome, judge

BASE_URL = "https://api.cohere.com"
MODELS = {Endpoint.GENERATE: "command", Endpoint.EMBED: "embed-english-v3.0"}
_PATHS = {Endpoint.GENERATE: "/v1/generate", Endpoint.EMBED: "/v1/embed"}
_OURS = {
    Endpoint.GENERATE: frozenset({"prompt", "model", "stream"}),
    Endpoint.EMBED: frozenset({"texts", "model", "images"}),
}
_DEFAULTS: dict[Endpoint, dict[str, Any]] = {
    Endpoint.GENERATE: {},
    Endpoint.EMBED: {"input_type": "search_document"},
}
_MESSAGE_MOST = 500


class BadParameter(RefusedByRule):
    """A parameter of a request that cannot be sent; `name` is the parameter."""

    code = "bad_parameter"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Request:
    """A request's body, and the characters to reserve for it."""

    payload: bytes
    need: int


def request(
    endpoint: Endpoint, prompt: str, *, model: str, max_tokens: int, params: Mapping[str, Any]
) -> Request:
    """Write the request for one job. Raises BadParameter for what cannot be sent."""
    for name in params:
        if name in _OURS[endpoint]:
            raise BadParameter(name, f"parameter {name!r} is set by millpond itself")
    body = {"model": model, **_DEFAULTS[endpoint], **params}
    match endpoint:
        case Endpoint.GENERATE:
            body = {"prompt": prompt, "max_tokens": max_tokens, **body}
            tokens = _whole(body, "max_tokens", least=1, most=100_000)
            outputs = _whole(body, "num_generations", least=1, most=5, default=1)
            need = generate_need(len(prompt), tokens, outputs)
        case Endpoint.EMBED:
            body = {"texts": [prompt], **body}
            need = len(prompt)
    return Request(orjson.dumps(body), need)


def _whole(
    body: Mapping[str, Any], name: str, *, least: int, most: int, default: int | None = None
) -> int:
    value = body.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise BadParameter(
            name, f"parameter {name!r} must be a whole number from {least} to {most:,}"
        )
    return value


class Cohere:
    """Sends calls and reads what came of them."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def send(self, call: Claimed) -> tuple[Outcome, float | None]:
        """One request; its outcome, and when the response headers came (None: they did not)."""
        endpoint = Endpoint(call.endpoint)
        payload = call.jobs[0].payload
        reply = await self._http.post(_PATHS[endpoint], payload, attempt=call.id)
        match reply:
            case Reply():
                return read(endpoint, payload, reply), reply.headers_ms
            case NoAnswer() | NotSent():
                return reply, None


def read(endpoint: Endpoint, payload: bytes, reply: Reply) -> Outcome:
    """What a reply means. A 200 that does not hold what was asked for is no answer."""
    if 200 < reply.status < 300:
        return NoAnswer(f"the reply has status {reply.status}, which holds no answer")
    if reply.status != 200:
        return judge(reply.status, _message(reply.body), reply.retry_after)
    try:
        body = orjson.loads(reply.body)
        asked = orjson.loads(payload)
        match endpoint:
            case Endpoint.GENERATE:
                return _generated(asked, body)
            case Endpoint.EMBED:
                return _embedded(asked, body)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return NoAnswer("the reply is not what the provider's documentation says")


def _generated(asked: dict[str, Any], body: dict[str, Any]) -> Answered:
    texts = [generation["text"] for generation in body["generations"]]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise TypeError
    characters = {"input": len(asked["prompt"]), "output": sum(map(len, texts))}
    result: dict[str, Any] = {"text": texts[0]}
    if len(texts) > 1:
        result["texts"] = texts
    result |= {"model": asked["model"], "characters": characters}
    reason = body["generations"][0].get("finish_reason")
    if isinstance(reason, str):
        result["finish_reason"] = reason
    return Answered((result,), sum(characters.values()))


def _embedded(asked: dict[str, Any], body: dict[str, Any]) -> Answered:
    found = body["embeddings"]
    if isinstance(found, dict):
        found = next(iter(found.values()), None)
    (embedding,) = found
    if not isinstance(embedding, list) or not all(isinstance(x, int | float) for x in embedding):
        raise TypeError
    characters = {"input": sum(map(len, asked["texts"])), "output": 0}
    result = {"embedding": embedding, "model": asked["model"], "characters": characters}
    return Answered((result,), characters["input"])


def _message(body: bytes) -> str:
    try:
        found = orjson.loads(body)["message"]
    except (ValueError, TypeError, KeyError):
        found = body.decode(errors="replace")
    return str(found)[:_MESSAGE_MOST]
