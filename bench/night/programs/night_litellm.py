"""LiteLLM's Router with Redis and its check of a deployment's `rpm`, bulk and chats alike.

It counts calls by the minute of the clock. So that its minute is as long as everybody's, the clock
that it counts by goes as much faster as the night is scaled.
"""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
import sys
import time
from datetime import UTC, datetime

from evening import WHOSE, Given, bulk_by, chat_by
from litellm import Router
from litellm.exceptions import RateLimitError
from puller import Refused

IN_FLIGHT_MAX = 10
TIMEOUT_S = 120


def run_clock(scale: int) -> None:
    """Wherever LiteLLM has its clock from. Minutes come round again after hours of ours."""

    def now() -> datetime:
        return datetime.fromtimestamp(time.time() * scale, UTC)

    found = [one for one in sys.modules.values() if hasattr(one, "get_utc_datetime")]
    assert found, "LiteLLM has its clock from elsewhere"
    for module in found:
        module.get_utc_datetime = now  # type: ignore[attr-defined]


async def main(given: Given) -> None:
    router = Router(
        model_list=[
            {
                "model_name": "night",
                "litellm_params": {
                    "model": "openai/night",
                    "api_base": f"{given.base_url}/v1",
                    "api_key": given.key,
                    "rpm": given.amount,
                    "max_retries": 0,
                },
            }
        ],
        redis_url=given.redis_url,
        num_retries=0,
        timeout=TIMEOUT_S,
        optional_pre_call_checks=["enforce_model_rate_limits"],
    )
    run_clock(given.scale)

    async def ask(prompt: str, tokens: int, whose: str) -> None:
        try:
            await router.acompletion(
                model="night",
                messages=[{"role": "user", "content": prompt}],
                max_tokens=tokens,
                extra_headers={WHOSE: whose},
            )
        except RateLimitError:
            raise Refused from None

    if given.role == "bulk":
        await bulk_by(given, ask, IN_FLIGHT_MAX)
    else:
        await chat_by(given, ask)


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
