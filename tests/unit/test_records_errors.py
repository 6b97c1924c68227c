"""An errors file of ours as input: what its rows hold is asked again."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from millpond.producer.records import BadInput, Format, Invalid, Reader, Record

ROW: dict[str, Any] = {
    "line": 9,
    "custom_id": None,
    "endpoint": "generate",
    "status": "failed",
    "error": {"code": "rejected", "message": "no", "pointer": None, "provider_status": 400},
    "attempts": 1,
    "input": {"prompt": "a"},
}


def reader(folder: Path, *rows: Any, format: Format = Format.JSONL) -> Reader:
    path = folder / "input.errors.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return Reader(path, format, field="prompt", template=None)


def only(folder: Path, **changes: Any) -> Record | Invalid:
    found = reader(folder, {**ROW, **changes})
    (record,) = found.read()
    assert found.at(record.line, record.offset, record.length) == record
    return record


def test_a_row_is_the_record_that_it_holds_at_its_own_line(tmp_path: Path) -> None:
    given = {"prompt": "b", "custom_id": "x", "params": {"n": 1}, "more": [1]}
    first, second = reader(tmp_path, ROW, {**ROW, "custom_id": "x", "input": given}).read()

    assert (first.line, second.line) == (1, 2)
    assert second == Record(2, 184, 226, given, "b", "x", {"n": 1})


@pytest.mark.parametrize("status", ["failed", "invalid", "expired", "cancelled"])
def test_a_row_of_every_status_is_asked_again(tmp_path: Path, status: str) -> None:
    record = only(tmp_path, status=status)

    assert isinstance(record, Record)
    assert (record.input, record.prompt) == ({"prompt": "a"}, "a")


@pytest.mark.parametrize(
    ("of_row", "of_input", "custom_id"),
    [
        (None, {}, None),
        ("x", {}, "x"),
        ("x", {"custom_id": None}, "x"),
        ("7", {"custom_id": 7}, "7"),
        ("x", {"custom_id": "y"}, "y"),
        (None, {"custom_id": ""}, None),
    ],
)
def test_the_custom_id_is_that_of_the_input_else_that_of_the_row(
    tmp_path: Path, of_row: Any, of_input: dict[str, Any], custom_id: str | None
) -> None:
    record = only(tmp_path, custom_id=of_row, input={"prompt": "a", **of_input})

    assert isinstance(record, Record)
    assert record.custom_id == custom_id
    assert record.input == {"prompt": "a", **of_input}


def test_a_text_is_a_record_of_a_text_file(tmp_path: Path) -> None:
    record = only(tmp_path, custom_id="x", input='{"not": "parsed"}')

    assert isinstance(record, Record)
    assert (record.input, record.prompt) == ('{"not": "parsed"}', '{"not": "parsed"}')
    assert record.custom_id == "x"


def test_the_params_of_a_csv_record_are_read_from_their_cell(tmp_path: Path) -> None:
    record = only(tmp_path, input={"prompt": "a", "params": '{"n": 1}', "custom_id": "7"})

    assert isinstance(record, Record)
    assert (record.params, record.custom_id) == ({"n": 1}, "7")


def test_a_row_may_hold_an_openai_batch_line(tmp_path: Path) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "hi"}}

    (record,) = reader(tmp_path, {**ROW, "input": line}, format=Format.OPENAI).read()

    assert isinstance(record, Record)
    assert (record.input, record.body, record.prompt) == (line, {"input": "hi"}, "hi")


@pytest.mark.parametrize(
    ("code", "input"),
    [
        ("invalid_json", '{"prompt": "a'),
        ("too_long", "aaa"),
        ("invalid_utf8", "a\ufffd"),
        ("not_an_object", [1]),
        ("empty_line", ""),
        ("invalid_csv", '"a'),
        ("lone_surrogate", '{"a": "\\ud800"}'),
        ("too_deep", "[[["),
        ("too_many_cells", {"prompt": "a"}),
    ],
)
def test_of_a_record_that_could_not_be_read_nothing_is_asked(
    tmp_path: Path, code: str, input: Any
) -> None:
    error = {"code": code, "message": "it was so", "pointer": None}

    record = only(tmp_path, status="invalid", error=error, input=input, custom_id="x")

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer, record.custom_id) == (code, "/input", "x")
    assert record.input == input
    assert record.message == (
        "it was so; mend it in the file that it came from: this row does not hold all of it"
    )


def test_a_provider_may_call_a_fault_as_we_do(tmp_path: Path) -> None:
    assert isinstance(only(tmp_path, error={"code": "too_long", "message": "no"}), Record)


@pytest.mark.parametrize("input", [None, 1, [], True])
def test_a_row_that_holds_no_record_is_invalid(tmp_path: Path, input: Any) -> None:
    record = only(tmp_path, input=input)

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == ("wrong_type", "/input")


def test_what_a_row_holds_is_under_the_same_rules(tmp_path: Path) -> None:
    record = only(tmp_path, input={"prompt": "a", "params": []})

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == ("wrong_type", "/params")


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "status": "succeeded"},
        {**ROW, "status": ["failed"]},
        {**ROW, "more": 1},
        {name: value for name, value in ROW.items() if name != "attempts"},
    ],
)
def test_a_record_that_is_no_row_of_errors_is_left_as_it_is(tmp_path: Path, row: Any) -> None:
    (record,) = reader(tmp_path, row).read()

    assert record.input == row


def test_a_file_may_have_rows_and_records(tmp_path: Path) -> None:
    found = reader(tmp_path, ROW, {"prompt": "b"}, {**ROW, "input": "c"}).read()

    assert [one.prompt for one in found if isinstance(one, Record)] == ["a", "b", "c"]


def test_the_fields_that_are_looked_for_are_those_of_the_records(tmp_path: Path) -> None:
    reader(tmp_path, ROW).check()

    with pytest.raises(
        BadInput, match=r'no field "prompt" \(its records have: custom_id, question'
    ):
        reader(tmp_path, {**ROW, "input": {"question": "a"}}).check()
