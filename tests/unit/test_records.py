import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from millpond.producer import spans
from millpond.producer.records import (
    BadInput,
    Format,
    Invalid,
    Reader,
    Record,
    Survey,
    detect,
    survey,
)
from millpond.producer.template import Template

BOM = b"\xef\xbb\xbf"


def reader(
    folder: Path,
    content: bytes,
    format: Format = Format.JSONL,
    *,
    field: str = "prompt",
    template: str | None = None,
) -> Reader:
    path = folder / "input"
    path.write_bytes(content)
    return Reader(path, format, field=field, template=Template(template) if template else None)


def only(found: Reader) -> Record | Invalid:
    (record,) = found.read()
    return record


def codes(found: Reader) -> list[tuple[int, str]]:
    """Line and code of every record; a good one's code is its prompt."""
    return [
        (record.line, record.prompt if isinstance(record, Record) else record.code)
        for record in found.read()
    ]


# What the file is


@pytest.mark.parametrize(
    ("name", "wish", "content", "format"),
    [
        ("a.jsonl", "auto", b"hello", Format.JSONL),
        ("a.ndjson", "auto", b"", Format.JSONL),
        ("a.json", "auto", b"", Format.JSONL),
        ("a.JSONL", "auto", b"", Format.JSONL),
        ("a.csv", "auto", b'{"a": 1}', Format.CSV),
        ("a.txt", "auto", b'{"a": 1}', Format.TEXT),
        ("a.text", "auto", b"", Format.TEXT),
        ("a", "auto", b'{"a": 1}', Format.JSONL),
        ("a.dat", "auto", b' \r\n\t{"a": 1}', Format.JSONL),
        ("a", "auto", BOM + b'\n{"a": 1}', Format.JSONL),
        ("a", "auto", b"\n" * 3_000_000 + b"{", Format.JSONL),
        ("a", "auto", b"hello {", Format.TEXT),
        ("a", "auto", b"[1]", Format.TEXT),
        ("a", "auto", b"", Format.TEXT),
        ("a.csv", "jsonl", b"", Format.JSONL),
        ("a.csv", "openai", b"", Format.OPENAI),
        ("a.jsonl", "csv", b"", Format.CSV),
        ("a.jsonl", "text", b"", Format.TEXT),
    ],
)
def test_the_format_is_as_wished_else_by_the_name_else_by_how_the_file_begins(
    tmp_path: Path, name: str, wish: str, content: bytes, format: Format
) -> None:
    (tmp_path / name).write_bytes(content)

    assert detect(tmp_path / name, wish) is format


@pytest.mark.parametrize(
    ("path", "name", "format"),
    [
        ("spooled", "a.csv", Format.CSV),
        ("spooled", "a", Format.JSONL),
        ("spooled.csv", "", Format.JSONL),  # standard input has no name
        ("spooled", "a.txt", Format.TEXT),
    ],
)
def test_the_format_goes_by_the_name_that_the_file_had(
    tmp_path: Path, path: str, name: str, format: Format
) -> None:
    (tmp_path / path).write_bytes(b'{"a": 1}')

    assert detect(tmp_path / path, "auto", name=name) is format


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(
        BadInput, match="no input format 'xml': it is auto, jsonl, openai, csv or text"
    ):
        detect(Path("a.xml"), "xml")


# Where the records are


@pytest.mark.parametrize(
    ("format", "content", "found"),
    [
        (Format.TEXT, b"", []),
        (Format.TEXT, BOM, []),
        (Format.TEXT, b"a", [(1, 0, 1)]),
        (Format.TEXT, b"a\n", [(1, 0, 1)]),
        (Format.TEXT, b"a\nbc\n", [(1, 0, 1), (2, 2, 2)]),
        (Format.TEXT, b"a\r\nbc\r\n", [(1, 0, 1), (2, 3, 2)]),
        (Format.TEXT, b"a\rb\r", [(1, 0, 4)]),  # a lone \r is a character
        (Format.TEXT, b"a\r\r\nb", [(1, 0, 2), (2, 4, 1)]),
        (Format.TEXT, b"\n", [(1, 0, 0)]),
        (Format.TEXT, b"\n\r\n\n", [(1, 0, 0), (2, 1, 0), (3, 3, 0)]),
        (Format.TEXT, BOM + b"a\nb", [(1, 3, 1), (2, 5, 1)]),
        (Format.TEXT, b"\xe2\x80\xa8\nb", [(1, 0, 3), (2, 4, 1)]),  # U+2028 ends no line
        (Format.TEXT, b'"a\nb"\n', [(1, 0, 2), (2, 3, 2)]),
        (Format.JSONL, b'{}\n\n{"a":1}', [(1, 0, 2), (2, 3, 0), (3, 4, 7)]),
        (Format.JSONL, BOM + b"{}\r\n{}\r\n", [(1, 3, 2), (2, 7, 2)]),
        (Format.CSV, b"", []),
        (Format.CSV, b"h\n", []),
        (Format.CSV, b"h", []),
        (Format.CSV, b"h\na\nb", [(2, 2, 1), (3, 4, 1)]),
        (Format.CSV, b"h\n\na\n", [(2, 2, 0), (3, 3, 1)]),
        (Format.CSV, BOM + b"h\r\na\r\n", [(2, 6, 1)]),
        (Format.CSV, b'h\n"a\nb"\nc\n', [(2, 2, 5), (4, 8, 1)]),
        (Format.CSV, b'h\n"a\r\nb"\r\nc\r\n', [(2, 2, 6), (4, 10, 1)]),
        (Format.CSV, b'h\n"a""\n""b"\nc', [(2, 2, 9), (4, 12, 1)]),
        (Format.CSV, b'h,i\n"a,\n\n",\nc\n', [(2, 4, 7), (5, 12, 1)]),
        (Format.CSV, b'h,i\n,"a\nb"\nc\n', [(2, 4, 6), (4, 11, 1)]),
        (Format.CSV, b'h,i\na"b,c"\nd\n', [(2, 4, 6), (3, 11, 1)]),  # these quotes open nothing
        (Format.CSV, b'"h\nh"\na\n', [(3, 6, 1)]),
        (Format.CSV, b'h\na\n"b\nc\n', [(2, 2, 1), (3, 4, 4)]),  # open to the end
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 5, 65_536])
def test_a_record_is_found_by_its_line_and_its_bytes_without_the_line_ending(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunk_bytes: int,
    format: Format,
    content: bytes,
    found: list[tuple[int, int, int]],
) -> None:
    monkeypatch.setattr(spans, "_CHUNK_BYTES", chunk_bytes)
    records = reader(tmp_path, content, format)

    assert [(r.line, r.offset, r.length) for r in records.read()] == found
    assert survey(tmp_path / "input", format).records == len(found)


def test_the_survey_is_the_hash_of_the_whole_file_and_the_count_of_its_records(
    tmp_path: Path,
) -> None:
    content = BOM + b"a\n\nb" * 1_000_000
    (tmp_path / "input").write_bytes(content)

    assert survey(tmp_path / "input", Format.TEXT) == Survey(
        hashlib.sha256(content).hexdigest(), 2_000_001
    )


def test_a_skipped_record_is_passed_over_and_the_others_keep_their_lines(tmp_path: Path) -> None:
    content = b'{"prompt": "a"}\nnot json\n{"prompt": "c"}\n'

    found = list(reader(tmp_path, content).read(lambda line: line < 3))

    assert found == [Record(3, 25, 15, {"prompt": "c"}, "c", None, {})]


def test_a_skipped_csv_record_may_have_several_lines(tmp_path: Path) -> None:
    content = b'prompt\n"a\nb"\nc\n'

    found = list(reader(tmp_path, content, Format.CSV).read(lambda line: line == 2))

    assert found == [Record(4, 13, 1, {"prompt": "c"}, "c", None, {})]


# Good records


def test_a_jsonl_record_has_its_prompt_custom_id_and_params(tmp_path: Path) -> None:
    content = b'{"prompt": "hi", "custom_id": "a", "params": {"top_p": 1}, "x": [1]}\r\n'

    assert only(reader(tmp_path, content)) == Record(
        line=1,
        offset=0,
        length=68,
        input={"prompt": "hi", "custom_id": "a", "params": {"top_p": 1}, "x": [1]},
        prompt="hi",
        custom_id="a",
        params={"top_p": 1},
    )


def test_a_csv_record_is_the_dict_of_its_columns(tmp_path: Path) -> None:
    content = b'custom_id,prompt,params\r\n7,"say ""hi"",\nnow","{""top_p"": 1}"\r\n'

    assert only(reader(tmp_path, content, Format.CSV)) == Record(
        line=2,
        offset=25,
        length=36,
        input={"custom_id": "7", "prompt": 'say "hi",\nnow', "params": '{"top_p": 1}'},
        prompt='say "hi",\nnow',
        custom_id="7",
        params={"top_p": 1},
    )


def test_a_text_record_is_its_line(tmp_path: Path) -> None:
    assert only(reader(tmp_path, b" say hi \r\n", Format.TEXT)) == Record(
        1, 0, 8, " say hi ", " say hi ", None, {}
    )


@pytest.mark.parametrize(
    ("format", "content", "field", "template", "prompt"),
    [
        (Format.JSONL, b'{"text": "a"}', "text", None, "a"),
        (Format.JSONL, b'{"q": "a", "n": 2}', "prompt", "{q}? {n}", "a? 2"),
        (Format.JSONL, b'{"prompt": "a", "q": "b"}', "prompt", "{q}", "b"),
        (Format.JSONL, b'{"prompt": "a\\u0000b"}', "prompt", None, "a\0b"),
        (Format.JSONL, b'{"prompt": "\\ud83d\\ude00"}', "prompt", None, "😀"),
        (Format.JSONL, b'{"prompt": "a", "prompt": "b"}', "prompt", None, "b"),
        (Format.JSONL, b' \t{"prompt": "a"} \r', "prompt", None, "a"),
        (Format.JSONL, BOM + b'{"prompt": "a"}', "prompt", None, "a"),
        (Format.JSONL, b'{"prompt": " "}', "prompt", None, " "),
        (Format.CSV, b"prompt\na\0b\n", "prompt", None, "a\0b"),
        (Format.CSV, b"q,n\na,2\n", "prompt", "{q}? {n}", "a? 2"),
        (Format.CSV, b"prompt,x\na\n", "prompt", None, "a"),  # fewer cells
        (Format.CSV, BOM + b'"prompt"\na\n', "prompt", None, "a"),
        (Format.CSV, b"prompt\n" + b"a" * 200_000, "prompt", None, "a" * 200_000),
        (Format.TEXT, b"a", "text", None, "a"),
        (Format.TEXT, b"a", "prompt", "{prompt}+{text}", "a+a"),
        (Format.TEXT, b"a\rb\0", "prompt", None, "a\rb\0"),
        (Format.TEXT, BOM + b"a", "prompt", None, "a"),
    ],
)
def test_the_prompt_is_the_field_or_the_filled_template(
    tmp_path: Path, format: Format, content: bytes, field: str, template: str | None, prompt: str
) -> None:
    record = only(reader(tmp_path, content, format, field=field, template=template))

    assert isinstance(record, Record)
    assert record.prompt == prompt


@pytest.mark.parametrize(
    ("json", "custom_id"),
    [
        (b'"a"', "a"),
        (b'"007"', "007"),
        (b"7", "7"),
        (b"-7", "-7"),
        (b"18446744073709551615", "18446744073709551615"),
        (b"null", None),
        (b'"' + b"x" * 512 + b'"', "x" * 512),
    ],
)
def test_a_custom_id_is_a_string_or_an_integer_or_none(
    tmp_path: Path, json: bytes, custom_id: str | None
) -> None:
    record = only(reader(tmp_path, b'{"prompt": "a", "custom_id": ' + json + b"}"))

    assert isinstance(record, Record)
    assert record.custom_id == custom_id


@pytest.mark.parametrize(
    ("row", "custom_id", "params"),
    [
        (b"a,b,{}", "b", {}),
        (b"a,,", None, {}),
        (b"a", None, {}),
        (b"a,,null", None, {}),
        (b"a,, ", None, {}),
        (b'a,007,"{""n"": [1]}"', "007", {"n": [1]}),
    ],
)
def test_an_empty_cell_is_no_custom_id_and_no_params(
    tmp_path: Path, row: bytes, custom_id: str | None, params: dict[str, Any]
) -> None:
    content = b"prompt,custom_id,params\n" + row + b"\n"

    record = only(reader(tmp_path, content, Format.CSV))

    assert isinstance(record, Record)
    assert (record.custom_id, record.params) == (custom_id, params)


@pytest.mark.parametrize("json", [b"{}", b"null"])
def test_empty_params_are_none(tmp_path: Path, json: bytes) -> None:
    record = only(reader(tmp_path, b'{"prompt": "a", "params": ' + json + b"}"))

    assert isinstance(record, Record)
    assert record.params == {}


# Invalid records


@pytest.mark.parametrize(
    ("content", "code", "pointer", "message"),
    [
        (b"\n", "empty_line", None, "the line is empty"),
        (b" \t\r\n", "empty_line", None, "the line is empty"),
        (b'{"prompt": "a"', "invalid_json", None, "unexpected end of data (column 15)"),
        (b'{"prompt": "a"} x', "invalid_json", None, "content after document (column 17)"),
        (b"{'prompt': 1}", "invalid_json", None, "(column 2)"),
        (b"hello", "invalid_json", None, "(column 1)"),
        (b'{"prompt": NaN}', "invalid_json", None, "(column 12)"),
        (b'{"prompt": "a", "n": Infinity}', "invalid_json", None, "(column 22)"),
        (b'{"prompt": "a", "n": 1e999}', "invalid_json", None, "(column 22)"),
        (b'{"prompt": "a\0"}', "invalid_json", None, "control character"),
        (b'["a"]', "not_an_object", None, "must be a JSON object, not an array"),
        (b'"a"', "not_an_object", None, "must be a JSON object, not a string"),
        (b"null", "not_an_object", None, "must be a JSON object, not null"),
        (b"1", "not_an_object", None, "must be a JSON object, not the number 1"),
        (b'{"prompt": "a\xff"}', "invalid_utf8", None, "byte 14 of the record (0xff) is not UTF-8"),
        (b'{"prompt": "\xed\xa0\x80"}', "invalid_utf8", None, "byte 13 of the record (0xed)"),
        (b'{"prompt": "\\ud800"}', "lone_surrogate", None, "(column 13)"),
        (b'{"prompt": "\\udc00"}', "lone_surrogate", None, "half of a surrogate pair"),
        (b'{"prompt": "\\ud800\\ud800"}', "lone_surrogate", None, "half of a surrogate pair"),
        (b'{"prompt": "\\ud800x"}', "lone_surrogate", None, "half of a surrogate pair"),
        (b'{"prompt": "a", "\\udfff": 1}', "lone_surrogate", None, "half of a surrogate pair"),
        (b'{"prompt": "a", "x": [{"y": "\\ud800"}]}', "lone_surrogate", None, "(column 30)"),
        (b'{"prompt": "a", "x": ' + b"[" * 200 + b"]" * 200 + b"}", "too_deep", None, "200 levels"),
        (b'{"prompt": "a", "x": ' + b"[" * 2000, "invalid_json", None, "depth limit exceeded"),
        (b"{}", "missing_field", "/prompt", 'no field "prompt"; its fields are: none'),
        (b'{"b": 1, "a": 2}', "missing_field", "/prompt", '"prompt"; its fields are: b, a'),
        (b'{"prompt": null}', "missing_field", "/prompt", 'the field "prompt" is null'),
        (b'{"prompt": 1}', "wrong_type", "/prompt", '"prompt" must be a string, not the number 1'),
        (b'{"prompt": true}', "wrong_type", "/prompt", '"prompt" must be a string, not a boolean'),
        (b'{"prompt": ["a"]}', "wrong_type", "/prompt", '"prompt" must be a string, not an array'),
        (b'{"prompt": {}}', "wrong_type", "/prompt", '"prompt" must be a string, not an object'),
        (b'{"prompt": ""}', "empty_prompt", "/prompt", 'the field "prompt" is empty'),
        (b'{"prompt": "a", "custom_id": true}', "wrong_type", "/custom_id", "not a boolean"),
        (b'{"prompt": "a", "custom_id": 1.0}', "wrong_type", "/custom_id", "not the number 1.0"),
        (b'{"prompt": "a", "custom_id": []}', "wrong_type", "/custom_id", "not an array"),
        (b'{"prompt": "a", "custom_id": 18446744073709551616}', "wrong_type", "/custom_id",
         "must be a string or a 64-bit integer"),
        (b'{"prompt": "a", "custom_id": "' + b"x" * 513 + b'"}', "custom_id_too_long",
         "/custom_id", "513 characters, 512 are allowed"),
        (b'{"prompt": "a", "params": []}', "wrong_type", "/params", "not an array"),
        (b'{"prompt": "a", "params": "{}"}', "wrong_type", "/params", "not a string"),
        (b'{"prompt": "a", "params": 0}', "wrong_type", "/params", "not the number 0"),
    ],
)  # fmt: skip
def test_a_jsonl_record_is_invalid_and_says_why(
    tmp_path: Path, content: bytes, code: str, pointer: str | None, message: str
) -> None:
    record = only(reader(tmp_path, content))

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == (code, pointer)
    assert message in record.message


@pytest.mark.parametrize(
    ("row", "code", "pointer", "message"),
    [
        (b"", "empty_line", None, "the line is empty"),
        (b"a,b,{},d", "too_many_cells", None, "the record has 4 cells, the header 3"),
        (b",b", "empty_prompt", "/prompt", 'the field "prompt" is empty'),
        (b'""', "empty_prompt", "/prompt", 'the field "prompt" is empty'),
        (b"a,b,[]", "wrong_type", "/params", "not an array"),
        (b"a,b,{", "invalid_json", "/params", "params: the JSON cannot be read"),
        (b'a,b,"{""x"": ""\\ud800""}"', "lone_surrogate", "/params", "half of a surrogate pair"),
        (b"a," + b"x" * 513, "custom_id_too_long", "/custom_id", "513 characters"),
        (b"\xff,b", "invalid_utf8", None, "byte 1 of the record (0xff) is not UTF-8"),
        (b'"a"x,b', "invalid_csv", None, "text behind a cell's closing quote"),
        (b'"a', "invalid_csv", None, "a quoted cell is not closed"),
        (b"a\rb,c", "invalid_csv", None, "a lone carriage return outside quotes"),
    ],
)
def test_a_csv_record_is_invalid_and_says_why(
    tmp_path: Path, row: bytes, code: str, pointer: str | None, message: str
) -> None:
    content = b"prompt,custom_id,params\n" + row + b"\n"

    record = only(reader(tmp_path, content, Format.CSV))

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == (code, pointer)
    assert message in record.message


def test_a_csv_record_may_lack_the_cell_of_the_prompt(tmp_path: Path) -> None:
    assert only(reader(tmp_path, b"x,prompt\na\n", Format.CSV)) == Invalid(
        line=2,
        offset=9,
        length=1,
        input={"x": "a"},
        custom_id=None,
        code="missing_field",
        message='the record has no field "prompt"; its fields are: x',
        pointer="/prompt",
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"\n", "empty_line"), (b"  \r\n", "empty_line"), (b"a\xc3\n", "invalid_utf8")],
)
def test_a_text_line_is_invalid(tmp_path: Path, content: bytes, code: str) -> None:
    record = only(reader(tmp_path, content, Format.TEXT))

    assert isinstance(record, Invalid)
    assert record.code == code


@pytest.mark.parametrize(
    ("template", "record", "code", "pointer", "message"),
    [
        ("{a} {b}", b'{"a": 1}', "missing_field", "/b", 'no field "b"; its fields are: a'),
        ("{a}", b'{"a": null}', "missing_field", "/a", 'the field "a" is null'),
        ("{x/y~z}", b"{}", "missing_field", "/x~1y~0z", 'no field "x/y~z"'),
        ("{a}", b'{"a": ""}', "empty_prompt", None, "the template gives an empty prompt"),
    ],
)
def test_a_template_that_cannot_be_filled_makes_an_invalid_record(
    tmp_path: Path, template: str, record: bytes, code: str, pointer: str | None, message: str
) -> None:
    found = only(reader(tmp_path, record, template=template))

    assert isinstance(found, Invalid)
    assert (found.code, found.pointer) == (code, pointer)
    assert message in found.message


@pytest.mark.parametrize(
    ("format", "content", "input", "custom_id"),
    [
        (Format.JSONL, b'{"custom_id": 5, "x": 1}', {"custom_id": 5, "x": 1}, "5"),
        (Format.JSONL, b'{"custom_id": "a", "params": 1}', {"custom_id": "a", "params": 1}, "a"),
        (Format.JSONL, b'{"custom_id": [1]}', {"custom_id": [1]}, None),
        (Format.JSONL, b"[1]", [1], None),
        (Format.JSONL, b"  ", "  ", None),
        (Format.JSONL, b"{" + "é".encode() * 3_000, "{" + "é" * 999, None),
        (Format.JSONL, b"{\xff", "{\ufffd", None),
        (Format.TEXT, b"ab\xff", "ab\ufffd", None),
        (Format.CSV, b"prompt,custom_id\na,7,c", {"prompt": "a", "custom_id": "7"}, "7"),
        (Format.CSV, b'prompt,custom_id\n"a"b,7', '"a"b,7', None),
    ],
)
def test_an_invalid_record_keeps_what_could_be_read_of_it(
    tmp_path: Path, format: Format, content: bytes, input: Any, custom_id: str | None
) -> None:
    record = only(reader(tmp_path, content, format))

    assert isinstance(record, Invalid)
    assert (record.input, record.custom_id) == (input, custom_id)


def test_a_message_lists_no_more_names_than_one_can_read(tmp_path: Path) -> None:
    names = ",".join(f'"{number:03}": 1' for number in range(50))
    record = only(reader(tmp_path, f'{{"{"x" * 90}": 1, {names}}}'.encode()))

    assert isinstance(record, Invalid)
    assert f"its fields are: {'x' * 80}…, 000, 001," in record.message
    assert record.message.endswith("017, 018, and 31 more")


# Long records


@pytest.mark.parametrize(
    ("format", "header", "ending"),
    [
        (Format.TEXT, b"", b"\n"),
        (Format.TEXT, b"", b"\r\n"),
        (Format.TEXT, b"", b""),
        (Format.CSV, b"prompt\n", b"\r\n"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 3, 7, 65_536])
def test_a_record_may_have_just_so_many_bytes_without_its_ending(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunk_bytes: int,
    format: Format,
    header: bytes,
    ending: bytes,
) -> None:
    monkeypatch.setattr(spans, "MAX_RECORD_BYTES", 10)
    monkeypatch.setattr(spans, "_CHUNK_BYTES", chunk_bytes)

    assert codes(reader(tmp_path, header + b"x" * 10 + ending, format))[0][1] == "x" * 10
    assert codes(reader(tmp_path, header + b"x" * 11 + ending, format))[0][1] == "too_long"


def test_after_a_record_that_is_too_long_the_next_one_is_read(tmp_path: Path) -> None:
    content = b"a\n" + b"x" * 4_194_305 + b"\nb\n"
    found = reader(tmp_path, content, Format.TEXT)

    first, long, last = found.read()

    assert isinstance(first, Record)
    assert long == Invalid(
        line=2,
        offset=2,
        length=4_194_305,
        input="x" * 1_000,
        custom_id=None,
        code="too_long",
        message="the record has 4,194,305 bytes, 4,194,304 are allowed",
        pointer=None,
    )
    assert last == Record(3, 4_194_308, 1, "b", "b", None, {})
    assert found.at(2, 2, 4_194_305) == long


def test_a_long_csv_record_ends_where_its_quotes_end(tmp_path: Path) -> None:
    content = b'prompt\n"' + b"x\n" * 2_200_000 + b'"\nb\n'

    found = codes(reader(tmp_path, content, Format.CSV))

    assert found == [(2, "too_long"), (2_200_003, "b")]


def test_a_quote_left_open_takes_the_rest_of_the_file_and_says_so(tmp_path: Path) -> None:
    content = b'prompt\na\n"b\n' + b"c\n" * 2_200_000

    first, rest = reader(tmp_path, content, Format.CSV).read()

    assert isinstance(first, Record)
    assert isinstance(rest, Invalid)
    assert (rest.line, rest.code) == (3, "too_long")
    assert "is a quote left open in it?" in rest.message


@pytest.mark.parametrize(
    ("format", "beginning", "piece"),
    [
        (Format.JSONL, b'{"prompt": "', b"x" * 1_000_000),
        (Format.TEXT, b"", b"x\r" * 500_000),
        (Format.CSV, b'prompt\n"', b"x" * 1_000_000),
        (Format.CSV, b'prompt\n"', (b"x" * 999 + b"\n") * 1_000),
        (Format.CSV, b'prompt\n"', (b"x" * 998 + b'""') * 1_000),
    ],
)
def test_a_record_without_end_is_never_in_memory_as_a_whole(
    tmp_path: Path, format: Format, beginning: bytes, piece: bytes
) -> None:
    path = tmp_path / "input"
    with path.open("wb") as file:
        file.write(beginning)
        for _ in range(32):
            file.write(piece)

    tracemalloc.start()
    count = survey(path, format).records
    read = sum(1 for _ in Reader(path, format, field="prompt", template=None).read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (read, count) == (1, 1)
    assert peak < 16 * 1024 * 1024


# The same record again


def test_a_record_is_found_again_by_its_position(tmp_path: Path) -> None:
    content = BOM + b'a,prompt\r\n1,"x\ny"\r\n\r\n2\r\n3,z,4\r\n5,w'
    found = reader(tmp_path, content, Format.CSV)

    for record in list(found.read()):
        assert found.at(record.line, record.offset, record.length) == record


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    found = reader(tmp_path, b"a\nb\n", Format.TEXT)
    (tmp_path / "input").write_bytes(b"a\n")

    with pytest.raises(BadInput, match="has become shorter while it was in use"):
        found.at(2, 2, 1)


# Files of no use


@pytest.mark.parametrize(
    ("format", "content", "template", "complaint"),
    [
        (Format.JSONL, b'{"question": "a", "answer": "b"}\n' * 2, None,
         'no field "prompt" (its records have: answer, question). Name the field with --template, '
         "for example --template '{question}'."),
        (Format.JSONL, b'{"custom_id": 1, "body": "b", "it\'s": 1}', None,
         "for example --template '{body}'."),
        (Format.JSONL, b'{"Text": "a"}', "{text}",
         'no field "text" (its records have: Text). The template can name only fields'),
        (Format.JSONL, b"{}\n", None, 'no field "prompt" (its records have: none).'),
        (Format.JSONL, b'{"a": 1}\n{"b": 2}', "{a}{b}",
         "none of the first 2 records has all fields of the template: a, b"),
        (Format.JSONL, b"x\n\n" + b'{"a": 1}\n' * 100 + b'{"prompt": "p"}', None,
         'no field "prompt" (its records have: a)'),
        (Format.TEXT, b"hello", "{question}",
         'no field "question" (its records have: prompt, text)'),
        (Format.CSV, b"question,answer\n", "{question}", "has a header and no records"),
        (Format.CSV, b"question,answer\na,b\n", None,
         'no field "prompt" (its records have: answer, question). Name the field with --template, '
         "for example --template '{question}'."),
        (Format.CSV, b"\na,b\n", None, "no header: its first line must name the columns"),
        (Format.CSV, b"a,prompt,a\n1,2,3\n", None, 'more than one column of the same name: "a"'),
        (Format.CSV, b"prompt,,\n1,2,3\n", None, 'more than one column of the same name: ""'),
        (Format.CSV, b"prompt\xff\n1\n", None, "no header that can be read: byte 7"),
        (Format.CSV, b"prompt\ra\rb\r", None, "no header that can be read: there is a lone carri"),
        (Format.CSV, b'"prompt\na\n', None, "no header that can be read: a quoted cell is not cl"),
        (Format.CSV, b"a" * 4_194_305, None, "no header that can be read: it is too long"),
        (Format.JSONL, b"", None, "is empty: it has no records"),
        (Format.TEXT, BOM, None, "is empty: it has no records"),
        (Format.CSV, b"", None, "is empty: it has no records"),
    ],
)  # fmt: skip
def test_a_file_of_no_use_is_refused_before_anything_is_sent(
    tmp_path: Path, format: Format, content: bytes, template: str | None, complaint: str
) -> None:
    found = reader(tmp_path, content, format, template=template)

    with pytest.raises(BadInput) as refused:
        found.check()

    assert str(tmp_path / "input") in str(refused.value)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("format", "content", "template"),
    [
        (Format.JSONL, b'{"a": 1}\n' * 99 + b'{"prompt": "p"}', None),
        (Format.JSONL, b"x\n" * 500 + b'{"prompt": "p"}', None),
        (Format.JSONL, b'{"a": 1}\n{"a": 1, "b": 2}', "{a}{b}"),
        (Format.JSONL, b'{"prompt": null}', None),  # it has the field: told under its line
        (Format.JSONL, b"x\n", None),  # nothing can be said about fields
        (Format.TEXT, b"a", None),
        (Format.CSV, b"prompt\n\n", None),
        (Format.CSV, b",prompt\n0,a\n", None),
        (Format.CSV, b"q,n\na\n", "{q}{n}"),
    ],
)
def test_a_file_of_which_something_can_be_sent_passes(
    tmp_path: Path, format: Format, content: bytes, template: str | None
) -> None:
    reader(tmp_path, content, format, template=template).check()


@pytest.mark.parametrize("format", list(Format))
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, format: Format) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"a")
    cases = {
        tmp_path: "is a directory, not a file",
        tmp_path / "none": "there is no file",
        tmp_path / "pipe": "is no regular file",
        tmp_path / "file" / "below": "cannot be read: Not a directory",
    }
    for path, complaint in cases.items():
        found = Reader(path, format, field="prompt", template=None)
        for attempt in (
            found.check,
            lambda found=found: next(found.read()),
            lambda found=found: found.at(1, 0, 1),
            lambda path=path: survey(path, format),
            lambda path=path: detect(path, "auto"),
        ):
            with pytest.raises(BadInput, match=complaint):
                attempt()
