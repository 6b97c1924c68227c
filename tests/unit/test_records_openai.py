"""OpenAI batch lines: what is taken for one, what comes of it, and what is wrong with one."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from millpond.producer.records import BadInput, Format, Invalid, Reader, Record, detect
from millpond.producer.template import Template

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"

HELLO: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": CHAT,
    "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
}
ONE_TEXT: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": EMBEDDINGS,
    "body": {"model": "e", "input": "hi"},
}


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "input.jsonl"
    path.write_bytes(
        b"".join((one if isinstance(one, bytes) else orjson.dumps(one)) + b"\n" for one in lines)
    )
    return path


def only(folder: Path, line: Any, url: str | None = None) -> Record | Invalid:
    reader = Reader(write(folder, line), Format.OPENAI, field="prompt", template=None, url=url)
    (record,) = reader.read()
    assert reader.at(record.line, record.offset, record.length) == record
    return record


def chat(*messages: Any) -> dict[str, Any]:
    return {**HELLO, "body": {"messages": list(messages)}}


# What is taken for one


@pytest.mark.parametrize(
    ("lines", "format"),
    [
        ([HELLO], Format.OPENAI),
        ([b"", b"{", HELLO], Format.OPENAI),
        ([{"prompt": "a"}, HELLO, HELLO], Format.OPENAI),  # most are
        ([{"prompt": "a"}, HELLO], Format.JSONL),
        ([b""] * 10_000 + [HELLO], Format.JSONL),  # nor are they looked for without end
        ([HELLO] * 51 + [{"prompt": "a"}] * 500, Format.OPENAI),  # only so many are looked at
        ([{**HELLO, "more": 1}], Format.OPENAI),
        ([{**HELLO, "body": None}], Format.OPENAI),
        ([{"custom_id": "a", "method": "POST", "url": CHAT}], Format.JSONL),
        ([{"prompt": "a"}], Format.JSONL),
        ([b"{"], Format.JSONL),
        ([], Format.JSONL),
        ([{"line": 3, "custom_id": "a", "endpoint": "generate", "status": "failed", "error": {},
           "attempts": 5, "input": HELLO}], Format.OPENAI),
    ],
)  # fmt: skip
def test_a_file_of_batch_lines_is_known_by_its_first_records(
    tmp_path: Path, lines: list[Any], format: Format
) -> None:
    path = write(tmp_path, *lines)

    assert detect(path, "auto") is format
    assert detect(path, "jsonl") is Format.JSONL
    assert detect(path, "openai") is Format.OPENAI


# What comes of it


def test_a_chat_line_is_its_body_and_the_text_in_it(tmp_path: Path) -> None:
    line: dict[str, Any] = {
        "custom_id": "007",
        "method": "POST",
        "url": CHAT,
        "body": {
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "hi"},
            ],
            "temperature": 0.5,
        },
    }

    assert only(tmp_path, line, CHAT) == Record(
        line=1,
        offset=0,
        length=174,
        input=line,
        prompt="be brief\nhi",
        custom_id="007",
        params={},
        body=line["body"],
    )


def test_an_embeddings_line_is_its_body_and_its_input(tmp_path: Path) -> None:
    assert only(tmp_path, ONE_TEXT, EMBEDDINGS) == Record(
        line=1,
        offset=0,
        length=90,
        input=ONE_TEXT,
        prompt="hi",
        custom_id="a",
        params={},
        body={"model": "e", "input": "hi"},
    )


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([{"role": "user", "content": ""}], ""),
        ([{"role": "user", "content": "a"}, {"role": "x", "content": "b", "name": 1}], "a\nb"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "a"),
        ([{"role": "user", "content": [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "data:"}},
            {"type": "text", "text": "b"},
        ]}, {"role": "user", "content": "c"}], "ab\nc"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], ""),
        ([{"role": "assistant", "content": None, "tool_calls": [{}]},
          {"role": "tool", "content": "4"}], "\n4"),
    ],
)  # fmt: skip
def test_the_text_of_a_chat_is_that_of_all_its_messages(
    tmp_path: Path, messages: list[Any], prompt: str
) -> None:
    record = only(tmp_path, chat(*messages))

    assert isinstance(record, Record)
    assert record.prompt == prompt


def test_a_field_that_is_not_of_a_batch_line_changes_nothing(tmp_path: Path) -> None:
    record = only(tmp_path, {**HELLO, "prompt": 1, "params": {"n": 1}})

    assert isinstance(record, Record)
    assert (record.prompt, record.params) == ("hi", {})


@pytest.mark.parametrize("model", [None, "m"])
def test_a_line_need_not_name_a_model(tmp_path: Path, model: str | None) -> None:
    body = {**HELLO["body"], "model": model, "stream": False}

    assert isinstance(only(tmp_path, {**HELLO, "body": body}), Record)


@pytest.mark.parametrize(("line", "prompt"), [(HELLO, "hi"), (ONE_TEXT, "hi")])
def test_without_an_endpoint_a_line_is_what_its_own_url_says(
    tmp_path: Path, line: Any, prompt: str
) -> None:
    record = only(tmp_path, line)

    assert isinstance(record, Record)
    assert record.prompt == prompt


def test_the_models_are_those_that_the_first_lines_name(tmp_path: Path) -> None:
    def naming(model: Any) -> dict[str, Any]:
        return {**HELLO, "body": {"model": model}}

    lines = [b"{", naming("a"), naming("b"), naming("a"), naming(None), naming(7), {"body": 1}]
    lines += [HELLO] * 94 + [naming("z")]
    path = write(tmp_path, *lines)

    def models(format: Format) -> set[str]:
        return Reader(path, format, field="prompt", template=None).models()

    assert models(Format.OPENAI) == {"a", "b", "m"}
    assert models(Format.JSONL) == set()
    assert models(Format.TEXT) == set()


# What is wrong with one


@pytest.mark.parametrize(
    ("change", "code", "pointer", "message"),
    [
        ({"custom_id": None}, "missing_field", "/custom_id", 'the field "custom_id" is null'),
        ({"custom_id": 7}, "wrong_type", "/custom_id", "must be a string, not the number 7"),
        ({"custom_id": ""}, "missing_field", "/custom_id", "custom_id is empty"),
        ({"custom_id": "x" * 513}, "custom_id_too_long", "/custom_id", "512 are allowed"),
        ({"method": None}, "missing_field", "/method", 'the field "method" is null'),
        ({"method": "GET"}, "wrong_method", "/method", "method must be POST, not GET"),
        ({"method": "post"}, "wrong_method", "/method", "method must be POST, not post"),
        ({"method": 1}, "wrong_type", "/method", "method must be a string, not the number 1"),
        ({"url": None}, "missing_field", "/url", 'the field "url" is null'),
        ({"url": []}, "wrong_type", "/url", "url must be a string, not an array"),
        ({"url": EMBEDDINGS}, "url_mismatch", "/url",
         "the line's url is /v1/embeddings, and this run is for /v1/chat/completions"),
        ({"url": "x" * 100}, "url_mismatch", "/url", f"the line's url is {'x' * 80}…, and"),
        ({"body": None}, "missing_field", "/body", 'the field "body" is null'),
        ({"body": []}, "wrong_type", "/body", "body must be an object, not an array"),
    ],
)  # fmt: skip
def test_what_is_around_the_body_is_wrong_and_it_says_why(
    tmp_path: Path, change: dict[str, Any], code: str, pointer: str, message: str
) -> None:
    record = only(tmp_path, {**HELLO, **change}, CHAT)

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == (code, pointer)
    assert message in record.message
    assert record.input == {**HELLO, **change}


@pytest.mark.parametrize("name", ["custom_id", "method", "url", "body"])
def test_a_line_needs_each_of_its_four_fields(tmp_path: Path, name: str) -> None:
    line = {key: value for key, value in HELLO.items() if key != name}

    record = only(tmp_path, line)

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == ("missing_field", f"/{name}")
    assert record.message.startswith(f'the record has no field "{name}"; its fields are: ')
    assert record.custom_id == (None if name == "custom_id" else "a")


def test_without_an_endpoint_another_url_is_still_refused(tmp_path: Path) -> None:
    record = only(tmp_path, {**HELLO, "url": "/v1/responses"})

    assert isinstance(record, Invalid)
    assert record.message == (
        "the line's url is /v1/responses, and this run is for "
        "/v1/chat/completions or /v1/embeddings"
    )


@pytest.mark.parametrize(
    ("body", "code", "pointer", "message"),
    [
        ({}, "missing_field", "/messages", "the body has no messages"),
        ({"messages": None}, "missing_field", "/messages", "the body has no messages"),
        ({"messages": []}, "empty_prompt", "/messages", "messages is empty"),
        ({"messages": "hi"}, "wrong_type", "/messages", "must be a list, not a string"),
        ({"messages": ["hi"]}, "wrong_type", "/messages/0", "must be an object, not a string"),
        ({"messages": [{"content": "a"}]}, "missing_field", "/messages/0/role",
         "the message has no role"),
        ({"messages": [{"role": 1, "content": "a"}]}, "wrong_type", "/messages/0/role",
         "role must be a string, not the number 1"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user"}]}, "missing_field",
         "/messages/1/content", "the message has no content"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, "missing_field",
         "/messages/0/content", "the message has no content"),
        ({"messages": [{"role": "user", "content": {}}]}, "wrong_type", "/messages/0/content",
         "content must be a string or a list of parts, not an object"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}, "b"]}]}, "wrong_type",
         "/messages/0/content/1", "a part of content must be an object, not a string"),
        ({"messages": [{"role": "user", "content": [{"text": None}]}]}, "wrong_type",
         "/messages/0/content/0/text", "text must be a string, not null"),
        ({"model": 1}, "wrong_type", "/model", "model must be a string, not the number 1"),
        ({"stream": True}, "stream_not_supported", "/stream", "stream must not be true"),
    ],
)  # fmt: skip
def test_the_body_of_a_chat_is_wrong_and_it_says_where(
    tmp_path: Path, body: dict[str, Any], code: str, pointer: str, message: str
) -> None:
    record = only(tmp_path, {**HELLO, "body": body}, CHAT)

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == (code, f"/body{pointer}")
    assert message in record.message
    assert record.custom_id == "a"


@pytest.mark.parametrize(
    ("body", "code", "pointer", "message"),
    [
        ({}, "missing_field", "/body/input", "the body has no input"),
        ({"input": ""}, "empty_prompt", "/body/input", "input is empty"),
        ({"input": ["a"]}, "wrong_type", "/body/input", "write one text a line"),
        ({"input": 1}, "wrong_type", "/body/input", "must be a string, not the number 1"),
        ({"input": "a", "stream": True}, "stream_not_supported", "/body/stream", "must not be"),
    ],
)
def test_the_body_of_an_embedding_is_wrong_and_it_says_where(
    tmp_path: Path, body: dict[str, Any], code: str, pointer: str, message: str
) -> None:
    record = only(tmp_path, {**ONE_TEXT, "body": body}, EMBEDDINGS)

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == (code, pointer)
    assert message in record.message


@pytest.mark.parametrize(
    ("line", "code"), [(b"", "empty_line"), (b"{", "invalid_json"), (b"[]", "not_an_object")]
)
def test_a_line_that_cannot_be_read_is_told_as_in_any_jsonl(
    tmp_path: Path, line: bytes, code: str
) -> None:
    record = only(tmp_path, line)

    assert isinstance(record, Invalid)
    assert (record.code, record.pointer) == (code, None)


# Files of no use


@pytest.mark.parametrize(
    ("lines", "template", "complaint"),
    [
        ([HELLO], "{body}", "leave out --template, or read them as plain records with --format js"),
        ([ONE_TEXT], None, "asks /v1/embeddings, and this run is for /v1/chat/completions: "
         "choose the endpoint that fits with --endpoint"),
        ([{"prompt": "a"}], None, 'no field "custom_id" (its records have: prompt). '
         "An OpenAI batch line has: custom_id, method, url, body."),
        ([{"custom_id": "a", "method": "POST"}, {"url": CHAT, "body": {}}], None,
         "none of the first 2 records has all fields of an OpenAI batch line: custom_id, method"),
        ([], None, "is empty: it has no records"),
    ],
)  # fmt: skip
def test_a_file_of_which_no_line_can_be_asked_is_refused(
    tmp_path: Path, lines: list[Any], template: str | None, complaint: str
) -> None:
    reader = Reader(
        write(tmp_path, *lines),
        Format.OPENAI,
        field="prompt",
        template=Template(template) if template else None,
        url=CHAT,
    )

    with pytest.raises(BadInput) as refused:
        reader.check()

    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "url"), [([ONE_TEXT, HELLO], CHAT), ([ONE_TEXT], None), ([b"{"], CHAT)]
)
def test_a_file_of_which_a_line_may_be_asked_passes(
    tmp_path: Path, lines: list[Any], url: str | None
) -> None:
    Reader(write(tmp_path, *lines), Format.OPENAI, field="x", template=None, url=url).check()
