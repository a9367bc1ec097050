"""The SDK's log lines, through `logging`: the logger is `meterbridge_sdk`."""

import json
import logging

_logger = logging.getLogger("meterbridge_sdk")


def log_event(level: int, event: str, error: BaseException | None = None, /, **fields: object) -> None:
    """Write `event {"field": ...}`; the record's attribute `meterbridge` has the fields as a mapping, for handlers.

    Args:
        level: of `logging`, `logging.ERROR` for example.
        event: what happened, lower-case words and underscores.
        error: whose traceback is added; None = no traceback.
    """
    text = json.dumps(fields, ensure_ascii=False, default=str)
    _logger.log(level, "%s %s", event, text, exc_info=error, extra={"meterbridge": {"event": event, **fields}})
