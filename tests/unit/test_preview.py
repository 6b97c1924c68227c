"""What a run will come to, told before anything is sent."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from millpond.domain.forecast import Taken
from millpond.domain.job import Endpoint
from millpond.domain.limit import Limit, parse_limit
from millpond.domain.request import Common
from millpond.producer.records import Format, Reader
from millpond.providers.cohere import Cohere
from millpond.run.feeder import Lines, Writer
from millpond.run.preview import (
    Contents,
    Preview,
    describe_preview,
    describe_what_if,
    plan,
    preview,
    read_contents,
)

#: A hundred calls of 50 characters and 40 tokens each, at their most.
HUNDRED = Contents(lines=103, bad_lines=3, characters=5_000, tokens=4_000)
#: The same in ten calls of ten jobs.
PACKED = replace(HUNDRED, along=90)
NOTHING = Contents(lines=2, bad_lines=2, characters=0, tokens=0)


def limits(*written: str) -> list[Limit]:
    return [parse_limit(one) for one in written]


def seen(
    *written: str, contents: Contents = HUNDRED, quota_left: int | None = None, at_once: int = 200
) -> Preview:
    """With calls that take half a second."""
    return preview(
        contents,
        limits(*written) if written else None,
        quota_left=quota_left,
        concurrency=at_once,
        latency_ms=500,
    )


@pytest.mark.parametrize(
    ("wanted", "contents"),
    [
        # A prompt of n characters may use n + 9 x 6 characters, and n // 2 + 1 + 9 tokens.
        (None, Contents(lines=5, bad_lines=2, characters=58 + 56 + 55, tokens=12 + 11 + 10)),
        ({1, 2, 5}, Contents(lines=3, bad_lines=1, characters=58 + 55, tokens=12 + 10)),
    ],
)
def test_a_file_is_read_once_for_what_it_may_use_at_most(
    tmp_path: Path, wanted: set[int] | None, contents: Contents
) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(
        '{"prompt": "four"}\n{"prompt": 7}\n{"prompt": "ü🦆"}\n'
        '{"prompt": "x", "params": {"max_tokens": 0}}\n{"prompt": "x"}\n'
    )
    reader = Reader(file, Format.JSONL, field="prompt", template=None)
    writer = Writer(Cohere(), Common(Endpoint.GENERATE, "command", max_tokens=9))

    read = read_contents(reader, writer, wanted, lines=contents.lines, answered=Lines())

    assert read == contents
    assert contents.calls == contents.jobs == contents.lines - contents.bad_lines


def test_what_has_its_row_already_counts_for_nothing_but_a_line(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"prompt": "four"}\n{"prompt": 7}\n{"prompt": "x"}\n')
    reader = Reader(file, Format.JSONL, field="prompt", template=None)
    writer = Writer(Cohere(), Common(Endpoint.GENERATE, "command", max_tokens=9))
    answered = Lines()
    for line in (1, 2):
        answered.add(line)

    read = read_contents(reader, writer, None, lines=3, answered=answered)

    assert read == Contents(lines=3, bad_lines=0, characters=55, tokens=10, done=2)
    assert read.calls == 1


def read(tmp_path: Path, rows: Sequence[str], endpoint: Endpoint = Endpoint.EMBED) -> Contents:
    file = tmp_path / "q.jsonl"
    file.write_text("".join(row + "\n" for row in rows))
    reader = Reader(file, Format.JSONL, field="text", template=None)
    writer = Writer(Cohere(), Common(endpoint, "m", max_tokens=9))
    return read_contents(reader, writer, None, lines=len(rows), answered=Lines())


A, B = '{"text": "a"}', '{"text": "b", "params": {"truncate": "NONE"}}'
BAD = '{"text": ""}'


@pytest.mark.parametrize(
    ("rows", "jobs", "calls"),
    [
        ([], 0, 0),
        ([A], 1, 1),
        ([A] * 96, 96, 1),
        ([A] * 97, 97, 2),
        ([A] * 192 + [BAD] + [A], 193, 3),
        ([A, BAD, A], 2, 1),
        ([A] * 50 + [B] * 50, 100, 2),
        ([A, B] * 3, 6, 6),  # only neighbours share a call
    ],
)
def test_texts_that_share_a_call_are_one_call(
    tmp_path: Path, rows: list[str], jobs: int, calls: int
) -> None:
    contents = read(tmp_path, rows)

    assert (contents.jobs, contents.calls) == (jobs, calls)


def test_prompts_share_no_call(tmp_path: Path) -> None:
    assert read(tmp_path, [A] * 97, Endpoint.GENERATE).calls == 97


@pytest.mark.parametrize(
    ("written", "calls"),
    [
        (["5/60s"], 10),
        (["10inputs/60s", "5@once"], 10),
        (["9inputs/60s"], 12),
        (["3inputs@once"], 34),
        (["1inputs/60s"], 100),
        (["499characters/60s"], 12),
        (["100tokens/60s", "200characters/60s"], 50),
        (["1tokens/60s"], 100),
    ],
)
def test_packs_are_no_larger_than_a_limit(written: list[str], calls: int) -> None:
    assert PACKED.under(limits(*written)).calls == calls
    assert HUNDRED.under(limits(*written)) == HUNDRED
    assert NOTHING.under(limits(*written)) == NOTHING


def test_a_run_of_packs_takes_as_long_as_its_calls() -> None:
    assert seen("5/60s", contents=PACKED).seconds == 61.0
    assert seen("50inputs/60s", contents=PACKED).seconds == 61.0
    assert seen("5/60s", contents=PACKED).as_json(wall_s=0)["calls"] == 10
    # Twenty calls of five jobs, one at a time.
    assert seen("5inputs@once", contents=PACKED).seconds == 10.0
    assert seen("5/60s", "50inputs/1h", contents=PACKED).reason == "50inputs/1h"
    assert seen("10/60s", contents=PACKED).reason is None


def test_so_many_jobs_take_so_many_calls() -> None:
    assert [PACKED.calls_of(jobs) for jobs in (0, 1, 10, 11, 100)] == [0, 1, 1, 2, 10]
    assert HUNDRED.calls_of(7) == 7
    assert NOTHING.calls_of(0) == 0


def test_a_run_is_over_when_its_last_call_is_answered() -> None:
    # Sixty go at once, the others when those have left the window, 60.5 s later.
    assert seen("60/60s").seconds == 61.0
    assert seen("100/60s").seconds == 0.5
    assert seen("100/60s", at_once=25).seconds == 2.0
    assert seen("60/60s", contents=NOTHING).seconds == 0.0


def test_the_limit_that_is_waited_for_most_is_named() -> None:
    assert seen("60/60s", "90/1h").reason == "90/1h"
    assert seen("60/60s", "100/1h").reason == "60/60s"
    assert seen("60/60s", "2000tokens/60s").reason == "2000tokens/60s"
    assert seen("100/60s", "4000tokens/60s").reason is None


@pytest.mark.parametrize(("quota_left", "fits"), [(None, True), (5_000, True), (4_999, False)])
def test_a_quota_suffices_if_the_most_that_may_be_used_fits(
    quota_left: int | None, fits: bool
) -> None:
    one = seen("60/60s", quota_left=quota_left)

    assert (one.fits_quota, one.counted) == (fits, quota_left is not None)
    assert one.reason == ("60/60s" if fits else "quota")


def test_while_nobody_knows_the_limits_nobody_knows_the_end() -> None:
    one = seen()

    assert (one.seconds, one.reason) == (None, "the provider's limits are not known yet")
    assert one.as_json(wall_s=0)["ends_at"] is None


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("60/60s", 60),
        ("60inputs/60s", 60),
        ("1000characters/60s", 20),
        ("1000tokens/60s", 25),
        ("1tokens/60s", 1),  # what is larger than a limit goes when all of it is free
    ],
)
def test_a_limit_of_another_unit_lets_as_many_calls_through_as_fit_on_average(
    written: str, amount: int
) -> None:
    assert plan(limits(written), HUNDRED, 7) == (7, [Taken(amount, 60_000, [])])


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("60/60s", 60),
        ("60inputs/60s", 6),
        ("1000characters/60s", 2),
        ("1000tokens/60s", 2),
    ],
)
def test_a_pack_takes_of_a_limit_what_all_of_its_jobs_take(written: str, amount: int) -> None:
    assert plan(limits(written), PACKED, 7) == (7, [Taken(amount, 60_000, [])])


def test_limits_of_calls_in_flight_bound_how_many_run_at_once() -> None:
    assert plan(limits("20@once", "200tokens@once"), HUNDRED, 50) == (5, [])
    assert plan(limits("20@once"), HUNDRED, 10) == (10, [])


def test_programs_are_told_the_same_keys_always() -> None:
    assert seen("60/60s", quota_left=9_999).as_json(wall_s=1_700_000_000) == {
        "lines": 103,
        "bad_lines": 3,
        "calls": 100,
        "characters_max": 5_000,
        "fits_quota": True,
        "seconds": 61.0,
        "ends_at": "2023-11-14T22:14:21Z",
        "reason": "60/60s",
    }


@pytest.mark.parametrize(
    ("one", "mode", "told"),
    [
        (
            seen("60/60s"),
            "limited",
            "103 lines (3 of them cannot be asked), 100 calls, at most 5,000 characters; "
            "about 1m01s under 60/60s; limited access: for testing",
        ),
        (
            seen("100/60s", quota_left=4_999),
            "full",
            "103 lines (3 of them cannot be asked), 100 calls, at most 5,000 characters, "
            "which is more than the quota has left; about 0s; full access",
        ),
        (
            seen(contents=Contents(2, 0, 80, 60)),
            "full",
            "2 lines, 2 calls, at most 80 characters; the provider's limits are not known yet; "
            "full access",
        ),
    ],
)
def test_people_are_told_what_to_expect(one: Preview, mode: str, told: str) -> None:
    assert describe_preview(one, mode) == told


def test_another_way_to_run_is_told_with_what_differs() -> None:
    spent = seen("60/60s", quota_left=4_999)

    assert spent.as_what_if("quota=4999", wall_s=1_700_000_000) == {
        "if": "quota=4999",
        "seconds": 61.0,
        "ends_at": "2023-11-14T22:14:21Z",
        "fits_quota": False,
        "reason": "quota",
    }
    assert describe_what_if(spent) == "about 1m01s, and more characters than the quota has left"
    assert describe_what_if(seen("60/60s")) == "about 1m01s under 60/60s"
    assert describe_what_if(seen()) == "the provider's limits are not known yet"
    assert seen().as_what_if("mode=full", wall_s=0)["ends_at"] is None
