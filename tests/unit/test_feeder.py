"""From records to jobs: what the server is told of each."""

from pathlib import Path

import pytest

from millpond.domain.job import Endpoint
from millpond.domain.request import Common
from millpond.producer.records import Format, Reader
from millpond.providers.cohere import Cohere
from millpond.run.feeder import Feeder, Lines, Writer
from millpond.store.store import NewJob


def fed(tmp_path: Path, endpoint: Endpoint, *rows: str) -> list[NewJob]:
    file = tmp_path / "q.jsonl"
    file.write_text("".join(row + "\n" for row in rows))
    reader = Reader(file, Format.JSONL, field="text", template=None)
    writer = Writer(Cohere(), Common(endpoint, "m", max_tokens=9))
    return Feeder(reader, writer, "r", Lines(), None).take().jobs


def test_texts_are_told_with_what_they_must_share_to_go_together(tmp_path: Path) -> None:
    query = '{"text": "c", "params": {"input_type": "search_query"}}'

    one, two, other = fed(tmp_path, Endpoint.EMBED, '{"text": "four"}', '{"text": "b"}', query)

    assert (one.id, one.need, one.base, one.tokens) == ("r.1", 4, 4, 3)
    assert one.pack == two.pack != other.pack
    assert "" not in {one.pack, other.pack}


def test_a_prompt_goes_alone_and_is_what_is_known_of_its_need(tmp_path: Path) -> None:
    (job,) = fed(tmp_path, Endpoint.GENERATE, '{"text": "four"}')

    assert (job.need, job.base, job.pack) == (4 + 6 * 9, 4, "")


@pytest.mark.parametrize(("endpoint", "most"), [(Endpoint.GENERATE, 1), (Endpoint.CLASSIFY, 96)])
def test_a_writer_says_how_many_share_a_call(endpoint: Endpoint, most: int) -> None:
    assert Writer(Cohere(), Common(endpoint, "m", max_tokens=9)).pack_most == most
