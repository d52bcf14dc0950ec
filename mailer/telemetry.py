"""Every log line of the package: dotted names and fields, no prose, no addresses, bodies or tokens.

Lines go to the standard logger ``mailer``, so a host application's logging decides where they end up.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import structlog

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def escape_controls(text: str) -> str:
    """IN6: a line break or an escape sequence must not start a line or colour a terminal."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _escape_values(_logger: Any, _method: str, fields: Any) -> Any:
    return {key: escape_controls(value) if isinstance(value, str) else value for key, value in fields.items()}


log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    logging.getLogger("mailer"),
    wrapper_class=structlog.stdlib.BoundLogger,
    processors=[
        structlog.stdlib.filter_by_level,
        _escape_values,
        structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False),
    ],
)


def configure_logging(level: str) -> None:
    """For the ``mailer`` command: timestamped lines on standard error, Celery's chatter held back."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("celery", "kombu", "waitress", "mail.log", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
