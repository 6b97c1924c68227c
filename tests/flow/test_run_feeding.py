"""From the file into the server: each line once, also when the server has lost its last moments."""

from pathlib import Path

from millpond.domain.job import Endpoint
from millpond.domain.limit import LIMITED
from millpond.producer.records import Format, Reader
from millpond.run.feeder import Feeder, Lines
from millpond.run.options import Options
from rig import prompts


def feeder(folder: Path, answered: Lines, *, lines: int) -> Feeder:
    file = prompts(folder / "q.jsonl", lines)
    options = Options(
        file=file,
        format="jsonl",
        template=None,
        endpoint=Endpoint.GENERATE,
        model="command",
        params={},
        max_tokens=9,
        provider="simulator",
        base_url=None,
        key="demo",
        mode="limited",
        limits=LIMITED,
        quota=None,
        workers=1,
        concurrency=1,
        timeout_ms=1_000,
        attempts=1,
        data_dir=folder,
        out=folder / "a",
        errors=folder / "e",
        ledger=None,
        as_json=False,
        quiet=False,
    )
    reader = Reader(file, Format.JSONL, field="prompt", template=None)
    return Feeder(reader, options, "r", answered)


def ids(feeder: Feeder) -> list[str]:
    return [job.id for job in feeder.take().jobs]


def test_lines_that_are_answered_are_not_read_again(tmp_path: Path) -> None:
    answered = Lines()
    for line in (1, 3):
        answered.add(line)

    assert ids(feeder(tmp_path, answered, lines=4)) == ["r.2", "r.4"]


def test_a_file_is_fed_in_portions_and_waits_while_the_server_has_enough(tmp_path: Path) -> None:
    feed = feeder(tmp_path, Lines(), lines=450)

    assert [len(ids(feed)) for _ in range(3)] == [200, 200, 50]
    assert (feed.done, feed.room) == (True, 0)


def test_after_a_loss_everything_without_an_answer_is_fed_again(tmp_path: Path) -> None:
    answered = Lines()
    feed = feeder(tmp_path, answered, lines=3)
    assert ids(feed) == ["r.1", "r.2", "r.3"]
    answered.add(2)
    feed.left("r.2")

    feed.begin_again()

    assert feed.room > 0
    assert ids(feed) == ["r.1", "r.3"]


def test_a_job_is_expected_until_it_is_on_disk(tmp_path: Path) -> None:
    """So a portion whose acceptance was not confirmed is not sent twice as a whole."""
    feed = feeder(tmp_path, Lines(), lines=2)
    first, second = feed.take().jobs

    feed.left(first.id)

    assert [feed.expects(job) for job in (first, second)] == [False, True]
