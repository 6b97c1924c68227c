"""celery on Redis, a thread for each call: acknowledged late, results ignored.

(Greenlets were slower here, and made some calls twice.)
"""

# Checked outside of its environment.
# mypy: disable-error-code="import-not-found,import-untyped"

from celery import Celery
from given import Given, enqueues
from pooled import Provider


def main(given: Given) -> None:
    app = Celery("bench", broker=given.redis_url.replace("unix://", "redis+socket://"))
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=2,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
    )
    provider = Provider(given)

    @app.task(name="call")  # type: ignore[untyped-decorator,unused-ignore]
    def call(prompt: str) -> None:
        provider.ask(prompt)

    if enqueues():
        with app.connection_for_write() as connection, connection.SimpleQueue("celery"):
            for text in given.texts():
                call.apply_async((text,), connection=connection)
    else:
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        pool = ["-P", "threads", "-c", str(given.at_once), "-l", "ERROR"]
        app.worker_main(["worker", *pool, *options])


if __name__ == "__main__":
    main(Given.read())
