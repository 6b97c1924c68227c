"""LiteLLM's Router with Redis, one deployment with `rpm`; what it or the provider refuses waits.

`how` is the way it counts: `usage` is its routing strategy usage-based-routing-v2, `enforce` its
check enforce_model_rate_limits. Both count calls by the minute of the clock.
"""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import asyncio
from typing import Any

from litellm import Router
from litellm.exceptions import RateLimitError
from puller import Given, Refused, pull

WAYS: dict[str, dict[str, Any]] = {
    "usage": {"routing_strategy": "usage-based-routing-v2", "enable_pre_call_checks": True},
    "enforce": {"optional_pre_call_checks": ["enforce_model_rate_limits"]},
}


async def main(given: Given) -> None:
    router = Router(
        model_list=[
            {
                "model_name": "bench",
                "litellm_params": {
                    "model": "openai/bench",
                    "api_base": f"{given.base_url}/v1",
                    "api_key": "bench",
                    "rpm": given.amount,
                    "max_retries": 0,
                },
            }
        ],
        redis_url=given.redis_url,
        num_retries=0,
        timeout=120,
        **WAYS[given.how],
    )

    async def ask(prompt: str) -> None:
        try:
            await router.acompletion(
                model="bench", messages=[{"role": "user", "content": prompt}], max_tokens=256
            )
        except RateLimitError:
            raise Refused from None

    await pull(given, ask)


if __name__ == "__main__":
    asyncio.run(main(Given.read()))
