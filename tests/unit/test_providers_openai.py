"""OpenAI's wire format: what is asked for, and what a reply means."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from millpond.domain.job import Endpoint
from millpond.domain.limit import parse_limits
from millpond.domain.request import Ask, Common, Example, Need
from millpond.providers.adapter import BadParameter, Reply
from millpond.providers.openai import OpenAI
from millpond.providers.outcome import (
    Answered,
    JobFailed,
    KeyRefused,
    NoAnswer,
    Outcome,
    QuotaSpent,
    Refused,
    Rejected,
    Unwell,
)

GENERATE, EMBED, CLASSIFY = Endpoint.GENERATE, Endpoint.EMBED, Endpoint.CLASSIFY
CHAT, EMBEDDINGS = "/chat/completions", "/embeddings"
EXAMPLES = (Example("quack", "Duck"), Example("moo", "U.S. cow"))
INSTRUCTION = (
    "Classify the user's text. Answer with exactly one of these labels and nothing else:\n"
    "Duck\nU.S. cow\n\nExamples:\nText: quack\nLabel: Duck\nText: moo\nLabel: U.S. cow"
)
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def common(endpoint: Endpoint, **params: Any) -> Common:
    return Common(endpoint, "m", 50, params, EXAMPLES if endpoint is CLASSIFY else ())


def line(*contents: Any, **more: Any) -> Ask:
    """A line of a batch file, with a message of the user for each content."""
    messages = [{"role": "user", "content": content} for content in contents]
    return Ask("as shown", body={"messages": messages, **more})


def need(endpoint: Endpoint, ask: Ask, **params: Any) -> Need:
    return OpenAI().need(common(endpoint, **params), ask)


def sent(endpoint: Endpoint, *asks: Ask, **params: Any) -> tuple[str, dict[str, Any]]:
    wire = OpenAI().wire(common(endpoint, **params), asks)
    return wire.path, orjson.loads(wire.body)


def meant(
    endpoint: Endpoint,
    body: Any,
    *,
    status: int = 200,
    ask: Ask = Ask("Ente 🦆"),  # noqa: B008 (it is frozen)
    headers: Mapping[str, str] | None = None,
) -> Outcome:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return OpenAI().read(common(endpoint), [ask], Reply(status, headers or {}, content))


def chat(*texts: Any, **more: Any) -> dict[str, Any]:
    choices = [
        {"index": number, "message": {"role": "assistant", "content": text}, **more}
        for number, text in enumerate(texts)
    ]
    return {"model": "m-2024", "choices": choices, "usage": {"total_tokens": 12}}


# What a job may use.


@pytest.mark.parametrize(
    ("ask", "params", "base", "answers", "tokens"),
    [
        # Six characters are 4 tokens at most, the message around them 8.
        (Ask("Ente 🦆"), {}, 6, 6 * 50, 12 + 50),
        (Ask("Ente 🦆"), {"max_tokens": 10}, 6, 6 * 10, 12 + 10),
        (Ask("Ente 🦆", {"max_tokens": 7}), {"max_tokens": 10}, 6, 6 * 7, 12 + 7),
        (Ask("Ente 🦆", {"max_completion_tokens": 9, "n": 3}), {}, 6, 6 * 27, 12 + 27),
        (line("Ente 🦆"), {}, 6, 6 * 50, 12 + 50),
        (line("Ente 🦆", "abcd", max_tokens=5, n=2), {}, 10, 60, 12 + 11 + 10),
        (line([{"type": "text", "text": "abcd"}, {"type": "image_url"}]), {}, 4, 300, 11 + 50),
    ],
)
def test_a_chat_reserves_what_is_sent_and_the_longest_answers(
    ask: Ask, params: dict[str, Any], base: int, answers: int, tokens: int
) -> None:
    assert need(GENERATE, ask, **params) == Need(base + answers, tokens, base)


def test_an_embedding_reserves_its_text() -> None:
    assert need(EMBED, Ask("Ente 🦆")) == Need(6, 12, base=6)
    assert need(EMBED, Ask("as shown", body={"input": "Ente 🦆"})) == Need(6, 12, base=6)


def test_classify_reserves_the_examples_with_every_text_and_a_short_answer() -> None:
    instruction = len(INSTRUCTION)

    assert need(CLASSIFY, Ask("Ente 🦆")) == Need(
        instruction + 6 + 6 * 32, instruction // 2 + 1 + 8 + 12 + 32, base=instruction + 6
    )


@pytest.mark.parametrize(
    ("endpoint", "params", "name"),
    [
        *((GENERATE, {name: "x"}, name) for name in ("messages", "model", "stream_options")),
        *((EMBED, {name: "x"}, name) for name in ("input", "model", "encoding_format")),
        *((CLASSIFY, {name: "x"}, name) for name in ("messages", "model", "n")),
        *((GENERATE, {"max_tokens": bad}, "max_tokens") for bad in (0, "5", 1.0, True, None)),
        (GENERATE, {"max_completion_tokens": 1_000_001}, "max_completion_tokens"),
        *((GENERATE, {"n": bad}, "n") for bad in (0, 129, "2")),
        *((GENERATE, {"temperature": bad}, "temperature") for bad in (-0.1, 2.1, "hot", False)),
        (GENERATE, {"top_p": 1.1}, "top_p"),
        (GENERATE, {"frequency_penalty": -2.5}, "frequency_penalty"),
        (GENERATE, {"presence_penalty": 3}, "presence_penalty"),
    ],
)
def test_a_parameter_that_cannot_be_sent_is_refused_of_a_line_and_of_the_run(
    endpoint: Endpoint, params: dict[str, Any], name: str
) -> None:
    with pytest.raises(BadParameter) as of_line:
        need(endpoint, Ask("a", params))
    with pytest.raises(BadParameter) as of_run:
        need(endpoint, Ask("a"), **params)

    assert of_line.value.name == of_run.value.name == name
    assert f"parameter {name!r}" in str(of_line.value)


@pytest.mark.parametrize(
    ("endpoint", "body", "name", "told"),
    [
        (GENERATE, {}, "messages", "no list of messages"),
        (GENERATE, {"messages": []}, "messages", "no list of messages"),
        (GENERATE, {"messages": "hello"}, "messages", "no list of messages"),
        (GENERATE, {"messages": ["hello"]}, "messages", "message 0 has no role"),
        (GENERATE, {"messages": [{"content": "a"}]}, "messages", "message 0 has no role"),
        (GENERATE, {"messages": [{"role": "user"}], "stream": True}, "stream", "streamed"),
        (GENERATE, {"messages": [{"role": "user"}], "model": "x"}, "model", "is 'x'"),
        (GENERATE, {"messages": [{"role": "user"}], "n": 0}, "n", "whole number"),
        (GENERATE, {"messages": [{"role": "user"}], "max_tokens": 0}, "max_tokens", "whole"),
        (GENERATE, {"messages": [{"role": "user"}], "temperature": 3}, "temperature", "from 0"),
        (EMBED, {}, "input", "one text"),
        (EMBED, {"input": ["a", "b"]}, "input", "one text"),
        (EMBED, {"input": ""}, "input", "is empty"),
    ],
)
def test_a_line_of_a_batch_file_that_cannot_be_sent_is_refused(
    endpoint: Endpoint, body: dict[str, Any], name: str, told: str
) -> None:
    with pytest.raises(BadParameter, match=told) as caught:
        need(endpoint, Ask("a", body=body))
    assert caught.value.name == name


def test_an_empty_text_is_refused_before_it_spoils_a_pack() -> None:
    with pytest.raises(BadParameter, match="is empty") as caught:
        need(EMBED, Ask(""))
    assert caught.value.name == "input"


# What is asked for together.


def embed_line(text: Any, **more: Any) -> Ask:
    """A line of a batch file, with an input."""
    return Ask("as shown", body={"input": text, **more})


def key(ask: Ask, endpoint: Endpoint = EMBED, **params: Any) -> str:
    return OpenAI().pack_key(common(endpoint, **params), ask)


def test_texts_are_packed_and_chats_are_not() -> None:
    assert [OpenAI().pack_most(common(one)) for one in Endpoint] == [1, 96, 1]
    assert OpenAI(texts_most=1).pack_most(common(EMBED)) == 1
    assert key(Ask("a"))
    alone = [key(Ask("a"), GENERATE), key(Ask("a"), CLASSIFY), key(line("a"), GENERATE)]
    assert {*alone, key(embed_line(["a", "b"])), key(embed_line(None))} == {""}
    assert OpenAI(texts_most=1).pack_key(common(EMBED), Ask("a")) == ""


def test_jobs_share_a_call_if_all_but_their_texts_is_the_same() -> None:
    assert key(Ask("a", {"dimensions": 8})) == key(Ask("b", {"dimensions": 8}))
    assert key(embed_line("a", dimensions=8)) == key(
        embed_line("b", model="m", encoding_format="base64", dimensions=8)
    )


def test_jobs_that_differ_in_anything_beside_their_texts_have_keys_of_their_own() -> None:
    keys = [
        key(Ask("a")),
        key(Ask("a"), dimensions=8),
        key(Ask("a", {"dimensions": 8})),
        key(Ask("a", {"dimensions": 9})),
        key(embed_line("a")),
        key(embed_line("a", dimensions=8)),
        key(embed_line("a", user="u")),
        OpenAI().pack_key(Common(EMBED, "m-2", 50), Ask("a")),
        OpenAI(texts_most=7).pack_key(common(EMBED), Ask("a")),
    ]

    assert len(set(keys)) == len(keys)


# How it is asked for.


@pytest.mark.parametrize(
    ("ask", "params", "more"),
    [
        (Ask("Hi"), {}, {**STREAM, "max_tokens": 50}),
        (Ask("Hi", {"seed": 1}), {"seed": 2, "top_p": 1}, {"seed": 1, "top_p": 1} | STREAM),
        (Ask("Hi", {"max_tokens": 3}), {}, {**STREAM, "max_tokens": 3}),
        (Ask("Hi", {"max_completion_tokens": 3}), {}, {**STREAM, "max_completion_tokens": 3}),
        (Ask("Hi", {"stream": False}), {}, {"stream": False}),
    ],
)
def test_a_prompt_is_a_message_of_the_user_and_is_streamed_with_its_usage(
    ask: Ask, params: dict[str, Any], more: dict[str, Any]
) -> None:
    path, body = sent(GENERATE, ask, **params)

    if "max_completion_tokens" not in more:
        more = {"max_tokens": 50, **more}
    assert path == CHAT
    assert body == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}


def test_texts_are_embedded_together_as_numbers() -> None:
    assert sent(EMBED, Ask("a"), Ask("b"), dimensions=8) == (
        EMBEDDINGS,
        {"model": "m", "input": ["a", "b"], "encoding_format": "float", "dimensions": 8},
    )


def test_classify_is_a_chat_that_shows_labels_and_examples() -> None:
    assert sent(CLASSIFY, Ask("Ente 🦆")) == (
        CHAT,
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": INSTRUCTION},
                {"role": "user", "content": "Ente 🦆"},
            ],
            "temperature": 0,
            "max_tokens": 32,
            **STREAM,
        },
    )


def test_classify_has_one_bound_on_its_answer() -> None:
    _, body = sent(CLASSIFY, Ask("a"), max_completion_tokens=9, temperature=1)

    assert (body["max_completion_tokens"], body["temperature"]) == (9, 1)
    assert "max_tokens" not in body


def test_a_server_that_knows_grammars_is_held_to_the_labels() -> None:
    wire = OpenAI(grammar=True).wire(common(CLASSIFY), [Ask("a")])

    assert orjson.loads(wire.body)["grammar"] == 'root ::= "Duck" | "U.S. cow"'


@pytest.mark.parametrize(
    ("more", "streamed"),
    [
        ({}, STREAM),
        ({"temperature": 1, "user": "u"}, STREAM),
        # A server refuses stream_options without a stream.
        ({"stream": False}, {}),
        ({"stream": None}, {}),
    ],
)
def test_a_line_of_a_batch_file_is_sent_as_it_is_and_streamed_if_it_does_not_mind(
    more: dict[str, Any], streamed: dict[str, Any]
) -> None:
    path, body = sent(GENERATE, line("Hi", **more))

    assert path == CHAT
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 50,
        **more,
        **streamed,
    }


def test_a_line_of_a_batch_file_may_bound_its_answer_itself() -> None:
    assert sent(GENERATE, line("Hi", max_tokens=3))[1]["max_tokens"] == 3
    assert "max_tokens" not in sent(GENERATE, line("Hi", max_completion_tokens=3))[1]


def test_a_line_with_an_input_is_embedded() -> None:
    ask = Ask("as shown", body={"input": "Hi", "dimensions": 8, "encoding_format": "base64"})

    assert sent(EMBED, ask) == (
        EMBEDDINGS,
        {"input": "Hi", "dimensions": 8, "model": "m", "encoding_format": "float"},
    )


def test_lines_are_embedded_together_with_what_they_share() -> None:
    asks = [embed_line("Hi", dimensions=8), embed_line("Ho", dimensions=8, model="m")]

    assert sent(EMBED, *asks, user="of the run") == (
        EMBEDDINGS,
        {"input": ["Hi", "Ho"], "dimensions": 8, "model": "m", "encoding_format": "float"},
    )


# What came back.


def test_a_chat_is_its_text_with_the_characters_of_prompt_and_answer() -> None:
    assert meant(GENERATE, chat("Jörg 🦆", finish_reason="stop")) == Answered(
        (
            {
                "text": "Jörg 🦆",
                "model": "m-2024",
                "characters": {"input": 6, "output": 6},
                "finish_reason": "stop",
            },
        ),
        used=(12,),
        tokens=12,
    )


def test_several_answers_are_all_kept_and_all_counted() -> None:
    outcome = meant(GENERATE, chat("one", "three"))

    assert isinstance(outcome, Answered)
    (result,) = outcome.results
    assert isinstance(result, dict)
    assert (result["text"], result["texts"]) == ("one", ["one", "three"])
    assert (outcome.used, result["characters"]) == ((14,), {"input": 6, "output": 8})


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": -1}, {"total_tokens": "7"}])
def test_tokens_that_are_not_told_are_not_known(usage: Any) -> None:
    outcome = meant(GENERATE, {**chat("a"), "usage": usage})

    assert isinstance(outcome, Answered)
    assert outcome.tokens is None


def event(number: int = 0, text: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"model": "m-2024", "choices": [{"index": number, "delta": delta, **more}]}


def stream(*events: dict[str, Any], done: bool = True) -> bytes:
    sent = b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events)
    return sent + (b"data: [DONE]\n\n" if done else b"")


END = event(finish_reason="length")
USAGE = {"choices": [], "usage": {"total_tokens": 12}}


@pytest.mark.parametrize(
    "body",
    [
        stream(event(text=""), event(text="Jö"), event(text="rg"), END, USAGE),
        stream(event(text="Jö"), event(text="rg"), END, USAGE).replace(b"\n", b"\r\n"),
        stream(event(text="Jörg", finish_reason="length"), USAGE).replace(b"data: ", b"data:"),
        b": still thinking\n\n" + stream(event(text="Jörg"), END, USAGE),
        b"event: message\n" + stream(event(text="Jörg"), END, USAGE) + b"data: {\n\n",
    ],
    ids=["in pieces", "with CRLF", "at once", "after a comment", "with names, and more behind"],
)
def test_a_stream_is_put_together(body: bytes) -> None:
    assert meant(GENERATE, body) == Answered(
        (
            {
                "text": "Jörg",
                "model": "m-2024",
                "characters": {"input": 6, "output": 4},
                "finish_reason": "length",
            },
        ),
        used=(10,),
        tokens=12,
    )


def test_the_answers_of_a_stream_may_be_mixed() -> None:
    events = [event(1, "th"), event(0, "one"), event(1, "ree")]
    ends = [event(1, finish_reason="stop"), event(0, finish_reason="stop")]

    outcome = meant(GENERATE, stream(*events, *ends))

    assert isinstance(outcome, Answered)
    (result,) = outcome.results
    assert isinstance(result, dict)
    assert result["texts"] == ["one", "three"]


@pytest.mark.parametrize(
    "body",
    [
        stream(event(text="Jö"), done=False),
        stream(event(text="Jö"), END, done=False),
        stream(event(text="Jö"), END)[:-30],
        stream(event(text="Jö")),
        stream(event(0, "a"), event(1, "b"), END),
        stream(),
        stream(USAGE),
        stream(event(text="Jö"), {"error": {"message": "overloaded"}}),
        b"data: no JSON\n\ndata: [DONE]\n\n",
        b'data: {"choices": [7]}\n\ndata: [DONE]\n\n',
        b"data: 7\n\ndata: [DONE]\n\n",
    ],
)
def test_a_stream_that_was_cut_is_no_answer(body: bytes) -> None:
    assert isinstance(meant(GENERATE, body), NoAnswer)


@pytest.mark.parametrize("endpoint", [GENERATE, CLASSIFY])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>gateway</html>",
        b'{"choices": [{"mess',
        None,
        [],
        7,
        {},
        {"error": {"message": "overloaded"}},
        {"choices": None},
        {"choices": []},
        {"choices": "none"},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        chat(None),
        chat(7),
    ],
)
def test_a_200_without_what_was_asked_for_is_no_answer(endpoint: Endpoint, body: Any) -> None:
    assert isinstance(meant(endpoint, body), NoAnswer)


def embedded(*vectors: Any) -> dict[str, Any]:
    data = [{"index": number, "embedding": vector} for number, vector in enumerate(vectors)]
    return {"data": data, "model": "e-2", "usage": {"total_tokens": 4}}


def test_embeddings_are_sorted_by_their_texts() -> None:
    told = embedded([0.5, -1], [2])
    told["data"].reverse()
    asks = [Ask("Ente 🦆"), Ask("b")]

    outcome = OpenAI().read(common(EMBED), asks, Reply(200, {}, orjson.dumps(told)))

    first = {"embedding": [0.5, -1], "model": "e-2", "characters": {"input": 6, "output": 0}}
    second = {"embedding": [2], "model": "e-2", "characters": {"input": 1, "output": 0}}
    assert outcome == Answered((first, second), used=(6, 1), tokens=4)


def test_each_line_of_a_pack_pays_for_its_own_text() -> None:
    asks = [embed_line("Ente 🦆"), embed_line("b")]

    outcome = OpenAI().read(common(EMBED), asks, Reply(200, {}, orjson.dumps(embedded([0.5], [2]))))

    assert isinstance(outcome, Answered)
    assert outcome.used == (6, 1)


@pytest.mark.parametrize("indexes", [[0], [0, 0], [1, 2], [0, 2], [0, 1, 2], ["0", "1"], [0, -1]])
def test_a_pack_without_exactly_one_embedding_for_each_text_is_no_answer_to_anyone(
    indexes: list[Any],
) -> None:
    data = [{"index": index, "embedding": [1]} for index in indexes]
    told = Reply(200, {}, orjson.dumps({"data": data}))

    assert isinstance(OpenAI().read(common(EMBED), [Ask("a"), Ask("b")], told), NoAnswer)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        {"data": []},
        {"data": [7]},
        {"data": [{"embedding": [1]}]},
        embedded([1], [2]),
        embedded([]),
        embedded("AAAA"),
        embedded(["1"]),
        embedded([True]),
    ],
)
def test_a_200_without_exactly_one_embedding_is_no_answer(body: Any) -> None:
    assert isinstance(meant(EMBED, body), NoAnswer)


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("Duck", "Duck"),
        ("  duck\n", "Duck"),
        ('"Duck".', "Duck"),
        ("'DUCK'", "Duck"),
        ("U.S. cow", "U.S. cow"),
        ("u.s. cow.", "U.S. cow"),
    ],
)
def test_a_label_is_known_in_other_clothes(said: str, label: str) -> None:
    outcome = meant(CLASSIFY, chat(said))

    assert outcome == Answered(
        (
            {
                "label": label,
                "confidence": None,
                "confidences": None,
                "model": "m-2024",
                "characters": {"input": len(INSTRUCTION) + 6, "output": len(said)},
            },
        ),
        used=(len(INSTRUCTION) + 6 + len(said),),
        tokens=12,
    )


@pytest.mark.parametrize("label", ["No.", "yes", "Yes", '"'])
def test_a_label_that_is_said_as_written_is_that_label(label: str) -> None:
    examples = tuple(Example("x", one) for one in ("No.", "yes", "Yes", '"'))
    told = Reply(200, {}, orjson.dumps(chat(label)))

    outcome = OpenAI().read(Common(CLASSIFY, "m", 50, {}, examples), [Ask("a")], told)

    assert isinstance(outcome, Answered)
    (result,) = outcome.results
    assert isinstance(result, dict)
    assert result["label"] == label


@pytest.mark.parametrize("said", ["", "Goose", "Duck or U.S. cow", "I think it is a Duck", "duc"])
def test_an_answer_that_is_no_label_fails_the_job_and_is_paid_for(said: str) -> None:
    outcome = meant(CLASSIFY, stream(event(text=said), END, USAGE))

    failed = JobFailed("no_label", f"the model answered with none of the labels: {said!r}")
    assert outcome == Answered((failed,), used=(len(INSTRUCTION) + 6 + len(said),), tokens=12)


@pytest.mark.parametrize("status", [201, 204, 206])
def test_a_success_of_another_kind_may_have_been_worked_on(status: int) -> None:
    assert meant(GENERATE, chat("good"), status=status) == NoAnswer(
        f"the reply has status {status}, which holds no answer"
    )


def error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (400, error("too long"), Rejected("too long", 400)),
        (404, {"detail": "Not Found"}, Rejected('{"detail":"Not Found"}', 404)),
        (404, b"<html>\xff", Rejected("<html>�", 404)),
        (401, error("wrong", "invalid_api_key"), KeyRefused("wrong", 401)),
        (402, error("pay"), QuotaSpent("pay")),
        (429, error("slow", "rate_limit_exceeded"), Refused(7_000)),
        (429, error("slow"), Refused(7_000)),
        (429, b"", Refused(7_000)),
        (429, error("no credit", "insufficient_quota"), QuotaSpent("no credit")),
        (429, error("none", "credit_balance_exhausted"), QuotaSpent("none")),
        (400, error("odd", "insufficient_quota"), Rejected("odd", 400)),
        (500, error("broke"), Unwell("broke", 500, charged=True)),
        (503, b"busy", Unwell("busy", 503, charged=False)),
    ],
)
def test_an_error_is_told_by_its_status_and_spent_credit_by_its_code(
    status: int, body: Any, outcome: Outcome
) -> None:
    assert meant(GENERATE, body, status=status, headers={"Retry-After": "7"}) == outcome


@pytest.mark.parametrize(
    ("message", "param", "index"),
    [
        ("Invalid 'input[2]': maximum input length is 8192 tokens.", "input", 2),
        ("Invalid 'input[2]': maximum input length is 8192 tokens.", None, 2),
        ("it is empty", "input[1]", 1),
        ("'$.input[0]' is invalid.", None, 0),
        ("input.1 is too long", None, 1),
        ("'$.input' is invalid. Please check the API reference", None, None),
        ("Requested 1086442 tokens, max 300000 tokens per request", None, None),
        ("Invalid 'input[2]'", "input[1]", None),
        ("Invalid 'input[3]'", "input[3]", None),
        ("Invalid 'input[1].id'", None, None),
    ],
)
def test_of_a_rejected_pack_the_text_that_the_error_names_is_to_blame(
    message: str, param: str | None, index: int | None
) -> None:
    body = {"error": {"message": message, "type": "x", "param": param, "code": None}}
    told = Reply(400, {}, orjson.dumps(body))

    def read(*asks: Ask) -> Outcome:
        return OpenAI().read(common(EMBED), asks, told)

    assert read(Ask("a"), Ask("b"), Ask("c")) == Rejected(message, 400, index)
    assert read(Ask("a")) == Rejected(message, 400)


# What it says of its limits.


@pytest.mark.parametrize(
    ("requests", "tokens", "told"),
    [
        #  limit, resets in
        (("60", "1s"), ("20000", "59ms"), "60/60s,20000tokens/60s"),
        (("60", "1m0s"), None, "60/60s"),
        (None, ("20000", "6m0s"), "20000tokens/1d"),
        (("200", "7m12s"), ("40000", "0s"), "200/1d,40000tokens/60s"),
        (("200", "23h59m59.5s"), None, "200/1d"),
        (("60", ""), None, "60/60s"),
        (("60", "soon"), None, "60/60s"),
        (None, None, None),
        *(
            (("0", "1s"), (bad, "1s"), None)
            for bad in ("", "-1", "many", "1e3", "1.5", "²", "9" * 99)
        ),
        (("60", "1s"), ("9999999999", "1s"), "60/60s"),
    ],
)
def test_the_headers_of_a_reply_say_what_the_limits_are(
    requests: tuple[str, str] | None, tokens: tuple[str, str] | None, told: str | None
) -> None:
    headers = {"content-type": "application/json"}
    for name, found in (("requests", requests), ("tokens", tokens)):
        if found is not None:
            headers[f"x-ratelimit-limit-{name}"] = found[0]
            headers[f"x-ratelimit-reset-{name}"] = found[1]

    said = OpenAI().told(Reply(200, headers, b""))

    assert said == told
    assert said is None or parse_limits(f"generate={said}")


@pytest.mark.parametrize(
    ("requests", "tokens", "said"),
    [
        #  limit, left, resets in
        (
            ("60", "12", "3.2s"),
            ("150000", "149984", "6m0s"),
            "requests: 12 of 60 left, reset in 3.2 s; "
            "tokens: 149,984 of 150,000 left, reset in 6m0s",
        ),
        (("60", "59", "12ms"), None, "requests: 59 of 60 left, reset in 0.012 s"),
        (None, ("150000", "0", "1m30.5s"), "tokens: 0 of 150,000 left, reset in 1m30.5s"),
        ((None, "59", "1s"), None, "requests: 59 left, reset in 1 s"),
        (("60", None, None), None, "requests: 60 in all"),
        (("60", "59", "soon"), ("\x1b[2J", "many", "1s"), "requests: 59 of 60 left"),
        ((None, None, "1s"), None, None),
        (None, None, None),
    ],
)
def test_what_the_headers_say_of_limits_is_shown_to_people(
    requests: tuple[str | None, ...] | None, tokens: tuple[str | None, ...] | None, said: str | None
) -> None:
    headers = {
        f"x-ratelimit-{kind}-{name}": told
        for name, found in (("requests", requests), ("tokens", tokens))
        for kind, told in zip(("limit", "remaining", "reset"), found or (), strict=False)
        if told is not None
    }

    assert OpenAI().said(Reply(200, headers, b"")) == said


def test_the_time_that_the_model_took_is_no_word_on_when_a_call_was_counted() -> None:
    assert OpenAI().service_ms(Reply(200, {"openai-processing-ms": "300"}, b"")) is None
