import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.producer.records import BadInput, Format, Reader
from millpond.producer.table import Table, lines_of, whole_length

ANSWER: dict[str, Any] = {
    "line": 7,
    "custom_id": "a7",
    "endpoint": "generate",
    "status": "succeeded",
    "text": "4",
    "model": "command",
    "characters": {"input": 42, "output": 1},
    "finish_reason": "COMPLETE",
    "attempts": 2,
    "simulated": True,
}


@pytest.mark.parametrize(
    ("endpoint", "columns", "head"),
    [
        ("generate", [], b"line,status,text,model,input_characters,output_characters,attempts\n"),
        ("generate", ["custom_id", "prompt"],
         b"line,custom_id,prompt,status,text,model,input_characters,output_characters,attempts\n"),
        ("embed", ["text"],
         b"line,text,status,embedding,model,input_characters,output_characters,attempts\n"),
        ("classify", ["text"],
         b"line,text,status,label,confidence,model,input_characters,output_characters,attempts\n"),
        ("generate", ["text", "line", "model", "label"],
         b"answer_line,text,line,model,label,status,answer_text,answer_model,input_characters,"
         b"output_characters,attempts\n"),
        ("generate", ["status", "answer_status", 'a "b", c', ""],
         b'line,status,answer_status,"a ""b"", c",,answer_answer_status,text,model,'
         b"input_characters,output_characters,attempts\n"),
    ],
)  # fmt: skip
def test_the_head_is_the_line_the_columns_of_the_input_and_those_of_the_answer(
    endpoint: str, columns: list[str], head: bytes
) -> None:
    assert Table(columns, endpoint=endpoint).head() == head


@pytest.mark.parametrize(
    ("endpoint", "input", "change", "row"),
    [
        ("generate", {"a": "x", "text": "2+2"}, {}, b"7,x,2+2,succeeded,4,command,42,1,2\n"),
        ("generate", {"text": "2+2"}, {}, b"7,,2+2,succeeded,4,command,42,1,2\n"),
        ("generate", {"a": None, "more": 1}, {}, b"7,,,succeeded,4,command,42,1,2\n"),
        ("generate", {"a": 1, "text": ["ä", {"b": None}]}, {},
         '7,1,"[""ä"",{""b"":null}]",succeeded,4,command,42,1,2\n'.encode()),
        ("generate", {}, {"text": 'say "hi",\r\nnow'},
         b'7,,,succeeded,"say ""hi"",\r\nnow",command,42,1,2\n'),
        ("generate", {"a": "\r", "text": "\n"}, {}, b'7,"\r","\n",succeeded,4,command,42,1,2\n'),
        ("generate", {"a": "=1", "text": "+1"}, {"text": "-1", "model": "@m"},
         b"7,=1,+1,succeeded,-1,@m,42,1,2\n"),
        ("generate", {"a": " x ", "text": "\0\ufeff"}, {},
         "7, x ,\0\ufeff,succeeded,4,command,42,1,2\n".encode()),
        ("generate", {}, {"characters": None, "model": None}, b"7,,,succeeded,4,,,,2\n"),
        ("embed", {}, {"embedding": [0.5, -1]}, b'7,,,succeeded,"[0.5,-1]",command,42,1,2\n'),
        ("classify", {}, {"label": "spam", "confidence": 0.875, "confidences": {}},
         b"7,,,succeeded,spam,0.875,command,42,1,2\n"),
        ("classify", {}, {"label": "spam", "confidence": None},
         b"7,,,succeeded,spam,,command,42,1,2\n"),
    ],
)  # fmt: skip
def test_a_row_is_the_input_and_then_the_answer(
    endpoint: str, input: dict[str, Any], change: dict[str, Any], row: bytes
) -> None:
    table = Table(["a", "text"], endpoint=endpoint)

    assert table.row(input, {**ANSWER, **change}) == row


WORDS = st.text(alphabet='ab ,"\n\r\0é=', max_size=8)
ROWS = st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=6)


def table_of(rows: list[tuple[str, str, str]]) -> list[bytes]:
    """Its head and its rows; a row's line is its number, from 1."""
    table = Table(["a", "b"], endpoint="generate")
    return [
        table.head(),
        *(
            table.row({"a": a, "b": b}, {**ANSWER, "line": number, "text": text})
            for number, (a, b, text) in enumerate(rows, start=1)
        ),
    ]


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "table.csv"
    written = b"".join(table_of(rows))
    path.write_bytes(written)

    by_csv = list(csv.reader(io.StringIO(written.decode(), newline=""), strict=True))
    by_us = list(Reader(path, Format.CSV, field="a", template=None).read())

    assert [tuple(row[at] for at in (1, 2, 4)) for row in by_csv[1:]] == rows
    assert [tuple(one.input[name] for name in ("a", "b", "text")) for one in by_us] == rows
    assert list(lines_of(path)) == list(range(1, len(rows) + 1))


@given(ROWS, st.data())
@settings(max_examples=300, deadline=None)
def test_cut_off_anywhere_the_rows_before_are_known(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / "table.csv"
    pieces = table_of(rows)
    cut = data.draw(st.integers(0, sum(map(len, pieces))))
    path.write_bytes(b"".join(pieces)[:cut])

    ends = [sum(map(len, pieces[: count + 1])) for count in range(len(pieces))]
    whole = [end for end in ends if end <= cut]

    assert whole_length(path) == max(whole, default=0)
    assert list(lines_of(path)) == list(range(1, len(whole)))


@pytest.mark.parametrize(
    ("content", "length", "lines"),
    [
        (b"", 0, []),
        (b"line,a", 0, []),
        (b"line,a\n", 7, []),
        (b"line,a\n1,x\n2", 11, [1]),
        (b"line,a\n1,x\n23,y", 11, [1]),
        (b'line,a\n1,"x\n2,y\n', 7, []),  # the line end is in the cell
        (b'line,a\n1,"x\n2,y"\n', 17, [1]),
        (b'line,a\n1,"x""\n', 7, []),
        (b'line,a\n1,"x"\n', 13, [1]),
        (b'"line","a\n"\n12,\n', 16, [12]),
        (b"line,a\n3," + b"x" * 200_000 + b'\n4,"' + b"y\n" * 100_000 + b'"\n5,', 400_015, [3, 4]),
    ],
)
def test_a_whole_row_ends_with_a_line_end_outside_quotes(
    tmp_path: Path, content: bytes, length: int, lines: list[int]
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)

    assert whole_length(path) == length
    assert list(lines_of(path)) == lines


@pytest.mark.parametrize("row", [b"x,y\n", b",y\n", b"\n", b"-1,y\n"])
def test_another_table_is_refused(tmp_path: Path, row: bytes) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"line,a\n" + row)

    with pytest.raises(BadInput, match="is no table of answers: a row begins with"):
        list(lines_of(path))


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for ask in (whole_length, lambda path: list(lines_of(path))):
        with pytest.raises(BadInput, match="there is no file"):
            ask(tmp_path / "none.csv")
