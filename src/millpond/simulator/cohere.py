"""Cohere's wire, version 1: what a request may hold, how answers and errors look.

Null means unset. Fields that would only change the style of a text (temperature and such) are
checked for their type and then have no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from millpond.simulator.author import Author, Text
from millpond.simulator.books import QuotaSpent
from millpond.simulator.limits import Limit

TEXTS_MAX = 96
GENERATIONS_MAX = 5
TOKENS_DEFAULT = 20
CHARACTERS_PER_TOKEN = 4

#: JSON types by the words of the provider's own messages.
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int": (int,),
    "number": (int, float),
    "bool": (bool,),
    "list": (list,),
}

GENERATE_FIELDS = {
    "prompt": "string",
    "model": "string",
    "preset": "string",
    "truncate": "string",
    "return_likelihoods": "string",
    "num_generations": "int",
    "max_tokens": "int",
    "k": "int",
    "seed": "int",
    "temperature": "number",
    "p": "number",
    "frequency_penalty": "number",
    "presence_penalty": "number",
    "stream": "bool",
    "raw_prompting": "bool",
    "end_sequences": "list",
    "stop_sequences": "list",
}

EMBED_FIELDS = {
    "texts": "list",
    "model": "string",
    "input_type": "string",
    "truncate": "string",
    "embedding_types": "list",
}


@dataclass(frozen=True, slots=True)
class Invalid:
    """The provider will never take this request."""

    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`characters` is what the call is charged with."""

    body: bytes
    characters: int


@dataclass(frozen=True, slots=True)
class Generate:
    prompt: str
    max_tokens: int
    num_generations: int
    likelihoods: bool

    def answer(self, author: Author, answer_id: str) -> Answer:
        texts = [
            author.text(self.prompt, tokens_max=self.max_tokens, nth=nth)
            for nth in range(self.num_generations)
        ]
        body = {
            "id": answer_id,
            "prompt": self.prompt,
            "generations": [
                self._generation(text, answer_id, nth) for nth, text in enumerate(texts)
            ],
            "meta": _meta(
                input_tokens=_tokens(self.prompt),
                output_tokens=sum(len(text.words) for text in texts),
            ),
        }
        return Answer(orjson.dumps(body), len(self.prompt) + sum(len(str(text)) for text in texts))

    def _generation(self, text: Text, answer_id: str, nth: int) -> dict[str, Any]:
        generation: dict[str, Any] = {
            "id": f"{answer_id}-{nth}",
            "text": str(text),
            "finish_reason": "MAX_TOKENS" if text.cut else "COMPLETE",
        }
        if self.num_generations > 1:
            generation["index"] = nth
        if self.likelihoods:
            generation["likelihood"] = -1.0
            generation["token_likelihoods"] = [
                {"token": word, "likelihood": -1.0} for word in text.words
            ]
        return generation


@dataclass(frozen=True, slots=True)
class Embed:
    texts: list[str]
    by_type: bool

    def answer(self, author: Author, answer_id: str) -> Answer:
        vectors = [author.vector(text) for text in self.texts]
        body = {
            "id": answer_id,
            "response_type": "embeddings_by_type" if self.by_type else "embeddings_floats",
            "embeddings": {"float": vectors} if self.by_type else vectors,
            "texts": self.texts,
            "meta": _meta(input_tokens=sum(map(_tokens, self.texts))),
        }
        return Answer(orjson.dumps(body), sum(map(len, self.texts)))


def request(endpoint: str, body: bytes) -> Generate | Embed | Invalid:
    """What is asked for, or what is wrong with it."""
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        return Invalid(f"invalid json syntax: {fault}")
    if not isinstance(raw, dict):
        return Invalid("invalid request: the body must be a JSON object")
    fields = {name: value for name, value in raw.items() if value is not None}
    return _generate(fields) if endpoint == "generate" else _embed(fields)


def _generate(fields: Mapping[str, Any]) -> Generate | Invalid:
    prompt = fields.get("prompt", "")
    max_tokens = fields.get("max_tokens", TOKENS_DEFAULT)
    num_generations = fields.get("num_generations", 1)
    if wrong := _wrong_type(fields, GENERATE_FIELDS):
        return wrong
    if not prompt:
        return Invalid("invalid request: prompt must be at least 1 token long.")
    if max_tokens < 0:
        return Invalid("invalid request: max_tokens must be greater than or equal to 0.")
    if not 1 <= num_generations <= GENERATIONS_MAX:
        return Invalid(f"invalid request: num_generations must be from 1 to {GENERATIONS_MAX}.")
    if fields.get("stream"):
        return Invalid("streaming is not simulated")
    likelihoods = fields.get("return_likelihoods", "NONE") != "NONE"
    return Generate(prompt, max_tokens, num_generations, likelihoods)


def _embed(fields: Mapping[str, Any]) -> Embed | Invalid:
    texts = fields.get("texts", [])
    if wrong := _wrong_type(fields, EMBED_FIELDS):
        return wrong
    if not texts:
        return Invalid("invalid request: texts must be at least 1 element long.")
    if len(texts) > TEXTS_MAX:
        return Invalid(
            f"invalid request: total number of texts must be at most {TEXTS_MAX}"
            f" - received {len(texts)}"
        )
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            return Invalid(f"invalid type: element {index} of texts should be of type string")
        if not text:
            return Invalid(
                "invalid request: texts contains an element that is the empty string"
                f" at index {index}"
            )
    types = fields.get("embedding_types", [])
    if types not in ([], ["float"]):
        return Invalid("embedding_types other than float are not simulated")
    return Embed(texts, by_type=bool(types))


def _wrong_type(fields: Mapping[str, Any], table: Mapping[str, str]) -> Invalid | None:
    for name, value in fields.items():
        wanted = table.get(name)
        if wanted is None:
            continue
        # For Python True is an int; on the wire it is not.
        if not isinstance(value, TYPES[wanted]) or (wanted != "bool" and isinstance(value, bool)):
            return Invalid(f"invalid type: parameter {name} should be of type {wanted}")
    return None


def _meta(**billed_units: int) -> dict[str, Any]:
    return {"api_version": {"version": "1"}, "billed_units": billed_units}


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def error(message: str) -> bytes:
    """The one shape of every error."""
    return orjson.dumps({"message": message})


def refusal(endpoint: str, by: Limit | QuotaSpent) -> tuple[int, str]:
    """Status and message for a call that a limit or the quota forbids."""
    match by:
        case Limit(written=written):
            return 429, f"the limit of {written} calls on {endpoint} is reached, try again later"
        case QuotaSpent(settled=settled, quota=quota):
            return 402, (
                f"the quota of {quota} characters on {endpoint} is spent: {settled} were used."
                " Please add or update your payment method"
            )


def api_key(authorization: str | None) -> str | None:
    """The key of `Bearer KEY`, whatever the case of the scheme."""
    scheme, _, key = (authorization or "").partition(" ")
    return (key.strip() or None) if scheme.lower() == "bearer" else None
