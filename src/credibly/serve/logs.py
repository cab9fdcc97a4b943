"""One JSON object a line on standard error: what happened, and never what anyone typed."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

log = logging.getLogger("credibly.serve")


def tell(event: str, level: int = logging.INFO, **facts: object) -> None:
    """Log an event with its facts, none of which may be a caller's text."""
    log.log(level, event, extra={"facts": facts})


def tell_failure(event: str, error: BaseException) -> None:
    """Log an error by its kind and place: its message may quote a text."""
    tell(event, logging.ERROR, **failure(error))


def failure(error: BaseException) -> dict[str, Any]:
    """Return an error's kind, and where it was raised, innermost last."""
    return {"error": type(error).__name__, "where": places(error.__traceback__)}


def places(trace: TracebackType | None) -> list[str]:
    """Return file, line and function of the last frames of a traceback."""
    frames = traceback.extract_tb(trace)[-8:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON; of an error its kind and its place."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        facts: Mapping[str, object] = getattr(record, "facts", {})
        error = record.exc_info[1] if record.exc_info else None
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
            **facts,
            **(failure(error) if error else {}),
        }
        return json.dumps(line, ensure_ascii=False, default=str)


def set_service_log(quiet: bool = False) -> None:
    """Send the service's lines, and those of what it stands on, to standard error; errors only if quiet."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("credibly", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.ERROR if quiet else level)
