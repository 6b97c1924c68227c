"""From an outcome to what the store is told of it."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from millpond.domain.call import Claimed, ClaimedJob, JobEnd, Settlement
from millpond.providers.outcome import (
    Answered,
    KeyRefused,
    NoAnswer,
    NotSent,
    Outcome,
    QuotaSpent,
    Refused,
    Rejected,
    Stopped,
    Unwell,
)
from millpond.store.store import LOST_GRACE_MS
from millpond.worker.verdict import backoff_ms, settlement

HEADERS_MS, ENDED_MS = 4_000.0, 5_000.0


def verdict(
    outcome: Outcome, *, failures: int = 0, attempts: int = 5, headers_ms: float | None = HEADERS_MS
) -> Settlement | None:
    call = claimed(failures, attempts)
    told = settlement(call, outcome, headers_ms=headers_ms, ended_ms=ENDED_MS, chance=lambda: 0.5)
    return None if told is None else replace(told, call=claimed(0, 5))


def claimed(failures: int, attempts: int) -> Claimed:
    return Claimed(
        id="c1",
        lane="a.generate",
        org="a",
        flow="f",
        need=100,
        attempts=attempts,
        jobs=(ClaimedJob("f.1", failures, b"{}"),),
    )


def settled(used: int | None, *jobs: JobEnd, **more: Any) -> Settlement:
    more.setdefault("counted_by_ms", HEADERS_MS)
    return Settlement(claimed(0, 5), used=used, jobs=jobs, **more)


def failed(code: str, message: str, status: int | None) -> JobEnd:
    error = {"code": code, "message": message, "pointer": None, "provider_status": status}
    return JobEnd("f.1", "failed", body=orjson.dumps({"error": error}))


AGAIN = JobEnd("f.1", "retry")
AGAIN_LATER = JobEnd("f.1", "retry", failed=True, delay_ms=1_000)


def test_an_answer_ends_the_job_and_charges_what_was_used() -> None:
    result = {"text": "yes", "characters": {"input": 3, "output": 3}}

    assert verdict(Answered((result,), used=6)) == settled(
        6, JobEnd("f.1", "succeeded", body=orjson.dumps(result))
    )


def test_a_refusal_costs_nothing_and_burns_no_attempt() -> None:
    assert verdict(Refused(3_000), failures=4) == settled(0, AGAIN, refused=True, shut_ms=3_000)
    assert verdict(Refused(None), attempts=1) == settled(0, AGAIN, refused=True, shut_ms=0)


def test_a_refused_key_and_a_spent_quota_stop_the_lane_and_burn_no_attempt() -> None:
    assert verdict(KeyRefused("wrong", 401), attempts=1) == settled(
        0, AGAIN, pause="key: wrong (401)"
    )
    assert verdict(QuotaSpent("all gone"), attempts=1) == settled(0, AGAIN, pause="quota: all gone")


def test_what_the_provider_will_never_take_ends_the_job_at_once() -> None:
    assert verdict(Rejected("too long", 413)) == settled(0, failed("rejected", "too long", 413))


@pytest.mark.parametrize(("charged", "used"), [(True, None), (False, 0)])
def test_trouble_at_the_provider_is_tried_again_while_attempts_are_left(
    charged: bool, used: int | None
) -> None:
    outcome = Unwell("oops", 500, charged=charged)

    assert verdict(outcome) == settled(used, AGAIN_LATER)
    assert verdict(outcome, failures=4) == settled(used, failed("provider_error", "oops", 500))
    assert verdict(outcome, attempts=1) == settled(used, failed("provider_error", "oops", 500))


def test_without_an_answer_the_charge_is_unknown_and_the_job_tried_again() -> None:
    assert verdict(NoAnswer("torn")) == settled(None, AGAIN_LATER)
    assert verdict(NoAnswer("torn"), failures=1, attempts=2) == settled(
        None, failed("no_answer", "torn", None)
    )


def test_without_headers_the_call_may_be_counted_a_while_after_it_was_given_up() -> None:
    gone = verdict(NoAnswer("timeout"), headers_ms=None)

    assert gone == settled(None, AGAIN_LATER, counted_by_ms=ENDED_MS + LOST_GRACE_MS)


def test_a_call_that_we_cut_ourselves_burns_no_attempt_and_its_charge_is_unknown() -> None:
    cut = verdict(Stopped(), attempts=1, headers_ms=None)

    assert cut == settled(None, AGAIN, counted_by_ms=ENDED_MS + LOST_GRACE_MS)


@pytest.mark.parametrize("unreachable", [True, False])
def test_what_was_never_sent_is_not_settled_but_given_back(unreachable: bool) -> None:
    assert verdict(NotSent("no connection", unreachable=unreachable), headers_ms=None) is None


def test_retries_spread_over_a_time_that_doubles_up_to_a_minute() -> None:
    longest = [backoff_ms(failures, 1.0) for failures in range(1, 9)]

    assert longest == [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert {backoff_ms(failures, 0.0) for failures in range(1, 99)} == {0}
    assert backoff_ms(10**9, 0.999) <= 60_000
    assert backoff_ms(2, 0.25) == 1_000
