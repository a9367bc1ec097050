"""Logs each model without a price and each unknown call type once, and counts calls with a doubtful cost."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from streams.core.metering.notices import ASSUMED_REPEAT, COST_DIFFERS, Notices
from streams.core.metering.plausible_cost import IMPLAUSIBLE_COST

if TYPE_CHECKING:
    from connectors.telemetry.metrics import Metrics

#: The maximum number of logged names of one kind. Senders choose the names, so their number is not bounded.
MOST_NAMES = 100
DOUBTS = (IMPLAUSIBLE_COST, COST_DIFFERS, ASSUMED_REPEAT)

_log = structlog.get_logger(__name__)


class UnbilledUsageMonitor:
    """Reports calls that this process did not bill, or doubts, for a reason that an operator can fix."""

    def __init__(self, metrics: "Metrics") -> None:
        self._metrics = metrics
        self._unpriced = _Names("usage_unpriced", "model")
        self._unknown = _Names("call_type_unknown", "call_type")

    def noticed(self, noticed: Notices) -> None:
        """Report the notices of a durable step of the meter."""
        for reason, total in noticed.doubtful.items():
            self._metrics.doubtful_calls.labels(reason).inc(total.calls)
            self._metrics.doubtful_cost.labels(reason).inc(float(total.cost))
        self._metrics.unknown_types.inc(sum(noticed.unknown_types.values()))
        self._unpriced.say(noticed.unpriced)
        self._unknown.say(noticed.unknown_types)


class _Names:
    """Logs each name once, at most `MOST_NAMES` names."""

    def __init__(self, event: str, field: str) -> None:
        self._event = event
        self._field = field
        self._said: set[str] = set()

    def say(self, calls: Mapping[str, int]) -> None:
        for name, count in calls.items():
            if name in self._said or len(self._said) >= MOST_NAMES:
                continue
            self._said.add(name)
            _log.warning(self._event, **{self._field: name, "calls": count})
            if len(self._said) == MOST_NAMES:
                _log.warning("names_left_out", of=self._event, after=MOST_NAMES)
