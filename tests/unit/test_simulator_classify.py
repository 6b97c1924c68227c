"""Cohere's classify: which label a text gets, and what a request must hold."""

import json
from typing import Any

import pytest

from millpond.simulator import cohere
from millpond.simulator.author import Author
from millpond.simulator.classify import Example, Labels
from millpond.simulator.cohere import Classify
from millpond.simulator.limits import Units
from millpond.simulator.wire import Answer, Invalid

EXAMPLES = [
    {"text": "where is my card", "label": "card"},
    {"text": "my card is late", "label": "card"},
    {"text": "send money home", "label": "transfer"},
    {"text": "transfer money to a friend", "label": "transfer"},
]
LABELS = Labels([Example(one["text"], one["label"]) for one in EXAMPLES])


def answer(inputs: list[str], seed: int = 1) -> Answer:
    body = json.dumps({"inputs": inputs, "examples": EXAMPLES}).encode()
    asked = cohere.request("classify", body)
    assert isinstance(asked, Classify)
    return asked.answer(Author(seed), "an-id")


@pytest.mark.parametrize(
    ("text", "label", "confidence"),
    [
        #  words shared with card, transfer
        ("Is MY card here?", "card", 5 / 6),  # 3 and 0
        ("money, card: money!", None, 0.6),  # 1 and 1
        ("send a card to a friend", "transfer", 6 / 8),  # 1 and 4
        ("nothing known", None, 2 / 3),  # 0 and 0
    ],
)
def test_the_label_that_shares_the_most_words_wins(
    text: str, label: str | None, confidence: float
) -> None:
    shares = LABELS.shares(text, Author(seed=1))

    best = max(shares, key=lambda one: shares[one])
    assert label in (best, None)
    assert shares[best] == pytest.approx(confidence)
    assert sum(shares.values()) == pytest.approx(1)


def test_between_labels_that_are_equally_good_the_seed_decides() -> None:
    def winners(seed: int) -> list[str]:
        shares = [LABELS.shares(f"text {n}", Author(seed)) for n in range(100)]
        return [max(one, key=lambda label: one[label]) for one in shares]

    assert winners(1) == winners(1)
    assert winners(1) != winners(2)
    assert 30 < winners(1).count("card") < 70


def test_the_confidences_of_many_labels_add_up_to_1_as_well() -> None:
    many = Labels([Example(f"word{n} common", f"label {n}") for n in range(1_250)])

    shares = many.shares("common word7", Author(seed=1))

    assert max(shares, key=lambda label: shares[label]) == "label 7"
    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)


def test_classify_answers_every_field_that_clients_read() -> None:
    told = answer(["my card", "money"])

    assert json.loads(told.body()) == {
        "id": "an-id",
        "classifications": [
            {
                "id": "an-id-0",
                "input": "my card",
                "prediction": "card",
                "confidence": 0.8,
                "predictions": ["card"],
                "confidences": [0.8],
                "labels": {"card": {"confidence": 0.8}, "transfer": {"confidence": 0.2}},
                "classification_type": "single-label",
            },
            {
                "id": "an-id-1",
                "input": "money",
                "prediction": "transfer",
                "confidence": 0.75,
                "predictions": ["transfer"],
                "confidences": [0.75],
                "labels": {"card": {"confidence": 0.25}, "transfer": {"confidence": 0.75}},
                "classification_type": "single-label",
            },
        ],
        "meta": {"api_version": {"version": "1"}, "billed_units": {"classifications": 2}},
    }
    # 7 + 5 characters, and examples of 16 + 15 + 15 + 26
    assert told.units == Units(inputs=2, characters=84, tokens=2 + 2 + 4 + 4 + 4 + 7)


def examples(*labels: str) -> list[dict[str, str]]:
    return [{"text": "a", "label": label} for label in labels]


PAIRS = examples("x", "x", "y", "y")
TOO_LONG = {"text": "a" * 2_049, "label": "x"}


@pytest.mark.parametrize(
    ("inputs", "examples", "message"),
    [
        (None, PAIRS, "inputs must be at least 1 element long"),
        ([], PAIRS, "inputs must be at least 1 element long"),
        ("a", PAIRS, "inputs should be of type list"),
        (["a", ""], PAIRS, "inputs contains an element that is the empty string at index 1"),
        (["a"] * 97, PAIRS, "total number of inputs must be at most 96 - received 97"),
        (["a"], None, "min classes for classify request is 2 - received 0"),
        (["a"], examples("x", "x"), "min classes for classify request is 2 - received 1"),
        (["a"], examples("b", "x", "x", "a"), "each unique label must have at least 2 examples."),
        (["a"], examples("b", "x", "x", "a"), "Not enough examples for: b, a"),
        (["a"], ["x"], "example 0 must have a text and a label"),
        (["a"], [*PAIRS, {"text": "a"}], "example 4 must have a text and a label"),
        (["a"], PAIRS * 626, "at most 2500 - received 2504"),
        (["a"], [*PAIRS, TOO_LONG], "too many tokens: example 4"),
    ],
)
def test_a_request_that_breaks_the_rules_is_invalid_with_the_reason(
    inputs: Any, examples: Any, message: str
) -> None:
    body = json.dumps({"inputs": inputs, "examples": examples}).encode()

    asked = cohere.request("classify", body)

    assert isinstance(asked, Invalid)
    assert message in asked.message


def test_as_much_as_is_allowed_is_taken() -> None:
    long = [{"text": "a" * 2_048, "label": "x"}]
    body = {"inputs": ["a"] * 96, "examples": (long + PAIRS * 625)[:2_500], "model": None}

    assert isinstance(cohere.request("classify", json.dumps(body).encode()), Classify)
