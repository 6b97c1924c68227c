from typing import Any

import pytest

from millpond.producer.records import BadInput
from millpond.producer.template import Template, can_be_named


@pytest.mark.parametrize(
    ("text", "record", "prompt"),
    [
        ("Solve: {question}", {"question": "1+1"}, "Solve: 1+1"),
        ("{question}", {"question": "1+1"}, "1+1"),
        ("{a}{b} {a}", {"a": "x", "b": "y"}, "xy x"),
        ("{first name}!", {"first name": "Ada"}, "Ada!"),
        ("{Frage: näher}", {"Frage: näher": "wie?"}, "wie?"),
        ("{price [EUR]} {No. 1} {really!}", {"price [EUR]": "1", "No. 1": "2", "really!": "3"},
         "1 2 3"),
        ("{a/b}{0}", {"a/b": "x", "0": "y"}, "xy"),
        ("{{{a}}}", {"a": "x"}, "{x}"),
        ('{{"q": "{a}"}}', {"a": "x"}, '{"q": "x"}'),
        ("{{a}} {a}", {"a": "x"}, "{a} x"),
        ("{a}", {"a": "{b} {{"}, "{b} {{"),  # what is filled in is not read again
        ("{a}\n", {"a": ""}, "\n"),
        ("{a}", {"a": 1}, "1"),
        ("{a}", {"a": 1.5}, "1.5"),
        ("{a} {b}", {"a": True, "b": False}, "true false"),
        ("{a}", {"a": ["x", {"ä": None}]}, '["x",{"ä":null}]'),
        ("{a}", {"a": {"b": 1, "c": []}}, '{"b":1,"c":[]}'),
    ],
)  # fmt: skip
def test_a_template_is_filled_from_the_fields_of_a_record(
    text: str, record: dict[str, Any], prompt: str
) -> None:
    assert Template(text).render(record) == prompt


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Solve {", "a single { at character 7"),
        ("Solve {question", "a single { at character 7"),
        ("question}", "a single } at character 9"),
        ("{a}}", "a single } at character 4"),
        ("{a{b}}", "a single { at character 1"),
        ("{}", "{} names no field"),
        ("{ }", "{ } names no field"),
        ("{a.b}", "{a.b} takes an attribute of a field"),
        ("{a.b.c}", "{a.b.c} takes an attribute of a field"),
        ("{a[0]}", "{a[0]} takes an element of a field"),
        ("{a[b].c}", "{a[b].c} takes an element of a field"),
        ("{a!r}", "{a!r} converts a value"),
        ("{a!s:>10}", "{a!s:>10} converts a value"),
        ("{a.b!r}", "{a.b!r} converts a value"),
        ("{!r}", "{!r} converts a value"),
        ("{a:>10}", "{a:>10} formats a value"),
        ("{a:}", "{a:} formats a value"),
        ("{:.2f}", "{:.2f} formats a value"),
        ("no field", "the template 'no field' names no field"),
        ("{{a}}", "the template '{{a}}' names no field"),
        ("", "the template '' names no field"),
    ],
)
def test_anything_else_is_refused_and_the_accepted_form_is_shown(text: str, complaint: str) -> None:
    with pytest.raises(BadInput) as refused:
        Template(text)

    assert complaint in str(refused.value)
    assert "write {name} for a field of the record, and {{ or }} for a brace" in str(refused.value)
    assert refused.value.code == "bad_input"


def test_the_fields_are_named_once_in_their_order() -> None:
    assert Template("{b} {{c}} {a} {b}").fields == ("b", "a")


@pytest.mark.parametrize(
    ("record", "missing"),
    [
        ({"a": 1, "b": 2}, None),
        ({"a": 0, "b": ""}, None),
        ({"a": False, "b": []}, None),
        ({"b": 2}, "a"),
        ({"a": 1}, "b"),
        ({"a": None, "b": 2}, "a"),
        ({}, "a"),
    ],
)
def test_a_field_that_is_absent_or_null_is_missing(
    record: dict[str, Any], missing: str | None
) -> None:
    assert Template("{a} {b}").first_missing(record) == missing


@pytest.mark.parametrize(
    ("field", "can"), [("question", True), ("a b", True), ("a{b", False), ("a.b", False)]
)
def test_some_names_cannot_be_in_a_template(field: str, can: bool) -> None:
    assert can_be_named(field) is can
