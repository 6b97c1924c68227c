"""Jobs with several texts: one pack to the provider, one answer to the job."""

import pytest

from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common, Example, read_ask
from millpond.providers.adapter import BadParameter
from millpond.providers.cohere import Cohere
from millpond.providers.outcome import Answered, JobFailed, NoAnswer, Rejected
from millpond.providers.several import apart, need_of, together

EMBED = Common(Endpoint.EMBED, "embed-english-v3.0", 256)
ASKS = [Ask("one"), Ask("two", more=("three", "four")), Ask("five")]


def answered(*used: int) -> Answered:
    results = tuple(
        {"embedding": [float(n)], "model": "m", "characters": {"input": n, "output": 0}}
        for n in used
    )
    return Answered(results, used, 9)


def test_each_text_goes_by_itself() -> None:
    assert [one.text for one in apart(ASKS)] == ["one", "two", "three", "four", "five"]


def test_their_answers_come_as_one() -> None:
    outcome = together(ASKS, answered(3, 3, 5, 4, 4))

    assert isinstance(outcome, Answered)
    assert outcome.used == (3, 12, 4)
    assert outcome.tokens == 9
    assert outcome.results[0] == answered(3).results[0]
    assert outcome.results[1] == {
        "results": [{"embedding": [3.0]}, {"embedding": [5.0]}, {"embedding": [4.0]}],
        "model": "m",
        "characters": {"input": 12, "output": 0},
    }


def test_one_that_failed_fails_its_job_alone() -> None:
    good = answered(3, 3, 5, 4, 4)
    failed = JobFailed("no_label", "none")
    results = (*good.results[:2], failed, *good.results[3:])

    outcome = together(ASKS, Answered(results, good.used))

    assert isinstance(outcome, Answered)
    assert [one is failed for one in outcome.results] == [False, True, False]


@pytest.mark.parametrize(("text", "job"), [(0, 0), (1, 1), (3, 1), (4, 2)])
def test_a_text_that_is_to_blame_blames_its_job(text: int, job: int) -> None:
    assert together(ASKS, Rejected("no", 400, text)) == Rejected("no", 400, job)


def test_any_other_outcome_is_that_of_all() -> None:
    for outcome in (Rejected("no", 400), NoAnswer("timeout")):
        assert together(ASKS, outcome) is outcome


def test_what_it_may_use_is_that_of_all_its_texts() -> None:
    need = need_of(Cohere(), EMBED, ASKS[1])

    assert (need.characters, need.base) == (12, 12)


def test_each_of_its_texts_is_checked() -> None:
    with pytest.raises(BadParameter, match="empty"):
        need_of(Cohere(), EMBED, Ask("two", more=("",)))


def test_what_it_asks_is_read_as_it_was_written() -> None:
    own = Common(Endpoint.CLASSIFY, "m", 5, {"truncate": "NONE"}, (Example("a", "b"),))
    ask = Ask("one", {"k": 1}, None, ("two",), own)

    assert read_ask(ask.write()) == ask
    assert read_ask(Ask("one").write()) == Ask("one")
