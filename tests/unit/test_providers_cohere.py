"""Cohere's wire format: what is asked for, and what a reply means."""

from typing import Any

import orjson
import pytest

from millpond.domain.job import Endpoint
from millpond.providers.cohere import BadParameter, read, request
from millpond.providers.http import Reply
from millpond.providers.outcome import Answered, NoAnswer, Outcome, Rejected

GENERATE, EMBED = Endpoint.GENERATE, Endpoint.EMBED
ASKED = {
    GENERATE: orjson.dumps({"prompt": "Wie heißt du?", "model": "command"}),
    EMBED: orjson.dumps({"texts": ["Ente 🦆"], "model": "embed-english-v3.0"}),
}


def reply(body: Any, *, status: int = 200) -> Reply:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return Reply(status, {}, None, content, headers_ms=5.0)


def meant(endpoint: Endpoint, body: Any, *, status: int = 200) -> Outcome:
    return read(endpoint, ASKED[endpoint], reply(body, status=status))


def generated(*texts: Any, **more: Any) -> dict[str, Any]:
    return {"generations": [{"id": "g", "text": text, **more} for text in texts]}


def test_a_generation_is_its_text_with_the_characters_of_prompt_and_answer() -> None:
    assert meant(GENERATE, generated("Jörg 🦆", finish_reason="COMPLETE")) == Answered(
        (
            {
                "text": "Jörg 🦆",
                "model": "command",
                "characters": {"input": 13, "output": 6},
                "finish_reason": "COMPLETE",
            },
        ),
        used=19,
    )


def test_several_generations_are_all_kept_and_all_counted() -> None:
    outcome = meant(GENERATE, generated("one", "three"))

    assert isinstance(outcome, Answered)
    (result,) = outcome.results
    assert (result["text"], result["texts"]) == ("one", ["one", "three"])
    assert result["characters"] == {"input": 13, "output": 8}
    assert outcome.used == 21


@pytest.mark.parametrize(
    "embeddings", [[[0.5, -1, 2e-3]], {"float": [[0.5, -1, 2e-3]]}, {"int8": [[0.5, -1, 2e-3]]}]
)
def test_an_embedding_is_its_numbers_in_either_shape_of_the_reply(embeddings: Any) -> None:
    assert meant(EMBED, {"id": "e", "embeddings": embeddings}) == Answered(
        (
            {
                "embedding": [0.5, -1, 0.002],
                "model": "embed-english-v3.0",
                "characters": {"input": 6, "output": 0},
            },
        ),
        used=6,
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>gateway</html>",
        b'{"generations": [{"text": "to',
        None,
        [],
        "text",
        7,
        {},
        {"message": "something went wrong"},
        {"generations": None},
        {"generations": []},
        {"generations": {}},
        {"generations": "text"},
        {"generations": [None]},
        {"generations": ["text"]},
        {"generations": [{"id": "g"}]},
        generated(None),
        generated(7),
        generated(["a"]),
        generated("good", 7),
    ],
)
def test_a_200_without_what_was_asked_for_is_no_answer(body: Any) -> None:
    content = body if isinstance(body, bytes) else orjson.dumps(body)

    assert isinstance(meant(GENERATE, content), NoAnswer)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": "error"},
        {"embeddings": None},
        {"embeddings": []},
        {"embeddings": {}},
        {"embeddings": {"float": []}},
        {"embeddings": [[0.1], [0.2]]},
        {"embeddings": [0.1]},
        {"embeddings": ["abc"]},
        {"embeddings": [["a"]]},
        {"embeddings": [[None]]},
        {"embeddings": [{"a": 1}]},
    ],
)
def test_a_200_without_exactly_one_embedding_is_no_answer(body: Any) -> None:
    assert isinstance(meant(EMBED, body), NoAnswer)


@pytest.mark.parametrize("status", [201, 202, 204, 206, 299])
def test_a_success_of_another_kind_may_have_been_worked_on(status: int) -> None:
    assert meant(GENERATE, generated("good"), status=status) == NoAnswer(
        f"the reply has status {status}, which holds no answer"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message": "prompt too long"}', "prompt too long"),
        (b'{"error": "other shape"}', '{"error": "other shape"}'),
        (b"<html>\xff</html>", "<html>�</html>"),
        (b"[]", "[]"),
        (b"", ""),
        (b'{"message": null}', "None"),
        (orjson.dumps({"message": "x" * 2_000}), "x" * 500),
    ],
)
def test_the_message_of_an_error_is_found_in_any_body_and_kept_short(
    body: bytes, message: str
) -> None:
    assert meant(GENERATE, body, status=400) == Rejected(message, 400)


def test_a_generate_request_reserves_the_prompt_and_the_longest_answer() -> None:
    made = request(GENERATE, "Ente 🦆", model="command", max_tokens=50, params={})

    assert orjson.loads(made.payload) == {"prompt": "Ente 🦆", "model": "command", "max_tokens": 50}
    assert made.need == 6 + 6 * 50


def test_a_lines_max_tokens_and_number_of_answers_count_in_what_is_reserved() -> None:
    params = {"max_tokens": 10, "num_generations": 3, "temperature": 0.5}
    made = request(GENERATE, "abc", model="command", max_tokens=50, params=params)

    assert orjson.loads(made.payload) == {"prompt": "abc", "model": "command", **params}
    assert made.need == 3 + 6 * 10 * 3


def test_an_embed_request_reserves_its_text_and_says_what_it_is_for() -> None:
    plain = request(EMBED, "Ente 🦆", model="m", max_tokens=50, params={})
    query = request(EMBED, "a", model="m", max_tokens=50, params={"input_type": "search_query"})

    assert orjson.loads(plain.payload) == {
        "texts": ["Ente 🦆"],
        "model": "m",
        "input_type": "search_document",
    }
    assert plain.need == 6
    assert orjson.loads(query.payload)["input_type"] == "search_query"


@pytest.mark.parametrize("value", [0, -1, 100_001, "5", 1.0, True, None, [], {}])
def test_a_max_tokens_that_cannot_be_reserved_for_is_refused(value: Any) -> None:
    with pytest.raises(BadParameter, match="whole number from 1 to 100,000") as caught:
        request(GENERATE, "a", model="m", max_tokens=5, params={"max_tokens": value})
    assert caught.value.name == "max_tokens"


@pytest.mark.parametrize("value", [0, 6, "1", 1.5, False])
def test_a_number_of_answers_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(BadParameter, match="num_generations"):
        request(GENERATE, "a", model="m", max_tokens=5, params={"num_generations": value})


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        *((GENERATE, name) for name in ("prompt", "model", "stream")),
        *((EMBED, name) for name in ("texts", "model", "images")),
    ],
)
def test_what_millpond_writes_itself_cannot_be_a_parameter(endpoint: Endpoint, name: str) -> None:
    with pytest.raises(BadParameter, match="set by millpond itself") as caught:
        request(endpoint, "a", model="m", max_tokens=5, params={name: "x"})
    assert caught.value.name == name


@pytest.mark.parametrize("value", ["\ud800", {1: 2}])
def test_a_parameter_that_is_no_json_is_refused_too(value: Any) -> None:
    with pytest.raises((BadParameter, orjson.JSONEncodeError)):
        request(GENERATE, "a", model="m", max_tokens=5, params={"x": value})
