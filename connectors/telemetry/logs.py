"""Logging: one JSON object per line on stderr, for our own events and those of libraries, with all secrets masked.

Normal traffic logs nothing. Masking is the last step before the text is made. It masks by the name of a field and by
the form of a string, and never prints objects of unknown types, because their repr may contain a payload.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Final, Literal, TextIO
from uuid import UUID

import structlog
from structlog.typing import EventDict, Processor

from connectors.telemetry.log_throttle import LogRateLimit, OncePerWhile, a_few_a_minute
from connectors.telemetry.printable import shown, shown_in

#: Gives trace id and span id of the current span; None = traces are off. Set by `add_trace_ids`.
_trace_ids: Callable[[], tuple[str, str] | None] | None = None
#: The id of the HTTP request that is being answered; all log lines of the request have it.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

REDACTED: Final = "[redacted]"

#: Names of fields that are always secret, and of fields that are secret unless they hold a number: `tokens` is often a count.
_ALWAYS_SECRET = re.compile(
    r"(^|[^a-z])(authorization|cookie|credential|password|secret|signature|(api|master|private)[^a-z]?key)s?$"
)
_SECRET_TEXT = re.compile(r"(^|[^a-z])(token|body|bodies|content|input|messages|output|payload|prompt|response)s?$")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
#: Each pattern takes time linear in the length of the text, because a client may send a long text to slow the process
#: down.
_SECRET_LOOKS: Final[tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), rf"\1 {REDACTED}"),
    (re.compile(r"\bsk-[\w-]{6,}"), REDACTED),
    (re.compile(r"\b(?:[sr]k_(?:live|test)|whsec)_\w{6,}"), REDACTED),
    (re.compile(r"\b(mb_[0-9a-f]+)_[\w-]{20,}"), rf"\1_{REDACTED}"),
    (re.compile(r"(?<![\w.-])[\w-]++(?:\.[\w-]*+|(?!))++"), lambda found: _without_jwt(found[0])),
    (re.compile(r"(?<=://)[^/\s]++"), lambda found: _without_user(found[0])),
)
#: header.payload.signature
_JWT_DOTS: Final = 2
_PRINTED_AS_TEXT = (Decimal, UUID, PurePath, date, timedelta, BaseException)

#: Libraries that log normal traffic. They stay at INFO even with DEBUG: the debug lines of aiokafka hold whole
#: requests, with SASL passwords and records.
_TALKATIVE: Final = (
    "aiohttp",
    "aiokafka",
    "asyncio",
    "faust",
    "httpcore",
    "httpx",
    "kafka",
    "librdkafka",
    "mode",
    "stripe",
)


def configure_logging(level: str, style: Literal["json", "console"], stream: TextIO | None = None) -> None:
    """Send all log lines of this process to `stream` (default stderr). A second call replaces the first configuration.

    Args:
        level: `DEBUG`, `INFO`, `WARNING` or `ERROR`.
        style: `json`: one object per line; `console`: for people.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _add_ids,
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, _renderer(style, stream)],
        )
    )
    for bound in (OncePerWhile(), a_few_a_minute(), LogRateLimit()):
        handler.addFilter(bound)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel("INFO" if level == "DEBUG" else max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Remove secrets, payloads and unknown objects from an event; this is a structlog processor."""
    return {name: _field(name, value) for name, value in event.items()}


def _field(name: str, value: object) -> object:
    name = _HUMP.sub("_", name).lower()
    if value is None:
        return None
    if _ALWAYS_SECRET.search(name) or (_SECRET_TEXT.search(name) and not isinstance(value, int | float)):
        return REDACTED
    return _clean(value)


def _clean(value: object) -> object:
    match value:
        case Enum():
            return _clean(value.value)
        case str():
            return _mask(value)
        case None | bool() | int():
            return value
        case float():
            return value if isfinite(value) else str(value)
        case bytes() | bytearray() | memoryview():
            return f"[{len(value)} bytes]"
        case Mapping():
            return {_mask(str(name)): _field(str(name), inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(inner) for inner in value]
        case _ if isinstance(value, _PRINTED_AS_TEXT):
            return _mask(str(value))
        case _:
            return f"[{type(value).__name__}]"


def _without_jwt(words: str) -> str:
    """Return a text of words and dots without the JWT in it."""
    at = words.find("eyJ")
    return words if at < 0 or words.count(".", at) < _JWT_DOTS else f"{words[:at]}{REDACTED}"


def _without_user(authority: str) -> str:
    """Return the host of a URL without `user:password@`."""
    user, at, host = authority.rpartition("@")
    return f"{REDACTED}@{host}" if at and ":" in user else authority


def _mask(text: str) -> str:
    for look, replacement in _SECRET_LOOKS:
        text = look.sub(replacement, text)
    return text


def add_trace_ids(current: Callable[[], tuple[str, str] | None] | None) -> None:
    """Write `trace_id` and `span_id` into each log line for which `current()` returns them; None = no more."""
    global _trace_ids  # noqa: PLW0603  # logging is one for the whole process
    _trace_ids = current


def _add_ids(_logger: object, _method: str, event: EventDict) -> EventDict:
    if (request_id := REQUEST_ID.get()) is not None:
        event["request_id"] = request_id
    if _trace_ids is not None and (ids := _trace_ids()) is not None:
        event["trace_id"], event["span_id"] = ids
    return event


def _renderer(style: str, stream: TextIO) -> Processor:
    if style == "json":
        return structlog.processors.JSONRenderer(serializer=json.dumps)
    # The default formatter of tracebacks is not used: it prints local variables, which may contain payloads.
    render = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)

    def for_people(logger: object, method: str, event: EventDict) -> object:
        """Escape control characters for the console; JSON already escapes them."""
        traceback = event.pop("exception", None)
        event = shown_in(dict(event))
        if traceback is not None:
            event["exception"] = shown(str(traceback), lines=True)
        return render(logger, method, event)

    return for_people  # type: ignore[return-value]  # a renderer, the last of the chain
