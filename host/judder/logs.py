"""Structured logs on stderr: one JSON object a line. Samples and secrets are never logged."""

import json
import logging
import sys
from datetime import UTC, datetime

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError


class JsonLines(logging.Formatter):
    """Time, level, logger, message, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _calmly(record: logging.LogRecord) -> bool:
    """Somebody who does not speak HTTP is no error of ours, and worth a line, not a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (HttpProcessingError, RequestPayloadError)):  # the latter from what follows our answer
        said = " ".join(str(error).split())
        record.msg = f"bad HTTP request: {said[:120]}"
        record.args, record.exc_info = (), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def to_stderr(level: int = logging.INFO) -> None:
    """Send all logs of this process there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(_calmly)
    logging.basicConfig(level=level, handlers=[handler], force=True)
