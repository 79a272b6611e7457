"""Structured logs: JSON, one line an event, on standard error. Never a token, never a request body."""

import asyncio
import logging
import sys
from typing import Any, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from shared.runtime import redacting


def configure(level: str = "info", *, pretty: bool = False) -> None:
    """Set up logging once per process. `pretty` is for a person at a terminal."""
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redacted,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Foreign)]:
        root.removeHandler(handler)
    root.addHandler(_Foreign(level.upper()))
    for name in _TOLD_BY_US:
        logging.getLogger(name).setLevel(logging.CRITICAL)


_TOLD_BY_US = ("aio_pika", "aiormq")
"""Libraries whose failures our adapters tell in their own words."""

_EXPECTED = ("ASGI callable returned without completing response.",)
"""What uvicorn calls an error, and we do on purpose (`shared.runtime.cutting`)."""


class _Foreign(logging.Handler):
    """What libraries log through the standard library, in the same form as our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage().strip()
        cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
        if words in _EXPECTED or cancelled:  # a request that was cut off because we stop
            get(record.name).debug("foreign", words=words)
            return
        get(record.name).log(record.levelno, "foreign", words=words, exc_info=record.exc_info)


def _redacted(logger: Any, method: str, event: EventDict) -> EventDict:
    return redacting.fields(event)


def get(name: str) -> FilteringBoundLogger:
    """The logger of one room, e.g. `scheduler.handlers`; bind job_id, site and cause to what you log."""
    return cast(FilteringBoundLogger, structlog.get_logger(room=name))
