"""From the file into the server: each line once, also when the server has lost its last moments."""

from pathlib import Path

from millpond.domain.job import Endpoint
from millpond.domain.request import Common
from millpond.producer.records import Format, Reader
from millpond.providers.cohere import Cohere
from millpond.run.feeder import Feeder, Lines, Wanted, Writer
from rig import prompts


def feeder(folder: Path, answered: Lines, *, lines: int, wanted: Wanted = None) -> Feeder:
    file = prompts(folder / "q.jsonl", lines)
    reader = Reader(file, Format.JSONL, field="prompt", template=None)
    writer = Writer(Cohere(), Common(Endpoint.GENERATE, "command", max_tokens=9))
    return Feeder(reader, writer, "r", answered, wanted)


def ids(feeder: Feeder) -> list[str]:
    return [job.id for job in feeder.take().jobs]


def test_lines_that_are_answered_are_not_read_again(tmp_path: Path) -> None:
    answered = Lines()
    for line in (1, 3):
        answered.add(line)

    assert ids(feeder(tmp_path, answered, lines=4)) == ["r.2", "r.4"]


def test_of_a_sample_only_its_lines_are_read_and_again_not_those_that_are_answered(
    tmp_path: Path,
) -> None:
    answered = Lines()
    answered.add(3)

    assert ids(feeder(tmp_path, answered, lines=6, wanted={2, 3, 5})) == ["r.2", "r.5"]


def test_what_a_job_may_use_is_said_with_it(tmp_path: Path) -> None:
    (job,) = feeder(tmp_path, Lines(), lines=1).take().jobs

    # "What is 0 and 0?" has 16 characters; the answer 9 tokens at most, of 6 characters each.
    assert (job.need, job.tokens) == (16 + 6 * 9, 16 // 2 + 1 + 9)


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
