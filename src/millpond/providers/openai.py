"""OpenAI's API, and every server that speaks it: chat completions and embeddings.

Classify has no endpoint there: it is a chat whose prompt shows labels and examples, and whose
answer must be one of the labels.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
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
from millpond.providers.cohere import numbers
from millpond.providers.outcome import (
    Answered,
    JobFailed,
    NoAnswer,
    Outcome,
    QuotaSpent,
    Result,
    judge,
)

CHAT, EMBEDDINGS = "/chat/completions", "/embeddings"
#: Most texts of a call for embeddings. The API takes 2,048, but 300,000 tokens in all, and the
#: numbers of so many would be a reply that is too large to be read.
TEXTS_MOST = 96
_OURS = {
    Endpoint.GENERATE: frozenset({"messages", "model", "stream_options"}),
    Endpoint.EMBED: frozenset({"input", "model", "encoding_format"}),
    Endpoint.CLASSIFY: frozenset({"messages", "model", "stream_options", "n"}),
}
_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
}
#: Tokens that a message costs beside its text: role and separators, with room.
_MESSAGE_TOKENS = 8
_LABEL_TOKENS_MOST = 32
_DAILY_ABOVE_S = 60
#: What a limit can hold; a larger one would limit nobody.
_AMOUNT = re.compile(r"[1-9][0-9]{0,8}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATIONS = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d)){1,5}", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
#: With these a reply is asked for whole: `stream` can only say no, and calls of tools come in
#: pieces that no row could show.
_WHOLE = frozenset({"stream", "tools", "functions"})
_NO_CREDIT = frozenset({"insufficient_quota", "credit_balance_exhausted"})


class OpenAI:
    """OpenAI's wire format.

    `grammar`: the server can be held to one of the labels (llama.cpp). `texts_most`: that many
    texts are embedded in one call.
    """

    def __init__(self, *, grammar: bool = False, texts_most: int = TEXTS_MOST) -> None:
        self._grammar = grammar
        self._texts_most = texts_most
        self._keys = PackKeys()

    def need(self, common: Common, ask: Ask) -> Need:
        params: Mapping[str, Any] = {**common.params, **ask.params}
        if ask.body is not None:
            params = _checked_body(common, ask.body)
        else:
            none_of(params, _OURS[common.endpoint])
        for name, (least, most) in _RANGES.items():
            number(params, name, least=least, most=most)
        characters, tokens = self._prompt(common, ask)
        if common.endpoint is Endpoint.EMBED:
            some_text("input", _embed_text(ask))
            return Need(characters, tokens, base=characters)
        name = "max_completion_tokens" if "max_completion_tokens" in params else "max_tokens"
        default = common.max_tokens
        if common.endpoint is Endpoint.CLASSIFY:
            default = _LABEL_TOKENS_MOST
        most_tokens = whole(params, name, least=1, most=1_000_000, default=default)
        outputs = whole(params, "n", least=1, most=128, default=1)
        return Need(
            generate_need(characters, most_tokens, outputs),
            tokens + most_tokens * outputs,
            base=characters,
        )

    def wire(self, common: Common, asks: Sequence[Ask]) -> Wire:
        if common.endpoint is Endpoint.EMBED:
            return Wire(EMBEDDINGS, orjson.dumps(_embed_body(common, asks)))
        body = _chat_body(common, asks[0])
        if self._grammar and common.endpoint is Endpoint.CLASSIFY:
            body["grammar"] = _one_of(_labels(common))
        return Wire(CHAT, orjson.dumps(body))

    def read(self, common: Common, asks: Sequence[Ask], reply: Reply) -> Outcome:
        if 200 < reply.status < 300:
            return NoAnswer(f"the reply has status {reply.status}, which holds no answer")
        if reply.status != 200:
            return _trouble(reply, len(asks))
        try:
            embeds = common.endpoint is Endpoint.EMBED
            body = orjson.loads(reply.body) if embeds else _whole_reply(reply.body)
            if error := body.get("error"):
                told = error if isinstance(error, str) else error["message"]
                return NoAnswer(f"an error came instead of an answer: {told[:MESSAGE_MOST]}")
            if embeds:
                return _embedded(common, asks, body)
            if common.endpoint is Endpoint.CLASSIFY:
                return _classified(common, asks[0], body)
            return self._generated(common, asks[0], body)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return NoAnswer("the reply is not what the provider's documentation says")

    def pack_most(self, common: Common) -> int:
        return self._texts_most if common.endpoint is Endpoint.EMBED else 1

    def pack_key(self, common: Common, ask: Ask) -> str:
        """A line of a batch file has all its parameters in its body, and shares none of the run."""
        most = self.pack_most(common)
        if most == 1:
            return ""
        if ask.body is None:
            return self._keys.key(common, most, ask.params)
        if not isinstance(ask.body.get("input"), str):
            return ""
        return self._keys.key(common, most, {"body": _beside_text(ask.body)})

    def told(self, reply: Reply) -> str | None:
        """Its headers name calls and tokens. They do not name the window: that is a minute, or a
        day where a single call takes longer than a minute to come back."""
        found = []
        for unit, name in (("", "requests"), ("tokens", "tokens")):
            amount = reply.headers.get(f"x-ratelimit-limit-{name}", "")
            if _AMOUNT.fullmatch(amount):
                resets_s = _duration_s(reply.headers.get(f"x-ratelimit-reset-{name}", ""))
                found.append(f"{amount}{unit}/{'1d' if resets_s > _DAILY_ABOVE_S else '60s'}")
        return ",".join(found) or None

    def said(self, reply: Reply) -> str | None:
        found = []
        for name in ("requests", "tokens"):
            left, most, resets = (
                reply.headers.get(f"x-ratelimit-{kind}-{name}")
                for kind in ("remaining", "limit", "reset")
            )
            told = left_of(name, left, most)
            if told and resets and _DURATIONS.fullmatch(resets):
                told += f", reset in {_for_people(resets)}"
            found.append(told)
        return "; ".join(filter(None, found)) or None

    def service_ms(self, reply: Reply) -> int | None:
        """It says how long the model took. Nobody knows whether calls are counted before that."""
        return None

    def _prompt(self, common: Common, ask: Ask) -> tuple[int, int]:
        """Characters and tokens of what is sent, the latter with room."""
        texts = list(_texts(common, ask))
        characters = sum(map(len, texts))
        return characters, sum(map(tokens_of, texts)) + _MESSAGE_TOKENS * len(texts)

    def _generated(self, common: Common, ask: Ask, body: dict[str, Any]) -> Answered:
        first = body["choices"][0]["message"]
        extra = {name: first[name] for name in ("tool_calls", "refusal") if first.get(name)}
        texts = [one["message"]["content"] or "" for one in body["choices"]]
        if not extra and not isinstance(first["content"], str):
            raise TypeError
        if not texts or not all(isinstance(text, str) for text in texts):
            raise TypeError
        if any(one.get("finish_reason") == "error" for one in body["choices"]):
            raise ValueError("the text was cut")
        if not isinstance(extra.get("tool_calls", []), list):
            raise TypeError
        if not isinstance(extra.get("refusal", ""), str):
            raise TypeError
        orjson.dumps([[extra]])  # a row can be nested less deep than a reply
        sent, _ = self._prompt(common, ask)
        characters = {"input": sent, "output": sum(map(len, texts))}
        result: Result = {"text": texts[0]}
        if len(texts) > 1:
            result["texts"] = texts
        result |= {**extra, "model": _model(common, body), "characters": characters}
        if isinstance(body["choices"][0].get("finish_reason"), str):
            result["finish_reason"] = body["choices"][0]["finish_reason"]
        return Answered((result,), (sum(characters.values()),), _tokens(body))


def _checked_body(common: Common, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A batch line's body: what is missing or of another kind is told as the line's fault."""
    if body.get("model") not in (None, common.model):
        raise BadParameter(
            "model",
            f"the line's model is {body['model']!r}, the run's is {common.model!r}: "
            "limits are a model's, so a run has one; name it with --model or split the file",
        )
    if body.get("stream"):
        raise BadParameter("stream", "a line of a batch file cannot ask to be streamed")
    if common.endpoint is Endpoint.EMBED:
        if not isinstance(body.get("input"), str):
            raise BadParameter("input", "the line's input must be one text")
        return body
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadParameter("messages", "the line has no list of messages")
    for number_, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadParameter("messages", f"message {number_} has no role")
    return body


def _texts(common: Common, ask: Ask) -> Iterator[str]:
    """Every text that is sent, for counting."""
    if ask.body is None:
        if common.endpoint is Endpoint.CLASSIFY:
            yield _instruction(common)
        yield ask.text
        return
    if common.endpoint is Endpoint.EMBED:
        yield _embed_text(ask)
        return
    for message in ask.body["messages"]:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))


def _embed_body(common: Common, asks: Sequence[Ask]) -> dict[str, Any]:
    texts, first = [_embed_text(ask) for ask in asks], asks[0]
    ours = {"input": texts, "model": common.model, "encoding_format": "float"}
    if first.body is not None:
        alone = {"input": texts[0]} if len(texts) == 1 else {}
        return {**_beside_text(first.body), **ours, **alone}
    return {**ours, **common.params, **first.params}


def _embed_text(ask: Ask) -> str:
    text: str = ask.text if ask.body is None else ask.body["input"]
    return text


def _beside_text(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the body of a line adds to what we write ourselves."""
    return {name: value for name, value in body.items() if name not in _OURS[Endpoint.EMBED]}


def _chat_body(common: Common, ask: Ask) -> dict[str, Any]:
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    if ask.body is not None:
        if _WHOLE.intersection(ask.body):
            stream = {}
        bound = {} if "max_completion_tokens" in ask.body else {"max_tokens": common.max_tokens}
        return {**stream, **bound, **ask.body, "model": common.model}
    messages = [{"role": "user", "content": ask.text}]
    params, most_tokens = {**common.params, **ask.params}, common.max_tokens
    if common.endpoint is Endpoint.CLASSIFY:
        messages.insert(0, {"role": "system", "content": _instruction(common)})
        params = {"temperature": 0, **params}
        most_tokens = _LABEL_TOKENS_MOST
    if "max_completion_tokens" not in params:
        params = {"max_tokens": most_tokens, **params}
    if not params.get("stream", True):
        stream = {}
    return {"model": common.model, "messages": messages, **stream, **params}


def _labels(common: Common) -> list[str]:
    return sorted({one.label for one in common.examples})


def _one_of(labels: Sequence[str]) -> str:
    """A grammar (GBNF) of which each label is a sentence, and nothing else."""

    def quoted(label: str) -> str:
        for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
            label = label.replace(plain, escaped)
        return f'"{label}"'

    return "root ::= " + " | ".join(map(quoted, labels))


def _instruction(common: Common) -> str:
    labels = _labels(common)
    shown = "\n".join(f"Text: {one.text}\nLabel: {one.label}" for one in common.examples)
    return (
        "Classify the user's text. Answer with exactly one of these labels and nothing else:\n"
        + "\n".join(labels)
        + f"\n\nExamples:\n{shown}"
    )


def _whole_reply(body: bytes) -> dict[str, Any]:
    """The reply to a chat; a stream is put together from its chunks, or is the one that is an
    error."""
    if body.lstrip().startswith(b"{"):
        whole_reply: dict[str, Any] = orjson.loads(body)
        return whole_reply
    texts: dict[int, list[str]] = {}
    reasons: dict[int, str] = {}
    told: dict[str, Any] = {}
    ended = False
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        event = line[5:].strip()
        if event == b"[DONE]":
            ended = True
            break
        chunk = orjson.loads(event)
        if chunk.get("error"):
            return {"error": chunk["error"]}
        told |= {name: chunk[name] for name in ("model", "usage") if chunk.get(name)}
        for choice in chunk.get("choices", ()):
            texts.setdefault(choice["index"], []).append(choice["delta"].get("content") or "")
            if choice.get("finish_reason"):
                reasons[choice["index"]] = choice["finish_reason"]
    if not ended or set(reasons) != set(texts):
        raise ValueError("the stream was cut")
    choices = [
        {"message": {"content": "".join(parts)}, "finish_reason": reasons[index]}
        for index, parts in sorted(texts.items())
    ]
    return {**told, "choices": choices}


def _embedded(common: Common, asks: Sequence[Ask], body: dict[str, Any]) -> Answered:
    found = sorted(body["data"], key=lambda one: int(one["index"]))
    if [one["index"] for one in found] != list(range(len(asks))):
        raise ValueError("not one embedding for each text")
    sent = tuple(len(_embed_text(ask)) for ask in asks)
    results: tuple[Result, ...] = tuple(
        {
            "embedding": numbers(one["embedding"]),
            "model": _model(common, body),
            "characters": {"input": characters, "output": 0},
        }
        for characters, one in zip(sent, found, strict=True)
    )
    return Answered(results, sent, _tokens(body))


def _classified(common: Common, ask: Ask, body: dict[str, Any]) -> Answered:
    said = body["choices"][0]["message"]["content"]
    sent = sum(map(len, _texts(common, ask)))
    used = sent + len(said)
    label = _label_meant(common, said.strip())
    if label is None:
        failed = JobFailed("no_label", f"the model answered with none of the labels: {said[:80]!r}")
        return Answered((failed,), (used,), _tokens(body))
    result: Result = {
        "label": label,
        "confidence": None,
        "confidences": None,
        "model": _model(common, body),
        "characters": {"input": sent, "output": len(said)},
    }
    return Answered((result,), (used,), _tokens(body))


def _label_meant(common: Common, said: str) -> str | None:
    """The label that is said: as it is written, else but for case, else but for what is around."""
    labels = _labels(common)
    if said in labels:
        return said
    folded = {label.strip().casefold(): label for label in labels}
    return folded.get(said.casefold()) or folded.get(said.strip("\"'.").casefold())


def _duration_s(text: str) -> float:
    """A length of time as the headers write it: 12ms, 1s, 6m0s."""
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def _for_people(duration: str) -> str:
    seconds = _duration_s(duration)
    return f"{seconds:.3g} s" if seconds < 60 else duration


def _model(common: Common, body: Mapping[str, Any]) -> str:
    told = body.get("model")
    return told if isinstance(told, str) else common.model


def _tokens(body: Mapping[str, Any]) -> int | None:
    usage = body.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if type(total) is int and 0 <= total <= TOKENS_MOST else None


def _trouble(reply: Reply, count: int) -> Outcome:
    message = message_of(reply.body, "error", "message")
    code = message_of(reply.body, "error", "code")
    if reply.status == 429 and code in _NO_CREDIT:
        return QuotaSpent(message)
    outcome = judge(reply.status, message, reply.headers.get("Retry-After"))
    param = message_of(reply.body, "error", "param")
    return blamed(outcome, "input", count, f"{param} {message}")
