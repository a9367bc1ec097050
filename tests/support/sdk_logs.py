"""The SDK's log lines, which go through `logging`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = vars(record)["meterbridge"]
        self.all.append({**fields, "level": record.levelname, "error": record.exc_info and record.exc_info[1]})


@contextmanager
def sdk_logs() -> Iterator[list[dict[str, Any]]]:
    """Lines logged inside: their fields, with `event`, `level`, and the `error` whose traceback is shown."""
    logger, lines = logging.getLogger("meterbridge_sdk"), _Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines.all
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
