"""Whatever is in the file, counting, reading and finding again speak of the same records."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.producer import spans
from millpond.producer.records import Format, Invalid, Reader, Record, survey
from millpond.producer.template import Template

LINES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"  ",
            b"\r",
            b'{"prompt": "a"}',
            b'{"prompt": "a", "custom_id": 7, "params": {"n": 1}}',
            b'{"prompt": "b", "custom_id": "7"}',
            b'{"prompt": "b", "\\u0063ustom_id": "7"}',
            b'{"custom_id": "7", "method": "POST", "url": "/v1/embeddings", '
            b'"body": {"input": "a"}}',
            b'{"line": 1, "custom_id": "7", "endpoint": "", "status": "failed", "error": {}, '
            b'"attempts": 1, "input": "a"}',
            b'{"question": "a"}',
            b'{"prompt": "\\ud800"}',
            b"[1]",
            b"prompt,custom_id,params",
            b'"a ""quoted"" cell",x',
            b'"opens',
            b'closes",x',
            b'a,"opens',
            b'a"b,c',
            b"a,b,c,d,e",
            b"\xff\xfe",
            b"x" * 130,
            "日本, 語".encode(),
        ]
    ),
    st.text(alphabet='a,"\r\0é{}', max_size=12).map(str.encode),
    st.binary(max_size=12),
)
CONTENTS = st.builds(
    lambda bom, lines, last: bom + b"".join(line + end for line, end in lines) + last,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n"])), max_size=12),
    st.one_of(st.just(b""), LINES),
)
TEMPLATES = st.sampled_from([None, "{prompt}", "{prompt} {text}"])


@given(CONTENTS, st.sampled_from(Format), TEMPLATES, st.sampled_from([1, 3, 16, 65_536]))
@settings(max_examples=400, deadline=None)
def test_survey_read_and_at_agree(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    format: Format,
    template: str | None,
    chunk_bytes: int,
) -> None:
    # A header that is good, so that it is the records that are tested.
    if format is Format.CSV:
        content = b"prompt,custom_id,params\n" + content
    path = tmp_path_factory.getbasetemp() / "property"
    path.write_bytes(content)
    reader = Reader(path, format, field="prompt", template=Template(template) if template else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_CHUNK_BYTES", chunk_bytes)
        patch.setattr(spans, "MAX_RECORD_BYTES", 120)
        patch.setattr(spans, "HEAD_BYTES", 30)
        found = list(reader.read())

        assert survey(path, format).records == len(found)
        again = [reader.at(one.line, one.offset, one.length) for one in found]
        assert list(reader.read(lambda line: line % 2 == 0)) == [o for o in found if o.line % 2]

    taken = set()
    for one, same in zip(found, again, strict=True):
        if isinstance(one, Invalid) and one.code == "duplicate_custom_id":
            assert isinstance(same, Record)
            assert (same.line, same.input, same.custom_id) == (one.line, one.input, one.custom_id)
            assert one.custom_id in taken
        else:
            assert same == one
            assert isinstance(one, Invalid) or not one.custom_id or one.custom_id not in taken
        taken.add(one.custom_id)

    lines = [one.line for one in found]
    assert lines == sorted(set(lines))
    for one in found:
        assert content[: one.offset].count(b"\n") == one.line - 1
        assert content[one.offset + one.length :][:1] in (b"", b"\n", b"\r")
        assert (one.length > 120) == (isinstance(one, Invalid) and one.code == "too_long")


CELLS = st.text(alphabet='ab ,"\n\r\0é', max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=10), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=300, deadline=None)
def test_what_a_csv_writer_wrote_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], ending: str
) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "x"), *rows])
    path: Path = tmp_path_factory.getbasetemp() / "written"
    path.write_bytes(written.getvalue().encode())

    found = list(Reader(path, Format.CSV, field="prompt", template=None).read())

    assert [one.input for one in found] == [{"prompt": prompt, "x": x} for prompt, x in rows]
    assert [isinstance(one, Record) for one in found] == [prompt != "" for prompt, _ in rows]


@given(st.lists(st.sampled_from([b'"', b",", b"a", b"\r", b"\n"]), max_size=24))
@settings(max_examples=1_000, deadline=None)
def test_the_short_way_for_one_line_finds_the_same_csv_records(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces"
    path.write_bytes(b"".join(pieces))

    with path.open("rb") as file:
        short = list(spans.spans(file, quoted=True))
    with path.open("rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "_CHUNK_BYTES", 1)  # no chunk but an empty line is a whole one
        followed = list(spans.spans(file, quoted=True))

    assert short == followed


def test_no_line_is_slow_to_follow(tmp_path: Path) -> None:
    path = tmp_path / "quotes"
    lines = [b'"a""' * 15_000, b'"",' * 20_000 + b'"', b'""' * 30_000 + b"a", b'a"' * 30_000]
    path.write_bytes(b"".join(line + b"\n" for line in lines * 5))

    with path.open("rb") as file:
        assert sum(span.length for span in spans.spans(file, quoted=True)) > 1_000_000
