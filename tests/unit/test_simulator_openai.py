"""OpenAI's wire: chats and embeddings, their streams, their errors."""

import json
import struct
from base64 import b64decode
from typing import Any

import pytest

from millpond.simulator import openai
from millpond.simulator.author import Author
from millpond.simulator.books import QuotaSpent
from millpond.simulator.limits import AtOnce, Limit, Unit, Units
from millpond.simulator.openai import Chat, Embeddings, duration
from millpond.simulator.wire import Answer, Invalid

HELLO = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Höllo 🙂"}]


def chat(**fields: Any) -> Answer:
    body = json.dumps({"model": "m", "messages": HELLO, **fields}).encode()
    asked = openai.request("generate", body)
    assert isinstance(asked, Chat)
    return asked.answer(Author(seed=1), "an-id")


def embeddings(**fields: Any) -> Answer:
    asked = openai.request("embed", json.dumps({"model": "m", **fields}).encode())
    assert isinstance(asked, Embeddings)
    return asked.answer(Author(seed=1), "an-id")


def test_a_chat_is_answered_with_every_field_that_clients_read() -> None:
    answer = chat(max_tokens=5)
    body = json.loads(answer.body())

    text = body["choices"][0]["message"]["content"]
    # 8 + 7 characters are 4 tokens, and 4 more for each message
    usage = body.pop("usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (12, 5)
    assert usage["total_tokens"] == 17
    assert body == {
        "id": "chatcmpl-anid",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "system_fingerprint": "fp_millpond",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": text,
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "service_tier": "default",
    }
    assert len(text.split()) == 5
    assert answer.units == Units(inputs=1, characters=15 + len(text), tokens=17)


@pytest.mark.parametrize(
    ("fields", "tokens_max"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 9, "max_completion_tokens": 8}, 8),
        ({"max_tokens": None}, 16_384),
        ({"max_tokens": 99_999}, 16_384),
    ],
)
def test_the_longest_answer_is_the_smaller_of_both_that_are_allowed(
    fields: dict[str, Any], tokens_max: int
) -> None:
    asked = openai.request(
        "generate", json.dumps({"model": "m", "messages": HELLO, **fields}).encode()
    )

    assert isinstance(asked, Chat)
    assert asked.max_tokens == tokens_max


def test_several_choices_are_numbered_and_charged_together() -> None:
    answer = chat(n=3, max_tokens=4)
    body = json.loads(answer.body())

    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert len(set(texts)) == 3
    assert body["usage"]["completion_tokens"] == 12
    assert answer.units == Units(inputs=1, characters=15 + sum(map(len, texts)), tokens=24)


def test_another_role_or_message_gives_another_answer() -> None:
    messages = [[{"role": "user", "content": "a"}], [{"role": "assistant", "content": "a"}]]

    one, other = (json.loads(chat(messages=each).body()) for each in messages)

    assert one["choices"] != other["choices"]


def events(answer: Answer) -> list[Any]:
    assert answer.pieces is not None
    pieces = [piece.decode() for piece in answer.pieces()]
    assert all(one.startswith("data: ") and one.endswith("\n\n") for one in pieces)
    return [one if one == "[DONE]" else json.loads(one) for one in (p[6:-2] for p in pieces)]


def test_a_stream_brings_the_same_text_a_token_at_a_time() -> None:
    text = json.loads(chat(max_tokens=3).body())["choices"][0]["message"]["content"]

    *chunks, last = events(chat(max_tokens=3, stream=True))

    assert last == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all("usage" not in chunk for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    first, second, third = text.split()
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": first},
        {"content": f" {second}"},
        {"content": f" {third}"},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * 4 + ["length"]


def test_a_stream_ends_with_the_usage_if_it_is_asked_for() -> None:
    *chunks, usage, last = events(
        chat(max_tokens=3, n=2, stream=True, stream_options={"include_usage": True})
    )

    assert last == "[DONE]"
    assert [chunk["usage"] for chunk in chunks] == [None] * 10
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0] * 5 + [1] * 5
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 6


def test_embeddings_are_answered_with_every_field_that_clients_read() -> None:
    answer = embeddings(input=["one", "two words"])

    author = Author(seed=1)
    assert json.loads(answer.body()) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": author.vector("one")},
            {"object": "embedding", "index": 1, "embedding": author.vector("two words")},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert answer.units == Units(inputs=2, characters=12, tokens=4)


def test_embeddings_may_be_of_one_text_and_in_base64() -> None:
    (row,) = json.loads(embeddings(input="one", encoding_format="base64").body())["data"]

    vector = struct.unpack("<32f", b64decode(row["embedding"]))
    assert vector == pytest.approx(Author(seed=1).vector("one"), abs=1e-6)


def test_embeddings_may_be_of_2048_texts() -> None:
    assert embeddings(input=["a"] * 2_048).units.inputs == 2_048


USER = {"role": "user", "content": "a"}
PARTS = [{"type": "text", "text": "a"}]


def with_message(**message: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER, message]}


def with_field(**field: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], "input": "a", **field}


@pytest.mark.parametrize(
    ("endpoint", "fields", "message", "param"),
    [
        ("generate", {}, "must provide a model", "model"),
        ("generate", {"model": "m"}, "Missing required parameter: 'messages'", "messages"),
        ("generate", with_field(messages=[]), "'messages'", "messages"),
        ("generate", with_field(messages="a"), "of type list", "messages"),
        ("generate", with_field(messages=["a"]), "'messages[0]'", "messages[0]"),
        ("generate", with_message(role="user"), "a content", "messages[1]"),
        ("generate", with_message(role="x", content="a"), "a role", "messages[1]"),
        ("generate", with_message(role="user", content=PARTS), "in parts", "messages[1].content"),
        ("generate", with_field(max_tokens=0), "1 or more", "max_tokens"),
        ("generate", with_field(max_tokens="9"), "of type int", "max_tokens"),
        ("generate", with_field(n=0), "from 1 to 128", "n"),
        ("generate", with_field(stream_options={}), "only allowed when", "stream_options"),
        ("embed", {"input": "a"}, "must provide a model", "model"),
        ("embed", {"model": "m"}, "at least 1 element", "input"),
        ("embed", with_field(input=""), "empty string at index 0", "input"),
        ("embed", with_field(input=7), "a string or a list", "input"),
        ("embed", with_field(input=[[1, 2]]), "element 0 of input", "input"),
        ("embed", with_field(input=["a"] * 2_049), "at most 2048 - received 2049", "input"),
        ("embed", with_field(encoding_format="hex"), "'hex'", "encoding_format"),
    ],
)
def test_a_request_that_breaks_the_rules_is_invalid_with_the_reason(
    endpoint: str, fields: dict[str, Any], message: str, param: str
) -> None:
    asked = openai.request(endpoint, json.dumps(fields).encode())

    assert isinstance(asked, Invalid)
    assert message in asked.message
    assert asked.param == param


def test_null_means_unset_and_unknown_fields_are_let_be() -> None:
    nulls = dict.fromkeys((*openai.CHAT_FIELDS, "logit_bias"))
    body = {**nulls, "model": "m", "messages": [USER], "tools": []}

    asked = openai.request("generate", json.dumps(body).encode())

    assert asked == Chat("m", [("user", "a")], 16_384)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (404, "invalid_request_error", "unknown_url"),
        (429, "requests", "rate_limit_exceeded"),
        (500, "server_error", None),
        (503, "server_error", None),
    ],
)
def test_an_error_has_the_shape_and_code_of_its_status(
    status: int, kind: str, code: str | None
) -> None:
    assert json.loads(openai.error(status, "why", "field")) == {
        "error": {"message": "why", "type": kind, "param": "field", "code": code}
    }


@pytest.mark.parametrize(
    ("against", "kind", "code", "message"),
    [
        (Limit(6, 1, "6/60s"), "requests", "rate_limit_exceeded", "6/60s"),
        (Limit(6, 1, "6tokens/60s", Unit.TOKENS), "tokens", "rate_limit_exceeded", "6tokens/60s"),
        (AtOnce(20, "20@once"), "requests", "rate_limit_exceeded", "20@once"),
        (QuotaSpent(31, 30), "insufficient_quota", "insufficient_quota", "quota of 30 characters"),
    ],
)
def test_every_refusal_is_429_and_told_apart_by_its_code(
    against: Limit | AtOnce | QuotaSpent, kind: str, code: str, message: str
) -> None:
    status, body = openai.refusal("generate", against)

    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (429, kind, code)
    assert message in error["message"]


@pytest.mark.parametrize(
    ("ms", "written"),
    [
        (0, "0s"),
        (11.2, "12ms"),
        (999, "999ms"),
        (999.1, "1s"),
        (1_000, "1s"),
        (8_640, "8.64s"),
        (59_999, "59.999s"),
        (360_000, "6m0s"),
        (61_500, "1m1.5s"),
        (3_600_000, "1h0m0s"),
        (86_400_000, "24h0m0s"),
    ],
)
def test_durations_are_written_with_their_units_and_never_too_short(
    ms: float, written: str
) -> None:
    assert duration(ms) == written
