"""From an outcome to what the store is told of it."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from millpond.domain.call import Claimed, ClaimedJob, JobEnd, Settlement
from millpond.providers.outcome import (
    Answered,
    JobFailed,
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


def claimed(*failures: int, attempts: int = 5) -> Claimed:
    """A call of so many jobs as failures are told: `f.1`, `f.2` and on."""
    jobs = (ClaimedJob(f"f.{n}", failed, b"{}", 100) for n, failed in enumerate(failures, 1))
    return Claimed(
        id="c1",
        lane="a.generate",
        org="a",
        flow="f",
        need=100 * len(failures),
        attempts=attempts,
        jobs=tuple(jobs),
    )


def verdict(
    outcome: Outcome,
    call: Claimed | None = None,
    *,
    headers_ms: float | None = HEADERS_MS,
    **more: Any,
) -> Settlement | None:
    """What is told of a call of one job, which has not failed before, or of another; without the
    call itself."""
    more |= {"headers_ms": headers_ms, "ended_ms": ENDED_MS, "chance": lambda: 0.5}
    told = settlement(call or claimed(0), outcome, **more)
    return None if told is None else replace(told, call=claimed(0))


def settled(used: int | None, *jobs: JobEnd, **more: Any) -> Settlement:
    more.setdefault("counted_by_ms", HEADERS_MS)
    return Settlement(claimed(0), used=used, jobs=jobs, **more)


def error(code: str, message: str, status: int | None) -> bytes:
    told = {"code": code, "message": message, "pointer": None, "provider_status": status}
    return orjson.dumps({"error": told})


def ended(job: str, code: str, message: str, status: int | None, **more: Any) -> JobEnd:
    return JobEnd(job, "failed", body=error(code, message, status), **more)


AGAIN = JobEnd("f.1", "retry", used=0)


def again_later(body: bytes, **more: Any) -> JobEnd:
    return JobEnd("f.1", "retry", failed=True, delay_ms=1_000, body=body, **more)


def test_an_answer_ends_the_job_and_charges_what_was_used() -> None:
    result = {"text": "yes", "characters": {"input": 3, "output": 3}}

    assert verdict(Answered((result,), used=(6,))) == settled(
        6, JobEnd("f.1", "succeeded", body=orjson.dumps(result), used=6)
    )


def test_each_job_of_a_pack_gets_its_own_answer_and_its_own_charge() -> None:
    results = ({"label": "a"}, JobFailed("no_label", "none"), {"label": "c"})

    assert verdict(Answered(results, used=(6, 1, 3), tokens=9), claimed(0, 0, 0)) == settled(
        10,
        JobEnd("f.1", "succeeded", body=b'{"label":"a"}', used=6),
        ended("f.2", "no_label", "none", None, used=1),
        JobEnd("f.3", "succeeded", body=b'{"label":"c"}', used=3),
        tokens=9,
    )


def test_a_refusal_costs_nothing_and_burns_no_attempt() -> None:
    assert verdict(Refused(3_000), claimed(4)) == settled(0, AGAIN, refused=True, shut_ms=3_000)
    assert verdict(Refused(None), claimed(0, attempts=1)) == settled(
        0, AGAIN, refused=True, shut_ms=0
    )


def test_a_refused_key_and_a_spent_quota_stop_the_lane_and_burn_no_attempt() -> None:
    once = claimed(0, attempts=1)

    assert verdict(KeyRefused("wrong", 401), once) == settled(0, AGAIN, pause="key: wrong (401)")
    assert verdict(QuotaSpent("all gone"), once) == settled(0, AGAIN, pause="quota: all gone")


def test_what_the_provider_will_never_take_ends_the_job_at_once() -> None:
    assert verdict(Rejected("too long", 413)) == settled(
        0, ended("f.1", "rejected", "too long", 413, used=0)
    )


def test_of_a_rejected_pack_only_the_job_to_blame_ends_and_the_others_go_again_at_once() -> None:
    assert verdict(Rejected("empty", 400, index=1), claimed(4, 0, 4)) == settled(
        0,
        JobEnd("f.1", "retry", used=0),
        ended("f.2", "rejected", "empty", 400, used=0),
        JobEnd("f.3", "retry", used=0),
    )


def test_a_rejected_pack_that_nobody_is_blamed_for_goes_again_in_smaller_calls() -> None:
    assert verdict(Rejected("too many tokens", 400), claimed(4, 4)) == settled(
        0, JobEnd("f.1", "retry", used=0), JobEnd("f.2", "retry", used=0), split=True
    )


@pytest.mark.parametrize(("charged", "used"), [(True, None), (False, 0)])
def test_trouble_at_the_provider_is_tried_again_while_attempts_are_left(
    charged: bool, used: int | None
) -> None:
    outcome = Unwell("oops", 500, charged=charged)
    again = again_later(error("provider_error", "oops", 500), used=used)

    def last(delay_ms: int) -> JobEnd:
        more: dict[str, Any] = {"failed": True, "delay_ms": delay_ms, "used": used}
        return ended("f.1", "provider_error", "oops", 500, **more)

    assert verdict(outcome) == settled(used, again, trouble=True)
    # Should the provider serve nobody, the store lets it go again after that time all the same.
    assert verdict(outcome, claimed(4)) == settled(used, last(16_000), trouble=True)
    assert verdict(outcome, claimed(0, attempts=1)) == settled(used, last(1_000), trouble=True)


def test_without_an_answer_the_charge_is_unknown_and_the_job_tried_again() -> None:
    again = again_later(error("no_answer", "torn", None), unknown=True)
    assert verdict(NoAnswer("torn")) == settled(None, again, trouble=True)
    assert verdict(NoAnswer("torn"), claimed(1, attempts=2)) == settled(
        None,
        ended("f.1", "no_answer", "torn", None, failed=True, delay_ms=2_000, unknown=True),
        trouble=True,
    )


def test_jobs_of_a_pack_fail_each_by_its_own_count() -> None:
    told = verdict(NoAnswer("torn"), claimed(0, 4, 1))

    assert told is not None
    assert [(job.end, job.delay_ms) for job in told.jobs] == [
        ("retry", 1_000),
        ("failed", 16_000),
        ("retry", 2_000),
    ]
    assert told.used is None


def test_without_headers_the_call_may_be_counted_a_while_after_it_was_given_up() -> None:
    gone = verdict(NoAnswer("timeout"), headers_ms=None)

    again = again_later(error("no_answer", "timeout", None), unknown=True)
    assert gone == settled(None, again, trouble=True, counted_by_ms=ENDED_MS + LOST_GRACE_MS)


def test_a_call_that_we_cut_ourselves_burns_no_attempt_and_its_charge_is_unknown() -> None:
    cut = verdict(Stopped(), claimed(0, attempts=1), headers_ms=None)

    again = JobEnd("f.1", "retry", unknown=True)
    assert cut == settled(None, again, cut=True, counted_by_ms=ENDED_MS + LOST_GRACE_MS)


@pytest.mark.parametrize(
    "outcome", [Refused(None), Unwell("busy", 503, charged=False), NoAnswer("torn")]
)
def test_what_the_provider_said_beside_is_passed_on(outcome: Outcome) -> None:
    beside: dict[str, Any] = {"told": "60/60s", "said": "calls: 1 of 60 left", "credit_ms": 7}

    told = verdict(outcome, **beside)

    assert told is not None
    assert (told.told, told.said, told.credit_ms) == ("60/60s", "calls: 1 of 60 left", 7)


@pytest.mark.parametrize("unreachable", [True, False])
def test_what_was_never_sent_is_not_settled_but_given_back(unreachable: bool) -> None:
    assert verdict(NotSent("no connection", unreachable=unreachable), headers_ms=None) is None


def test_retries_spread_over_a_time_that_doubles_up_to_a_minute() -> None:
    longest = [backoff_ms(failures, 1.0) for failures in range(1, 9)]

    assert longest == [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert {backoff_ms(failures, 0.0) for failures in range(1, 99)} == {0}
    assert backoff_ms(10**9, 0.999) <= 60_000
    assert backoff_ms(2, 0.25) == 1_000
