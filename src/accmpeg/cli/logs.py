"""Structured logs on stderr: `key=value` lines for people and grep, or JSON lines for collectors.

Records carry their fields in `extra`: `log.info("camera connected", extra={"camera": "gate"})`.
"""

import json
import logging
import sys
import time
from enum import StrEnum
from typing import Any

__all__ = ["LogFormat", "LogLevel", "set_up_logs"]

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}


class LogFormat(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe records that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up_logs(log_format: LogFormat = LogFormat.TEXT, level: LogLevel = LogLevel.INFO) -> None:
    """Sends the records of this package, and warnings of all others, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if log_format is LogFormat.JSON else _KeyValues())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("accmpeg").setLevel(level.upper())


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    fields = {
        "time": f"{moment}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "event": record.getMessage(),
    }
    fields |= {key: value for key, value in record.__dict__.items() if key not in _PLAIN and key[0] != "_"}
    if record.exc_info:
        fields["error"] = logging.Formatter().formatException(record.exc_info)
    return fields


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record), default=str)


class _KeyValues(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record).items())


def _quoted(value: Any) -> str:
    text = str(value)
    # One record is one line, whatever a client put into a name or reason.
    return text if text and all(c.isprintable() and c not in ' "=' for c in text) else json.dumps(text)
