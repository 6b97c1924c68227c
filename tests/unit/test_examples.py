from pathlib import Path

import pytest

from millpond.domain.request import Example
from millpond.producer.examples import read_examples
from millpond.producer.records import BadInput

FOUR = (Example("a", "x"), Example("b", "x"), Example("c", "y"), Example("d", "y"))


def write(folder: Path, content: bytes, name: str = "examples.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", b"text,label\na,x\nb,x\nc,y\nd,y\n"),
        ("e.csv", b'\xef\xbb\xbflabel,n,text\r\nx,1,a\r\nx,2,"b"\r\n\r\ny,3,c\r\ny,4,d'),
        ("e.csv", b"text,category\na,x\nb,x\nc,y\nd,y\n"),
        ("e.csv", b"text,label,category\na,x,1\nb,x,1\nc,y,1\nd,y,1\n"),
        ("e.txt", b"text,label\na,x\nb,x\nc,y\nd,y\n"),
        ("e", b"text,label\na,x\nb,x\nc,y\nd,y\n"),
        ("e.jsonl", b'{"text":"a","label":"x"}\n{"text":"b","label":"x","category":"z"}\n\n'
         b'{"text":"c","label":"y"}\n{"text":"d","category":"y"}\n'),
        ("e", b'{"text":"a","label":"x"}\n{"text":"b","label":"x"}\n{"text":"c","label":"y"}\n'
         b'{"text":"d","label":"y","custom_id":1,"params":2}'),
    ],
)  # fmt: skip
def test_examples_are_texts_with_labels(tmp_path: Path, name: str, content: bytes) -> None:
    assert read_examples(write(tmp_path, content, name)) == FOUR


def test_words_are_taken_as_they_are(tmp_path: Path) -> None:
    content = b'text,label\n" a,\n",x \nb,x \nc,y\nd,y\n'

    assert read_examples(write(tmp_path, content))[0] == Example(" a,\n", "x ")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no examples: give each a text and a label"),
        (b"text,label\n\n", "has no examples: give each a text and a label"),
        (b"\na,x\n", "no header: its first line must name the columns"),
        (b"text,kind\na,x\n", 'line 2: the example has no "label"; it has: text, kind. An exa'),
        (b"question,label\na,x\n", 'line 2: the example has no "text"; it has: question, label'),
        (b"text,label\na,x\nb\n", 'line 3: the example has no "label"; it has: text'),
        (b'text,label\n"a\n",x\n,x\n', 'line 4: "text" is empty: fill it in, or remove'),
        (b"text,label\na,\n", 'line 2: "label" is empty: fill it in, or remove the example'),
        (b"text,label\na, \n", 'line 2: "label" is empty: fill it in, or remove the example'),
        (b"text,label\na,x,y\n", "line 2: the record has 3 cells, the header 2: mend or remove it"),
        (b"text,label\na\xff,x\n", "line 2: byte 2 of the record (0xff) is not UTF-8: mend"),
        (b"text,label\na,x\nb,x\nc,x\n", "line 2 and on: all examples have the label x; at least"),
        (b"text,label\na,x\nb,y\nc,x\nd,z\n",
         "line 3: at least 2 examples of each label are needed, and there is only one of: y, z. "
         "Add another, or leave it out"),
        (b"text,label\na,x\nb,y\n", "there is only one of: x, y"),
        (b"text,label\n" + b"a,x\n" * 2_500 + b"a,y\n",
         "line 2502: there are more than 2,500 examples, which is the most"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_file_and_line_and_what_to_do(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = write(tmp_path, content)

    with pytest.raises(BadInput) as refused:
        read_examples(path)

    assert str(path) in str(refused.value)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "line 1: the JSON cannot be read"),
        (b"[]", "line 1: the line must be a JSON object, not an array: mend or remove it"),
        (b'{"text":"a","label":1}', 'line 1: "label" must be a string, not the number 1: quote it'),
        (b'{"text":["a"],"label":"x"}', 'line 1: "text" must be a string, not an array'),
        (b'{"text":"a","label":null,"category":"x"}', 'line 1: "label" is empty'),
        (b'{"text":"a"}', 'line 1: the example has no "label"; it has: text'),
    ],
)
def test_a_mistake_in_jsonl_is_told_too(tmp_path: Path, line: bytes, complaint: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_examples(write(tmp_path, line, "e.jsonl"))

    assert complaint in str(refused.value)


def test_as_many_as_are_allowed_are_taken(tmp_path: Path) -> None:
    content = b"text,label\n" + b"a,x\nb,y\n" * 1_250

    assert len(read_examples(write(tmp_path, content))) == 2_500


def test_of_each_label_only_the_first_may_be_taken(tmp_path: Path) -> None:
    content = b"text,label\n" + b"".join(b"%d,%s\n" % (n, b"xy"[n % 2 :][:1]) for n in range(6_000))

    assert read_examples(write(tmp_path, content), most_per_label=2) == (
        Example("0", "x"),
        Example("1", "y"),
        Example("2", "x"),
        Example("3", "y"),
    )


def test_fewer_than_two_of_each_label_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="needs 2 examples of each label"):
        read_examples(write(tmp_path, b"text,label\na,x\n"), most_per_label=1)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no file"):
        read_examples(tmp_path / "none.csv")
