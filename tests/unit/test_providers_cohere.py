"""Cohere's wire format: what is asked for, and what a reply means."""

import re
from typing import Any

import orjson
import pytest

from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common, Example, Need
from millpond.providers.adapter import BadParameter, Reply
from millpond.providers.cohere import Cohere
from millpond.providers.outcome import Answered, NoAnswer, Outcome, Refused, Rejected

GENERATE, EMBED, CLASSIFY = Endpoint.GENERATE, Endpoint.EMBED, Endpoint.CLASSIFY
MODELS = {GENERATE: "command", EMBED: "embed-english-v3.0", CLASSIFY: "embed-english-v3.0"}
EXAMPLES = (Example("quack", "duck"), Example("moo", "cow"))
ASKED = {GENERATE: Ask("Wie heißt du?"), EMBED: Ask("Ente 🦆"), CLASSIFY: Ask("Ente 🦆")}


def common(endpoint: Endpoint, **params: Any) -> Common:
    examples = EXAMPLES if endpoint is CLASSIFY else ()
    return Common(endpoint, MODELS[endpoint], 50, params, examples)


def reply(body: Any, *, status: int = 200, **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return Reply(status, headers, content)


def meant(endpoint: Endpoint, body: Any, *, status: int = 200) -> Outcome:
    return Cohere().read(common(endpoint), [ASKED[endpoint]], reply(body, status=status))


def sent(common: Common, *asks: Ask) -> tuple[str, dict[str, Any]]:
    wire = Cohere().wire(common, asks)
    return wire.path, orjson.loads(wire.body)


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
        used=(19,),
    )


def test_several_generations_are_all_kept_and_all_counted() -> None:
    outcome = meant(GENERATE, generated("one", "three"))

    assert isinstance(outcome, Answered)
    (result,) = outcome.results
    assert isinstance(result, dict)
    assert (result["text"], result["texts"]) == ("one", ["one", "three"])
    assert result["characters"] == {"input": 13, "output": 8}
    assert outcome.used == (21,)


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
        used=(6,),
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


def test_a_refusal_says_how_long_to_wait() -> None:
    told = reply({"message": "slow down"}, status=429, **{"Retry-After": "1.5"})

    assert Cohere().read(common(GENERATE), [Ask("a")], told) == Refused(1_500)
    assert Cohere().told(told) is None


def stream(*events: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(event) + b"\n" for event in events)


WORD = {"event_type": "text-generation", "text": "Jö", "is_finished": False}
END = {
    "event_type": "stream-end",
    "is_finished": True,
    "finish_reason": "COMPLETE",
    "response": {
        **generated("Jörg", finish_reason="COMPLETE"),
        "meta": {"billed_units": {"input_tokens": 4, "output_tokens": 2}},
    },
}


def test_of_a_stream_the_last_event_is_the_answer_with_the_tokens_that_were_billed() -> None:
    assert meant(GENERATE, stream(WORD, END)) == Answered(
        (
            {
                "text": "Jörg",
                "model": "command",
                "characters": {"input": 13, "output": 4},
                "finish_reason": "COMPLETE",
            },
        ),
        used=(17,),
        tokens=6,
    )


@pytest.mark.parametrize(
    "body",
    [
        stream(WORD),
        stream(WORD, END)[:-20],
        stream(WORD, {"event_type": "stream-error", "err": "broke"}),
        stream(WORD, {"event_type": "stream-end"}),
        stream(WORD, {"event_type": "stream-end", "response": {}}),
    ],
    ids=["cut between events", "cut in an event", "error", "end without answer", "empty answer"],
)
def test_a_stream_without_its_end_is_no_answer(body: bytes) -> None:
    assert isinstance(meant(GENERATE, body), NoAnswer)


def classified(*labels: Any, **more: Any) -> dict[str, Any]:
    every = {"duck": {"confidence": 0.75}, "cow": {"confidence": 0.25}}
    one = {"confidence": 0.75, "labels": every, **more}
    return {"classifications": [{**one, "prediction": label} for label in labels]}


def test_a_classification_is_its_label_with_the_confidence_of_each() -> None:
    assert meant(CLASSIFY, classified("duck")) == Answered(
        (
            {
                "label": "duck",
                "confidence": 0.75,
                "confidences": {"duck": 0.75, "cow": 0.25},
                "model": "embed-english-v3.0",
                "characters": {"input": 6, "output": 0},
            },
        ),
        used=(6,),
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"classifications": None},
        {"classifications": []},
        {"classifications": [None]},
        classified("duck", "cow"),
        classified(None),
        classified(7),
        classified("duck", confidence="high"),
        classified("duck", labels=None),
        classified("duck", labels={"duck": 0.5}),
    ],
)
def test_a_200_without_exactly_one_label_is_no_answer(body: Any) -> None:
    assert isinstance(meant(CLASSIFY, body), NoAnswer)


def test_a_generate_request_reserves_the_prompt_and_the_longest_answer() -> None:
    assert sent(common(GENERATE), Ask("Ente 🦆")) == (
        "/v1/generate",
        {"prompt": "Ente 🦆", "model": "command", "max_tokens": 50, "stream": True},
    )
    assert Cohere().need(common(GENERATE), Ask("Ente 🦆")) == Need(
        6 + 6 * 50, 6 // 2 + 1 + 50, base=6
    )


def test_a_lines_max_tokens_and_number_of_answers_count_in_what_is_reserved() -> None:
    params = {"max_tokens": 10, "num_generations": 3, "temperature": 0.5}
    ask = Ask("abc", params)

    _, body = sent(common(GENERATE, temperature=0.1, k=7), ask)

    assert body == {"prompt": "abc", "model": "command", "stream": True, "k": 7, **params}
    assert Cohere().need(common(GENERATE), ask) == Need(3 + 6 * 10 * 3, 2 + 10 * 3, base=3)


def test_an_embed_request_reserves_its_text_and_says_what_it_is_for() -> None:
    path, plain = sent(common(EMBED), Ask("Ente 🦆"))
    _, query = sent(common(EMBED), Ask("a", {"input_type": "search_query"}))

    assert path == "/v1/embed"
    assert plain == {
        "texts": ["Ente 🦆"],
        "model": "embed-english-v3.0",
        "input_type": "search_document",
    }
    assert Cohere().need(common(EMBED), Ask("Ente 🦆")) == Need(6, 4, base=6)
    assert query["input_type"] == "search_query"


def test_a_classify_request_carries_the_examples() -> None:
    assert sent(common(CLASSIFY), Ask("Ente 🦆"), Ask("b")) == (
        "/v1/classify",
        {
            "inputs": ["Ente 🦆", "b"],
            "examples": [{"text": "quack", "label": "duck"}, {"text": "moo", "label": "cow"}],
            "model": "embed-english-v3.0",
        },
    )
    assert Cohere().need(common(CLASSIFY), Ask("Ente 🦆")) == Need(6, 4, base=6)


@pytest.mark.parametrize(("endpoint", "most"), [(GENERATE, 1), (EMBED, 96), (CLASSIFY, 96)])
def test_texts_are_packed_and_prompts_are_not(endpoint: Endpoint, most: int) -> None:
    assert Cohere().pack_most(common(endpoint)) == most
    assert bool(Cohere().pack_key(common(endpoint), Ask("a"))) == (most > 1)


def key(common: Common, ask: Ask) -> str:
    return Cohere().pack_key(common, ask)


def test_jobs_share_a_call_if_all_but_their_texts_is_the_same() -> None:
    plain = key(common(EMBED), Ask("a"))
    query = {"input_type": "search_query", "truncate": "END"}

    assert plain == key(common(EMBED), Ask("another"))
    assert key(common(EMBED), Ask("a", query)) == key(
        common(EMBED), Ask("b", dict(reversed(query.items())))
    )
    assert re.fullmatch("[0-9a-f]{16}", plain)


def test_jobs_that_differ_in_anything_beside_their_texts_have_keys_of_their_own() -> None:
    more = (*EXAMPLES, Example("oink", "pig"))
    keys = [
        key(common(EMBED), Ask("a")),
        key(common(CLASSIFY), Ask("a")),
        key(common(EMBED, truncate="NONE"), Ask("a")),
        key(common(EMBED), Ask("a", {"truncate": "NONE"})),
        key(common(EMBED), Ask("a", {"truncate": "START"})),
        key(Common(EMBED, "embed-v4.0", 50), Ask("a")),
        key(Common(CLASSIFY, MODELS[CLASSIFY], 50, {}, more), Ask("a")),
        key(Common(CLASSIFY, MODELS[CLASSIFY], 50, {}, more[::-1]), Ask("a")),
    ]

    assert len(set(keys)) == len(keys)


def test_one_adapter_tells_the_keys_of_many_flows() -> None:
    speaks = Cohere()
    one, two = common(EMBED), common(EMBED, truncate="START")

    told = [speaks.pack_key(flow, Ask("a")) for flow in (one, two, one, common(EMBED))]

    assert told[0] == told[2] == told[3] != told[1]


def test_each_job_of_a_pack_gets_its_own_result_and_pays_for_its_own_text() -> None:
    asks = [Ask("Ente 🦆"), Ask("b"), Ask("abc")]
    told = {"embeddings": [[1], [2], [3]], "meta": {"billed_units": {"input_tokens": 9}}}

    outcome = Cohere().read(common(EMBED), asks, reply(told))

    assert isinstance(outcome, Answered)
    assert [one["embedding"] for one in outcome.results if isinstance(one, dict)] == [[1], [2], [3]]
    assert (outcome.used, outcome.tokens) == ((6, 1, 3), 9)
    labelled = Cohere().read(common(CLASSIFY), asks, reply(classified("duck", "cow", "duck")))
    assert isinstance(labelled, Answered)
    labels = [one["label"] for one in labelled.results if isinstance(one, dict)]
    assert (labels, labelled.used) == (["duck", "cow", "duck"], (6, 1, 3))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_pack_that_is_not_answered_in_full_is_no_answer_to_anyone(count: int) -> None:
    asks = [Ask("a"), Ask("b")]

    assert isinstance(
        Cohere().read(common(EMBED), asks, reply({"embeddings": [[1]] * count})), NoAnswer
    )
    told = reply(classified(*["duck"] * count))
    assert isinstance(Cohere().read(common(CLASSIFY), asks, told), NoAnswer)


@pytest.mark.parametrize(
    ("message", "index"),
    [
        ("invalid request: texts contains an element that is the empty string at index 2", 2),
        ("invalid request: texts[1]: too many tokens", 1),
        ("texts[1] and again texts[1].", 1),
        ("#/texts/0: expected maxLength: 2048, actual: 2459", 0),
        ("invalid type: parameter texts.2 is of type int but should be of type string", 2),
        ("too many tokens: total number of texts must be at most 96 - received 104", None),
        ("texts[0] and texts[1] are too long", None),
        ("texts[3] was never sent", None),
        ("texts[-1], texts[], texts[1.5], texts[9999999]", None),
        ("texts[1].name, texts[1][0], context.texts[1], items[0].texts[1], subtexts[1]", None),
        ("inputs[1]: not what was sent", None),
        ("", None),
    ],
)
def test_of_a_rejected_pack_the_text_that_the_error_names_is_to_blame(
    message: str, index: int | None
) -> None:
    told = reply({"message": message}, status=400)

    outcome = Cohere().read(common(EMBED), [Ask("a"), Ask("b"), Ask("c")], told)

    assert outcome == Rejected(message, 400, index)
    assert meant(EMBED, {"message": message}, status=400) == Rejected(message, 400)


def test_a_refusal_of_a_pack_blames_nobody() -> None:
    told = reply({"message": "texts[0] is one too many"}, status=429)

    assert Cohere().read(common(EMBED), [Ask("a"), Ask("b")], told) == Refused(None)


@pytest.mark.parametrize(
    ("endpoint", "name"), [(GENERATE, "prompt"), (EMBED, "texts"), (CLASSIFY, "inputs")]
)
def test_an_empty_text_is_refused_before_it_spoils_a_pack(endpoint: Endpoint, name: str) -> None:
    with pytest.raises(BadParameter, match="is empty") as caught:
        Cohere().need(common(endpoint), Ask(""))
    assert caught.value.name == name


TRIAL = {"x-trial-endpoint-call-limit": "20", "x-trial-endpoint-call-remaining": "19"}
MONTH = {"x-endpoint-monthly-call-limit": "1000"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, None),
        (TRIAL, "calls: 19 of 20 left"),
        (MONTH, "calls a month: 1,000 in all"),
        ({**TRIAL, **MONTH}, "calls: 19 of 20 left; calls a month: 1,000 in all"),
        ({**TRIAL, "x-trial-endpoint-call-remaining": "\x1b[2J"}, "calls: 20 in all"),
        ({"x-trial-endpoint-call-limit": "-1", "x-endpoint-monthly-call-limit": "²"}, None),
    ],
)
def test_what_the_headers_say_of_limits_is_shown_to_people(
    headers: dict[str, str], said: str | None
) -> None:
    assert Cohere().said(Reply(200, headers, b"")) == said


@pytest.mark.parametrize(
    ("told", "ms"), [("18", 18), ("0", 0), ("", None), ("-1", None), ("1.5", None), ("9" * 9, None)]
)
def test_the_proxy_says_how_long_the_work_took(told: str, ms: int | None) -> None:
    assert Cohere().service_ms(Reply(200, {"x-envoy-upstream-service-time": told}, b"")) == ms
    assert Cohere().service_ms(Reply(200, {}, b"")) is None


def refused(endpoint: Endpoint, **params: Any) -> BadParameter:
    """What is said of a parameter, whether a line has it or the run."""
    with pytest.raises(BadParameter) as of_line:
        Cohere().need(common(endpoint), Ask("a", params))
    with pytest.raises(BadParameter) as of_run:
        Cohere().need(common(endpoint, **params), Ask("a"))
    assert str(of_line.value) == str(of_run.value)
    return of_line.value


@pytest.mark.parametrize("value", [0, -1, 100_001, "5", 1.0, True, None, [], {}])
def test_a_max_tokens_that_cannot_be_reserved_for_is_refused(value: Any) -> None:
    error = refused(GENERATE, max_tokens=value)

    assert "whole number from 1 to 100,000" in str(error)
    assert error.name == "max_tokens"


@pytest.mark.parametrize("value", [0, 6, "1", 1.5, False])
def test_a_number_of_answers_that_is_none_is_refused(value: Any) -> None:
    assert refused(GENERATE, num_generations=value).name == "num_generations"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 5.1),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", []),
        ("k", 501),
        ("p", 1.01),
        ("frequency_penalty", -1),
        ("presence_penalty", 2),
        ("truncate", "MIDDLE"),
    ],
)
def test_a_parameter_out_of_its_range_is_refused(name: str, value: Any) -> None:
    error = refused(GENERATE, **{name: value})

    assert error.name == name
    assert f"parameter {name!r}" in str(error)


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        *((GENERATE, name) for name in ("prompt", "model")),
        *((EMBED, name) for name in ("texts", "model", "images")),
        *((CLASSIFY, name) for name in ("inputs", "examples", "model")),
    ],
)
def test_what_millpond_writes_itself_cannot_be_a_parameter(endpoint: Endpoint, name: str) -> None:
    error = refused(endpoint, **{name: "x"})

    assert "set by millpond itself" in str(error)
    assert error.name == name


def test_a_line_of_a_batch_file_is_for_another_provider() -> None:
    with pytest.raises(BadParameter, match="needs --provider openai") as caught:
        Cohere().need(common(GENERATE), Ask("a", body={"messages": []}))
    assert caught.value.name == "body"


@pytest.mark.parametrize("value", ["\ud800", {1: 2}])
def test_a_parameter_that_is_no_json_is_refused_too(value: Any) -> None:
    with pytest.raises((BadParameter, orjson.JSONEncodeError)):
        sent(common(GENERATE), Ask("a", {"x": value}))
