"""The counters and log lines of the plugin. Each event is logged at most once a minute, and counted every time."""

import json
import logging
import threading
import time
from collections import Counter
from typing import Any, Final

try:  # LiteLLM's image contains this library; the proxy shows the metrics at /metrics if its `prometheus` callback is enabled
    from prometheus_client import Counter as _Exported
except ImportError:
    _exported = None
else:
    _exported = _Exported("meterbridge_litellm_records", "Records of calls, by what became of them", ["outcome"])

_QUIET_S: Final = 60.0
_log = logging.getLogger("meterbridge_litellm")


class Counts:
    """Numbers of records since the process began, by outcome.

    Outcomes: `kept`, `posted`, `rejected`, `shed`, `unreadable`, `unconfirmed`; of calls `admitted_unasked`,
    `refused_unasked`; and `damaged_bytes`.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._warned_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, outcome: str, number: int = 1) -> None:
        with self._lock:
            self._counts[outcome] += number
        if _exported is not None:
            _exported.labels(outcome).inc(number)

    def warn(self, event: str, **fields: Any) -> None:
        """Log a warning with the event's name, the fields and the counts as JSON, and never a payload, a key or a
        customer.
        """
        now = time.monotonic()
        with self._lock:
            if now - self._warned_at.get(event, -_QUIET_S) < _QUIET_S:
                return
            self._warned_at[event] = now
            counts = dict(self._counts)
        _log.warning("%s %s", event, json.dumps({**fields, "counts": counts}))

    def all(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)
