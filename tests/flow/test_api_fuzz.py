"""Requests that are made up from the description of the API: none is a 5xx, every reply has a shape
that is described, and nothing of another org ever comes out.

    FUZZ_CASES=30000 pytest tests/flow/test_api_fuzz.py     (make fuzz)
"""

import json
import os
from typing import Any

import pytest

from flow.test_api_jobs import Up, up

__all__ = ["up"]

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("FUZZ_CASES", "2000"))
CANARY = "canary-of-another-org"
#: Streams that do not end.
ENDLESS = {"follow_events"}


@pytest.fixture(scope="module")
def other_org(up: Up) -> str:
    """Another org, whose every word is a canary; the key of its admin."""
    import requests

    operator = {"Authorization": f"Bearer {up.admin_key}"}
    body: Any = {"id": CANARY, "name": CANARY, "admin": {"id": CANARY, "name": CANARY}}
    made = requests.post(f"{up.admin_url}/v1/orgs", json=body, headers=operator, timeout=10)
    assert made.status_code == 201, made.text
    key: str = made.json()["key"]["key"]
    job: Any = {"endpoint": "generate", "prompt": CANARY, "metadata": {"of": CANARY}}
    headers = {"Authorization": f"Bearer {key}"}
    sent = requests.post(f"{up.url}/v1/jobs", json=job, headers=headers, timeout=10)
    assert sent.status_code == 202, sent.text
    return key


@pytest.mark.parametrize("face", ["users", "operators"])
def test_nothing_that_is_made_up_breaks_it_or_sees_another_org(
    up: Up, other_org: str, face: str
) -> None:
    import schemathesis
    from schemathesis.checks import load_all_checks
    from schemathesis.core.result import Ok

    load_all_checks()
    base, key = (up.url, up.api_key) if face == "users" else (up.admin_url, up.admin_key)
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    operations = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    operations = [one for one in operations if one.definition.raw["operationId"] not in ENDLESS]
    for operation in operations:
        _drive(operation, base, key, CASES // 2 // len(operations), canary=face == "users")


def _drive(operation: Any, base: str, key: str, cases: int, *, canary: bool) -> None:
    import hypothesis
    from schemathesis.checks import CHECKS
    from schemathesis.core.failures import FailureGroup

    # What a schema cannot say: that 1.0 is no integer, which models there are, ...
    beyond = [CHECKS.get_one("positive_data_acceptance")]

    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=max(10, cases),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def one(case: Any) -> None:
        reply = case.call(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=70)
        try:
            case.validate_response(reply, excluded_checks=beyond)
        except FailureGroup as failures:
            told = [str(each) for each in failures.exceptions]
            raise AssertionError(told, case.as_curl_command(), reply.text[:2_000]) from None
        assert reply.status_code < 500, (case.as_curl_command(), reply.text)
        if reply.status_code >= 400:
            assert json.loads(reply.text)["status"] == reply.status_code
        assert not canary or CANARY not in reply.text

    one()
