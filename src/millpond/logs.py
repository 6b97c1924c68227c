"""Logs are events: a name in the past tense and fields, as JSON lines on stderr.

Prompts, answers and keys are never logged, so no traceback shows what its variables held.
"""

import logging
import sys
from typing import TextIO

import orjson
import structlog


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Send this process's events, and those of the libraries below it, to `stream`."""
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=stream, force=True)


def _dumps(event: object, **_: object) -> str:
    return orjson.dumps(event, default=repr).decode()
