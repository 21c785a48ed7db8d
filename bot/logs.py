"""How the log is written: structlog, one line an event, JSON unless a person is watching.

Never in it: tokens, signatures, response addresses, payloads. The libraries below us log such things at their lower
levels, so they are only heard from `WARNING` (Bolt, which prints bodies in warnings, from `ERROR`) on.
"""

from __future__ import annotations

import logging
import sys

import structlog

_QUIET = {
    "slack_bolt": logging.ERROR,
    "slack_sdk": logging.ERROR,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
}


def configure_logs(*, is_json: bool | None = None, least: int = logging.NOTSET) -> None:
    """Sets the process's log up, on standard error; `least` is the lowest level that is written."""
    as_json = not sys.stderr.isatty() if is_json is None else is_json
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)


def get_log() -> structlog.stdlib.BoundLogger:
    log: structlog.stdlib.BoundLogger = structlog.get_logger()
    return log
