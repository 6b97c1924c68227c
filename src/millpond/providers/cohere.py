"""Cohere's API, version 1: generate, embed and classify."""

import re
from collections.abc import Sequence
from typing import Any

import orjson

from millpond.domain.job import Endpoint
from millpond.domain.quota import generate_need, tokens_of
from millpond.domain.request import Ask, Common, Need
from millpond.providers.adapter import (
    MESSAGE_MOST,
    TOKENS_MOST,
    BadParameter,
    PackKeys,
    Reply,
    Wire,
    blamed,
    left_of,
    message_of,
    none_of,
    number,
    some_text,
    whole,
)
from millpond.providers.outcome import Answered, NoAnswer, Outcome, Result, judge

PATHS = {
    Endpoint.GENERATE: "/v1/generate",
    Endpoint.EMBED: "/v1/embed",
    Endpoint.CLASSIFY: "/v1/classify",
}
#: Most texts of a call.
TEXTS_MOST = 96
#: The field that has the texts.
_TEXTS = {
    Endpoint.GENERATE: "prompt",
    Endpoint.EMBED: "texts",
    Endpoint.CLASSIFY: "inputs",
}
_OURS = {
    Endpoint.GENERATE: frozenset({"prompt", "model"}),
    Endpoint.EMBED: frozenset({"texts", "model", "images"}),
    Endpoint.CLASSIFY: frozenset({"inputs", "examples", "model"}),
}
_DEFAULTS: dict[Endpoint, dict[str, Any]] = {
    Endpoint.GENERATE: {"stream": True},
    Endpoint.EMBED: {"input_type": "search_document"},
    Endpoint.CLASSIFY: {},
}
_RANGES = {
    "temperature": (0, 5),
    "k": (0, 500),
    "p": (0, 1),
    "frequency_penalty": (0, 1),
    "presence_penalty": (0, 1),
}
_TRUNCATE = ("NONE", "START", "END")
#: A proxy's word for how long the work behind it took: a whole day is not believed.
_SERVICE_MS = re.compile(r"[0-9]{1,8}")


class Cohere:
    """Cohere's wire format."""

    def __init__(self) -> None:
        self._keys = PackKeys()

    def need(self, common: Common, ask: Ask) -> Need:
        if ask.body is not None:
            raise BadParameter("body", "a line of an OpenAI batch file needs --provider openai")
        params = {**common.params, **ask.params}
        none_of(params, _OURS[common.endpoint])
        some_text(_TEXTS[common.endpoint], ask.text)
        if params.get("truncate", "END") not in _TRUNCATE:
            raise BadParameter("truncate", f"parameter 'truncate' is one of {_TRUNCATE}")
        if common.endpoint is not Endpoint.GENERATE:
            return Need(len(ask.text), tokens_of(ask.text), base=len(ask.text))
        for name, (least, most) in _RANGES.items():
            number(params, name, least=least, most=most)
        most_tokens = whole(params, "max_tokens", least=1, most=100_000, default=common.max_tokens)
        outputs = whole(params, "num_generations", least=1, most=5, default=1)
        return Need(
            generate_need(len(ask.text), most_tokens, outputs),
            tokens_of(ask.text) + most_tokens * outputs,
            base=len(ask.text),
        )

    def wire(self, common: Common, asks: Sequence[Ask]) -> Wire:
        texts = [ask.text for ask in asks]
        body = {"model": common.model, **_DEFAULTS[common.endpoint], **common.params}
        body |= asks[0].params
        match common.endpoint:
            case Endpoint.GENERATE:
                body = {"prompt": texts[0], "max_tokens": common.max_tokens, **body}
            case Endpoint.EMBED:
                body = {"texts": texts, **body}
            case Endpoint.CLASSIFY:
                examples = [{"text": one.text, "label": one.label} for one in common.examples]
                body = {"inputs": texts, "examples": examples, **body}
        return Wire(PATHS[common.endpoint], orjson.dumps(body))

    def pack_most(self, common: Common) -> int:
        return 1 if common.endpoint is Endpoint.GENERATE else TEXTS_MOST

    def pack_key(self, common: Common, ask: Ask) -> str:
        most = self.pack_most(common)
        return self._keys.key(common, most, ask.params) if most > 1 and ask.body is None else ""

    def told(self, reply: Reply) -> str | None:
        """It names no window, and only trial keys are told of any limit."""
        return None

    def said(self, reply: Reply) -> str | None:
        trial, month = "x-trial-endpoint-call-", "x-endpoint-monthly-call-limit"
        headers = reply.headers
        found = (
            left_of("calls", headers.get(f"{trial}remaining"), headers.get(f"{trial}limit")),
            left_of("calls a month", None, headers.get(month)),
        )
        return "; ".join(filter(None, found)) or None

    def service_ms(self, reply: Reply) -> int | None:
        """As its proxy says, which calls are counted at."""
        told = reply.headers.get("x-envoy-upstream-service-time", "")
        return int(told) if _SERVICE_MS.fullmatch(told) else None

    def read(self, common: Common, asks: Sequence[Ask], reply: Reply) -> Outcome:
        if 200 < reply.status < 300:
            return NoAnswer(f"the reply has status {reply.status}, which holds no answer")
        if reply.status != 200:
            message = message_of(reply.body, "message")
            outcome = judge(reply.status, message, reply.headers.get("Retry-After"))
            return blamed(outcome, _TEXTS[common.endpoint], len(asks), message)
        try:
            generates = common.endpoint is Endpoint.GENERATE
            body = _whole_reply(reply.body) if generates else orjson.loads(reply.body)
            if error := body.get("message") or body.get("err"):
                return NoAnswer(f"an error came instead of an answer: {error[:MESSAGE_MOST]}")
            match common.endpoint:
                case Endpoint.GENERATE:
                    return _generated(common, asks, body)
                case Endpoint.EMBED:
                    return _embedded(common, asks, body)
                case Endpoint.CLASSIFY:
                    return _classified(common, asks, body)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return NoAnswer("the reply is not what the provider's documentation says")


def _whole_reply(body: bytes) -> dict[str, Any]:
    """The reply to generate; of a stream, what its last event holds, or that event if it is an
    error."""
    last: dict[str, Any] = orjson.loads(body.rstrip().rpartition(b"\n")[2])
    if "event_type" not in last or last["event_type"] == "stream-error":
        return last
    if last["event_type"] != "stream-end" or last.get("finish_reason") == "ERROR":
        raise ValueError("the stream was cut")
    whole_reply: dict[str, Any] = last["response"]
    return whole_reply


def _generated(common: Common, asks: Sequence[Ask], body: dict[str, Any]) -> Answered:
    generations = body["generations"]
    texts = [one["text"] for one in generations]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise TypeError
    if any(one.get("finish_reason") == "ERROR" for one in generations):
        raise ValueError("the text was cut")
    characters = {"input": len(asks[0].text), "output": sum(map(len, texts))}
    result: Result = {"text": texts[0]}
    if len(texts) > 1:
        result["texts"] = texts
    result |= {"model": common.model, "characters": characters}
    if isinstance(generations[0].get("finish_reason"), str):
        result["finish_reason"] = generations[0]["finish_reason"]
    return Answered((result,), (sum(characters.values()),), _tokens(body))


def _embedded(common: Common, asks: Sequence[Ask], body: dict[str, Any]) -> Answered:
    found = body["embeddings"]
    if isinstance(found, dict):
        found = next(iter(found.values()), None)
    results = tuple(
        _with_characters(common, ask, {"embedding": numbers(one)})
        for ask, one in zip(asks, found, strict=True)
    )
    return Answered(results, tuple(len(ask.text) for ask in asks), _tokens(body))


def _classified(common: Common, asks: Sequence[Ask], body: dict[str, Any]) -> Answered:
    results = []
    for ask, one in zip(asks, body["classifications"], strict=True):
        label, confidence = one["prediction"], one["confidence"]
        every = {name: at["confidence"] for name, at in one["labels"].items()}
        if not isinstance(label, str):
            raise TypeError
        numbers([confidence, *every.values()])
        told = {"label": label, "confidence": confidence, "confidences": every}
        results.append(_with_characters(common, ask, told))
    return Answered(tuple(results), tuple(len(ask.text) for ask in asks), _tokens(body))


def _with_characters(common: Common, ask: Ask, result: Result) -> Result:
    characters = {"input": len(ask.text), "output": 0}
    return {**result, "model": common.model, "characters": characters}


def numbers(found: Any) -> list[float]:
    """A list of numbers, or TypeError."""
    if not isinstance(found, list) or not found:
        raise TypeError
    if not all(type(one) in (int, float) for one in found):
        raise TypeError
    return found


def _tokens(body: dict[str, Any]) -> int | None:
    """What the provider says that it billed, if it does."""
    meta = body.get("meta")
    units = meta.get("billed_units") if isinstance(meta, dict) else None
    if not isinstance(units, dict):
        return None
    counts = [units[name] for name in ("input_tokens", "output_tokens") if name in units]
    believable = all(type(one) in (int, float) and 0 <= one <= TOKENS_MOST for one in counts)
    return int(sum(counts)) if counts and believable else None
