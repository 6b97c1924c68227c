"""dramatiq on Redis, a thread for each call: a message is acknowledged when its job has ended."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from given import Given, enqueues
from pooled import Provider


def main(given: Given) -> None:
    broker = RedisBroker(url=given.redis_url)
    dramatiq.set_broker(broker)
    provider = Provider(given)

    @dramatiq.actor(actor_name="call")  # type: ignore[untyped-decorator,unused-ignore]
    def call(prompt: str) -> None:
        provider.ask(prompt)

    if enqueues():
        for text in given.texts():
            call.send(text)
    else:
        dramatiq.Worker(broker, worker_threads=given.at_once).start()
        threading.Event().wait()


if __name__ == "__main__":
    main(Given.read())
