"""Calls of many texts, to a provider that counts them: the simulator over HTTP."""

import time
from collections.abc import Sequence

import pytest

from flow.test_simulator import Run, run
from millpond.domain.call import Claimed, ClaimedJob
from millpond.domain.job import Endpoint
from millpond.domain.request import Ask, Common, Example
from millpond.providers.adapter import Adapter
from millpond.providers.caller import Caller, Sent
from millpond.providers.cohere import Cohere
from millpond.providers.http import Http
from millpond.providers.openai import OpenAI
from millpond.providers.outcome import Answered, Rejected

__all__ = ["run"]

EXAMPLES = tuple(Example(text, text[:4]) for text in ("duck one", "duck two", "crow 1", "crow 2"))
WAYS = [
    (Cohere(), Endpoint.EMBED, ""),
    (Cohere(), Endpoint.CLASSIFY, ""),
    (OpenAI(), Endpoint.EMBED, "/v1"),
]


async def sent(url: str, adapter: Adapter, endpoint: Endpoint, texts: Sequence[str]) -> Sent:
    """What comes of one call with so many texts."""
    common = Common(endpoint, "m", 9, {}, EXAMPLES if endpoint is Endpoint.CLASSIFY else ())

    async def common_of(_: str) -> bytes:
        return common.write()

    jobs = tuple(ClaimedJob(f"f.{n}", 0, Ask(text).write()) for n, text in enumerate(texts))
    call = Claimed("1", "a.x", "a", "f", need=9, attempts=5, jobs=jobs)
    async with Http(url, "a", timeout_ms=20_000, clock=lambda: time.monotonic() * 1_000) as http:
        return await Caller(adapter, http, common_of).send(call)


@pytest.mark.parametrize(("adapter", "endpoint", "path"), WAYS)
async def test_a_full_pack_is_answered_text_by_text_as_each_would_be_alone(
    run: Run, adapter: Adapter, endpoint: Endpoint, path: str
) -> None:
    simulator = run("--limits", f"{endpoint}=9/1d,200inputs/1d")
    texts = ["x" * (n % 7 + 1) + str(n) for n in range(96)]

    together = (await sent(simulator.url + path, adapter, endpoint, texts)).outcome
    alone = (await sent(simulator.url + path, adapter, endpoint, texts[41:42])).outcome

    assert isinstance(together, Answered)
    assert isinstance(alone, Answered)
    assert together.used == tuple(map(len, texts))
    assert together.results[41:42] == alone.results
    assert len({str(result) for result in together.results}) > 1
    assert [row["inputs"] for row in simulator.wait_rows(2)] == [96, 1]


@pytest.mark.parametrize(("adapter", "endpoint", "path"), WAYS)
async def test_the_provider_names_a_text_that_it_will_not_take(
    run: Run, adapter: Adapter, endpoint: Endpoint, path: str
) -> None:
    simulator = run()

    outcome = (await sent(simulator.url + path, adapter, endpoint, ["a", "b", "", "d"])).outcome

    assert isinstance(outcome, Rejected)
    assert (outcome.status, outcome.index) == (400, 2)


async def test_a_pack_that_is_too_large_is_no_texts_fault(run: Run) -> None:
    outcome = (await sent(run().url, Cohere(), Endpoint.EMBED, ["a"] * 97)).outcome

    assert isinstance(outcome, Rejected)
    assert (outcome.status, outcome.index) == (400, None)


async def test_the_provider_vouches_for_most_of_the_time_that_it_worked(run: Run) -> None:
    simulator = run("--service", "0.2")

    cohere = await sent(simulator.url, Cohere(), Endpoint.EMBED, ["a"])
    openai = await sent(simulator.url + "/v1", OpenAI(), Endpoint.EMBED, ["a"])

    assert 195 <= cohere.credit_ms <= 5_000
    assert openai.credit_ms == 0


async def test_what_is_left_of_a_limit_is_told_to_people(run: Run) -> None:
    simulator = run("--limits", "embed=60/1d")

    said = (await sent(simulator.url + "/v1", OpenAI(), Endpoint.EMBED, ["a"])).said

    assert said is not None
    assert said.startswith("requests: 59 of 60 left, reset in ")
