"""Logs are events: a name in the past tense and fields, as JSON lines on stderr.

Prompts, answers and keys are never logged.
"""

import logging
import sys

import orjson
import structlog


def configure(level: str) -> None:
    """Send this process's events, and those of the libraries below it, to stderr."""
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr)


def _dumps(event: object, **_: object) -> str:
    return orjson.dumps(event, default=repr).decode()
