"""Cohere's wire, version 1: what a request may hold, how answers and errors look."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from millpond.simulator.author import Author, Text
from millpond.simulator.books import Against, Page, QuotaSpent
from millpond.simulator.classify import Example, Labels
from millpond.simulator.limits import AtOnce, Limit, Unit, Units
from millpond.simulator.wire import (
    Answer,
    Asked,
    Invalid,
    fields,
    tokens,
    units_of,
    wrong_texts,
    wrong_type,
)

TEXTS_MAX = 96
GENERATIONS_MAX = 5
TOKENS_DEFAULT = 20
EXAMPLES_MAX = 2_500
EXAMPLE_TOKENS_MAX = 512
LABELS_MIN = 2
EXAMPLES_OF_A_LABEL_MIN = 2

STREAM_TYPE = "application/stream+json"

WRONG_TYPES = orjson.dumps(
    {
        "id": 7,
        "response_type": 7,
        "prompt": 7,
        "texts": "a",
        "generations": "none",
        "embeddings": "none",
        "classifications": "none",
        "meta": [],
    }
)

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

CLASSIFY_FIELDS = {
    "inputs": "list",
    "examples": "list",
    "model": "string",
    "preset": "string",
    "truncate": "string",
}


@dataclass(frozen=True, slots=True)
class Generate:
    prompt: str
    max_tokens: int
    num_generations: int
    likelihoods: bool
    stream: bool = False

    def answer(self, author: Author, answer_id: str) -> Answer:
        texts = [
            author.text(self.prompt, tokens_max=self.max_tokens, nth=nth)
            for nth in range(self.num_generations)
        ]
        output_tokens = sum(len(text.words) for text in texts)
        units = Units(
            inputs=1,
            characters=len(self.prompt) + sum(len(str(text)) for text in texts),
            tokens=tokens(self.prompt) + output_tokens,
        )
        pieces = partial(self._pieces, texts, answer_id) if self.stream else None
        return Answer(units, partial(self._body, texts, answer_id, output_tokens), pieces)

    def _body(self, texts: Sequence[Text], answer_id: str, output_tokens: int) -> bytes:
        meta = _meta(input_tokens=tokens(self.prompt), output_tokens=output_tokens)
        return orjson.dumps({**self._response(texts, answer_id), "meta": meta})

    def _pieces(self, texts: Sequence[Text], answer_id: str) -> list[bytes]:
        """A line for each token, one generation after the other, and one for the end."""
        lines: list[dict[str, Any]] = [
            {
                "event_type": "text-generation",
                "text": piece,
                **({"index": nth} if self.num_generations > 1 else {}),
                "is_finished": False,
            }
            for nth, text in enumerate(texts)
            for piece in text.pieces()
        ]
        end = {
            "event_type": "stream-end",
            "is_finished": True,
            "finish_reason": "MAX_TOKENS" if any(text.cut for text in texts) else "COMPLETE",
            "response": self._response(texts, answer_id),
        }
        return [orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in (*lines, end)]

    def _response(self, texts: Sequence[Text], answer_id: str) -> dict[str, Any]:
        generations = [self._generation(text, answer_id, nth) for nth, text in enumerate(texts)]
        return {"id": answer_id, "prompt": self.prompt, "generations": generations}

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
        units = units_of(self.texts, inputs=len(self.texts))
        return Answer(units, partial(self._body, author, answer_id, units.tokens))

    def _body(self, author: Author, answer_id: str, input_tokens: int) -> bytes:
        vectors = [author.vector(text) for text in self.texts]
        return orjson.dumps(
            {
                "id": answer_id,
                "response_type": "embeddings_by_type" if self.by_type else "embeddings_floats",
                "embeddings": {"float": vectors} if self.by_type else vectors,
                "texts": self.texts,
                "meta": _meta(input_tokens=input_tokens),
            }
        )


@dataclass(frozen=True, slots=True)
class Classify:
    """Inputs and examples are charged alike; the labels are not."""

    inputs: list[str]
    examples: list[Example]

    def answer(self, author: Author, answer_id: str) -> Answer:
        texts = (*self.inputs, *(example.text for example in self.examples))
        units = units_of(texts, inputs=len(self.inputs))
        return Answer(units, partial(self._body, author, answer_id))

    def _body(self, author: Author, answer_id: str) -> bytes:
        labels = Labels(self.examples)
        rows = []
        for nth, text in enumerate(self.inputs):
            shares = labels.shares(text, author)
            best = max(shares, key=lambda label: shares[label])
            row = {
                "id": f"{answer_id}-{nth}",
                "input": text,
                "prediction": best,
                "confidence": shares[best],
                "predictions": [best],
                "confidences": [shares[best]],
                "labels": {label: {"confidence": share} for label, share in shares.items()},
                "classification_type": "single-label",
            }
            rows.append(row)
        meta = _meta(classifications=len(rows))
        return orjson.dumps({"id": answer_id, "classifications": rows, "meta": meta})


def request(endpoint: str, body: bytes) -> Asked | Invalid:
    asked = fields(body)
    if isinstance(asked, Invalid):
        return asked
    read = {"generate": _generate, "embed": _embed, "classify": _classify}[endpoint]
    return read(asked)


def _generate(fields: Mapping[str, Any]) -> Generate | Invalid:
    prompt = fields.get("prompt", "")
    max_tokens = fields.get("max_tokens", TOKENS_DEFAULT)
    num_generations = fields.get("num_generations", 1)
    if wrong := wrong_type(fields, GENERATE_FIELDS):
        return wrong
    if not prompt:
        return Invalid("invalid request: prompt must be at least 1 token long.")
    if max_tokens < 0:
        return Invalid("invalid request: max_tokens must be greater than or equal to 0.")
    if not 1 <= num_generations <= GENERATIONS_MAX:
        return Invalid(f"invalid request: num_generations must be from 1 to {GENERATIONS_MAX}.")
    likelihoods = fields.get("return_likelihoods", "NONE") != "NONE"
    stream = fields.get("stream", False)
    return Generate(prompt, max_tokens, num_generations, likelihoods, stream)


def _embed(fields: Mapping[str, Any]) -> Embed | Invalid:
    texts = fields.get("texts", [])
    if wrong := wrong_type(fields, EMBED_FIELDS) or wrong_texts("texts", texts, TEXTS_MAX):
        return wrong
    types = fields.get("embedding_types", [])
    if types not in ([], ["float"]):
        return Invalid("embedding_types other than float are not simulated")
    return Embed(texts, by_type=bool(types))


def _classify(fields: Mapping[str, Any]) -> Classify | Invalid:
    inputs = fields.get("inputs", [])
    given = fields.get("examples", [])
    if wrong := wrong_type(fields, CLASSIFY_FIELDS) or wrong_texts("inputs", inputs, TEXTS_MAX):
        return wrong
    if len(given) > EXAMPLES_MAX:
        return Invalid(
            f"invalid request: total number of examples must be at most {EXAMPLES_MAX}"
            f" - received {len(given)}"
        )
    examples = []
    for index, one in enumerate(given):
        match one:
            case {"text": str(text), "label": str(label)} if text and label:
                examples.append(Example(text, label))
            case _:
                return Invalid(f"invalid request: example {index} must have a text and a label")
        if tokens(text) > EXAMPLE_TOKENS_MAX:
            return Invalid(
                f"too many tokens: example {index} must be at most {EXAMPLE_TOKENS_MAX} tokens"
                f" long - received {tokens(text)}"
            )
    return _too_few(examples) or Classify(inputs, examples)


def _too_few(examples: Sequence[Example]) -> Invalid | None:
    labels = Counter(example.label for example in examples)
    if len(labels) < LABELS_MIN:
        return Invalid(
            f"invalid request: min classes for classify request is {LABELS_MIN}"
            f" - received {len(labels)}"
        )
    few = [label for label, count in labels.items() if count < EXAMPLES_OF_A_LABEL_MIN]
    if few:
        return Invalid(
            "invalid request: each unique label must have at least"
            f" {EXAMPLES_OF_A_LABEL_MIN} examples. Not enough examples for: {', '.join(few)}"
        )
    return None


def _meta(**billed_units: int) -> dict[str, Any]:
    return {"api_version": {"version": "1"}, "billed_units": billed_units}


def error(status: int, message: str, param: str | None = None) -> bytes:
    return orjson.dumps({"message": message})


def refusal(endpoint: str, against: Against) -> tuple[int, bytes]:
    match against:
        case Limit(written=written, unit=unit):
            what = f"{written} calls" if unit is Unit.CALLS else written
            message = f"the limit of {what} on {endpoint} is reached, try again later"
            return 429, error(429, message)
        case AtOnce(written=written):
            message = f"the limit of {written} on {endpoint} is reached, try again later"
            return 429, error(429, message)
        case QuotaSpent(settled=settled, quota=quota):
            message = (
                f"the quota of {quota} characters on {endpoint} is spent: {settled} were used."
                " Please add or update your payment method"
            )
            return 402, error(402, message)


def headers(page: Page, at_ms: float, service_ms: int | None) -> dict[str, str]:
    """As behind Envoy: how long the work took, if there was any."""
    return {} if service_ms is None else {"x-envoy-upstream-service-time": str(service_ms)}
