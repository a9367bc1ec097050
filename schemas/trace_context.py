"""The W3C trace context that a record carries: https://www.w3.org/TR/trace-context/.

Only `traceparent` is stored: ids of a trace and of a span, and whether the trace is recorded. `tracestate` and `baggage`
are texts of other programs' choice, and are never stored.
"""

import re
from collections.abc import Iterable

#: The header of a Kafka record.
TRACEPARENT = "traceparent"

_RECORDED = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")


def recorded_parent(headers: Iterable[tuple[str, bytes | None]]) -> str:
    """Return the `traceparent` of a record whose trace is recorded; `""` = there is none, or it is malformed."""
    for name, value in headers:
        if name == TRACEPARENT and value is not None and _RECORDED.fullmatch(value):
            return value.decode()
    return ""
