"""What the simulator answers on Cohere's generate and embed: the same to the same question."""

import json
from typing import Any

import pytest

from millpond.simulator import cohere
from millpond.simulator.author import WORDS, Author
from millpond.simulator.chances import Chance, Constant, Uniform
from millpond.simulator.cohere import Embed, Generate
from millpond.simulator.wire import Invalid, api_key


def generate(**fields: Any) -> dict[str, Any]:
    asked = cohere.request("generate", json.dumps(fields).encode())
    assert isinstance(asked, Generate)
    answer = asked.answer(Author(seed=1), "an-id")
    body: dict[str, Any] = json.loads(answer.body())
    texts = [generation["text"] for generation in body["generations"]]
    assert answer.units.characters == len(fields["prompt"]) + sum(map(len, texts))
    return body


def embed(**fields: Any) -> dict[str, Any]:
    asked = cohere.request("embed", json.dumps(fields).encode())
    assert isinstance(asked, Embed)
    answer = asked.answer(Author(seed=1), "an-id")
    assert answer.units.inputs == len(fields["texts"])
    assert answer.units.characters == sum(map(len, fields["texts"]))
    body: dict[str, Any] = json.loads(answer.body())
    return body


def test_the_same_prompt_gets_the_same_text_and_another_seed_another() -> None:
    text = Author(seed=1).text("a prompt", tokens_max=100)

    assert text == Author(seed=1).text("a prompt", tokens_max=100)
    assert text != Author(seed=2).text("a prompt", tokens_max=100)
    assert text != Author(seed=1).text("another prompt", tokens_max=100)


def test_fewer_tokens_give_the_beginning_of_the_same_text() -> None:
    long, short = (Author(seed=1).text("a prompt", tokens_max=tokens) for tokens in (1_000, 4))

    assert short.words == long.words[:4]
    assert short.cut
    assert not long.cut


def test_a_text_is_never_longer_than_five_characters_a_token_and_about_four() -> None:
    texts = [Author(seed=1).text(str(n), tokens_max=30) for n in range(1_000)]

    assert max(len(str(text)) for text in texts) <= 5 * 30
    assert max(len(text.words) for text in texts) == 30
    characters, tokens = sum(len(str(t)) for t in texts), sum(len(t.words) for t in texts)
    assert 3.8 < characters / tokens < 4.5


def test_texts_have_about_forty_tokens_in_the_middle() -> None:
    lengths = sorted(len(Author(1).text(str(n), tokens_max=9_999).words) for n in range(1_001))

    assert 36 <= lengths[500] <= 44


@pytest.mark.parametrize(
    ("length", "tokens_max", "tokens"),
    [
        #  asked for     allowed  what comes
        (Constant(7),    9,       {7}),
        (Constant(7),    5,       {5}),
        (Uniform(2, 4),  9,       {2, 3, 4}),
        (Uniform(2, 9),  2,       {2}),
        (Constant(2_000), 3_000,  {2_000}),
    ],
)  # fmt: skip
def test_the_length_of_texts_can_be_chosen(
    length: Chance, tokens_max: int, tokens: set[int]
) -> None:
    author = Author(1, length)

    texts = [author.text(str(n), tokens_max=tokens_max) for n in range(50)]

    assert {len(text.words) for text in texts} == tokens


def test_the_pieces_of_a_text_are_its_tokens() -> None:
    text = Author(seed=1).text("a prompt", tokens_max=9)

    assert "".join(text.pieces()) == str(text)
    assert len(text.pieces()) == len(text.words) == 9
    assert all(len(piece) <= 5 for piece in text.pieces())


def test_every_word_is_a_plain_short_one() -> None:
    assert all(word.isalpha() and word.islower() and 2 <= len(word) <= 4 for word in WORDS)
    assert len(set(WORDS)) == len(WORDS)


def test_a_vector_has_32_numbers_of_6_digits_and_length_1() -> None:
    vector = Author(seed=1).vector("a text")

    assert len(vector) == 32
    assert sum(one * one for one in vector) == pytest.approx(1, abs=1e-5)
    assert all(round(one, 6) == one for one in vector)
    assert vector == Author(seed=1).vector("a text")
    assert vector != Author(seed=2).vector("a text")


def test_generate_answers_every_field_that_clients_read() -> None:
    body = generate(prompt="Tell me", max_tokens=3)

    text = body["generations"][0]["text"]
    assert body == {
        "id": "an-id",
        "prompt": "Tell me",
        "generations": [{"id": "an-id-0", "text": text, "finish_reason": "MAX_TOKENS"}],
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"input_tokens": 2, "output_tokens": 3},
        },
    }
    assert len(text.split()) == 3


def test_generate_allows_20_tokens_unless_told_otherwise() -> None:
    bodies = [generate(prompt=str(n), max_tokens=None) for n in range(50)]

    assert max(body["meta"]["billed_units"]["output_tokens"] for body in bodies) == 20


def test_several_generations_are_numbered_and_differ() -> None:
    generations = generate(prompt="Tell me", num_generations=5)["generations"]

    assert [generation["index"] for generation in generations] == [0, 1, 2, 3, 4]
    assert len({generation["text"] for generation in generations}) == 5


def test_likelihoods_are_there_when_asked_for() -> None:
    generation = generate(prompt="Tell me", return_likelihoods="GENERATION")["generations"][0]

    assert generation["likelihood"] == -1.0
    assert [t["token"] for t in generation["token_likelihoods"]] == generation["text"].split()


def lines(**fields: Any) -> list[dict[str, Any]]:
    """What a stream consists of."""
    asked = cohere.request("generate", json.dumps({**fields, "stream": True}).encode())
    assert isinstance(asked, Generate)
    pieces = asked.answer(Author(seed=1), "an-id").pieces
    assert pieces is not None
    assert all(piece.endswith(b"\n") and piece.count(b"\n") == 1 for piece in pieces())
    return [json.loads(piece) for piece in pieces()]


def test_a_stream_is_a_line_for_each_token_and_one_for_the_end() -> None:
    whole = generate(prompt="Tell me", max_tokens=3)["generations"]
    words = whole[0]["text"].split()

    assert lines(prompt="Tell me", max_tokens=3) == [
        {"event_type": "text-generation", "text": words[0], "is_finished": False},
        {"event_type": "text-generation", "text": f" {words[1]}", "is_finished": False},
        {"event_type": "text-generation", "text": f" {words[2]}", "is_finished": False},
        {
            "event_type": "stream-end",
            "is_finished": True,
            "finish_reason": "MAX_TOKENS",
            "response": {"id": "an-id", "prompt": "Tell me", "generations": whole},
        },
    ]


def test_the_lines_of_several_generations_are_numbered() -> None:
    *texts, end = lines(prompt="Tell me", max_tokens=2, num_generations=2)

    assert [text["index"] for text in texts] == [0, 0, 1, 1]
    together = ["".join(text["text"] for text in texts if text["index"] == n) for n in (0, 1)]
    assert [one["text"] for one in end["response"]["generations"]] == together


def test_what_is_not_asked_for_as_a_stream_has_no_pieces() -> None:
    asked = cohere.request("generate", b'{"prompt": "a", "stream": false}')

    assert isinstance(asked, Generate)
    assert asked.answer(Author(seed=1), "an-id").pieces is None


def test_embed_answers_every_field_that_clients_read() -> None:
    body = embed(texts=["one", "two words"])

    vectors = [Author(seed=1).vector("one"), Author(seed=1).vector("two words")]
    assert body == {
        "id": "an-id",
        "response_type": "embeddings_floats",
        "embeddings": vectors,
        "texts": ["one", "two words"],
        "meta": {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 4}},
    }
    by_type = embed(texts=["one", "two words"], embedding_types=["float"])
    assert by_type["response_type"] == "embeddings_by_type"
    assert by_type["embeddings"] == {"float": vectors}


def test_characters_are_code_points_not_bytes() -> None:
    asked = cohere.request("embed", json.dumps({"texts": ["añb", "🙂"]}).encode())

    assert isinstance(asked, Embed)
    assert asked.answer(Author(seed=1), "an-id").units.characters == 4


@pytest.mark.parametrize(
    ("endpoint", "body", "message"),
    [
        ("generate", b"{", "invalid json syntax"),
        ("generate", b"", "invalid json syntax"),
        ("generate", b"[]", "must be a JSON object"),
        ("generate", b"{}", "prompt must be at least 1 token long"),
        ("generate", b'{"prompt": null}', "prompt must be at least 1 token long"),
        ("generate", b'{"prompt": ""}', "prompt must be at least 1 token long"),
        ("generate", b'{"prompt": 7}', "parameter prompt should be of type string"),
        ("generate", b'{"prompt": "a", "max_tokens": "9"}', "max_tokens should be of type int"),
        ("generate", b'{"prompt": "a", "max_tokens": 9.5}', "max_tokens should be of type int"),
        ("generate", b'{"prompt": "a", "max_tokens": true}', "max_tokens should be of type int"),
        ("generate", b'{"prompt": "a", "max_tokens": -1}', "max_tokens must be greater"),
        ("generate", b'{"prompt": "a", "num_generations": 0}', "from 1 to 5"),
        ("generate", b'{"prompt": "a", "num_generations": 6}', "from 1 to 5"),
        ("generate", b'{"prompt": "a", "temperature": "hot"}', "temperature should be of type"),
        ("generate", b'{"prompt": "a", "stream": 1}', "stream should be of type bool"),
        ("embed", b"{}", "texts must be at least 1 element long"),
        ("embed", b'{"texts": []}', "texts must be at least 1 element long"),
        ("embed", b'{"texts": "a"}', "texts should be of type list"),
        ("embed", b'{"texts": ["a", 7]}', "element 1 of texts"),
        ("embed", b'{"texts": ["a", ""]}', "the empty string at index 1"),
        ("embed", json.dumps({"texts": ["a"] * 97}).encode(), "at most 96 - received 97"),
        ("embed", b'{"texts": ["a"], "embedding_types": ["int8"]}', "not simulated"),
    ],
)
def test_a_request_that_breaks_the_rules_is_invalid_with_the_reason(
    endpoint: str, body: bytes, message: str
) -> None:
    asked = cohere.request(endpoint, body)

    assert isinstance(asked, Invalid)
    assert message in asked.message


def test_null_means_unset_and_unknown_fields_are_let_be() -> None:
    everything_null = dict.fromkeys((*cohere.GENERATE_FIELDS, "logit_bias"))
    body = json.dumps({**everything_null, "prompt": "a", "prompt_vars": {}}).encode()

    assert cohere.request("generate", body) == Generate("a", 20, 1, likelihoods=False)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("Bearer acme", "acme"),
        ("BEARER acme", "acme"),
        ("bearer  acme ", "acme"),
        ("Basic acme", None),
        ("Bearer", None),
        ("Bearer ", None),
        (None, None),
    ],
)
def test_the_key_is_read_whatever_the_case_of_the_scheme(
    header: str | None, key: str | None
) -> None:
    assert api_key(header) == key
