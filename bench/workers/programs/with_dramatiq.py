"""dramatiq on Redis, a thread for each call: a message is acknowledged when its job has ended."""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found"

import threading

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from given import Given, enqueues
from pooled import Provider


def main(given: Given) -> None:
    # Each thread needs a connection; more than 100 must be asked for.
    broker = RedisBroker(url=f"{given.redis_url}?max_connections={4 * given.at_once}")
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
