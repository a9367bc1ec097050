"""Logs each model without a price and each unknown call type once, and counts calls with a doubtful cost."""

from collections.abc import Mapping

import structlog
from prometheus_client import CollectorRegistry, Counter

from streams.core.metering.notices import ASSUMED_REPEAT, COST_DIFFERS, Notices
from streams.core.metering.plausible_cost import IMPLAUSIBLE_COST

#: How many names of one kind a process logs. Senders choose the names, so there may be any number.
MOST_NAMES = 100
DOUBTS = (IMPLAUSIBLE_COST, COST_DIFFERS, ASSUMED_REPEAT)

_log = structlog.get_logger(__name__)


class UnbilledUsageMonitor:
    """Reports calls that this process did not bill, or doubts, for a reason that an operator can fix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._unpriced = _Names("usage_unpriced", "model")
        self._unknown = _Names("call_type_unknown", "call_type")
        self._doubtful = Counter(
            "meterbridge_doubtful_calls", "Calls whose cost was doubted, by reason.", ["reason"], registry=registry
        )
        self._doubtful_cost = Counter(
            "meterbridge_doubtful_cost_usd", "Dollars of calls whose cost was doubted.", ["reason"], registry=registry
        )
        self._unknown_types = Counter(
            "meterbridge_unknown_call_type_calls",
            "Calls of a type that this release does not know; they count as inference.",
            registry=registry,
        )
        for reason in DOUBTS:
            self._doubtful.labels(reason)
            self._doubtful_cost.labels(reason)

    def noticed(self, noticed: Notices) -> None:
        """Report what a durable step of the meter noticed."""
        for reason, total in noticed.doubtful.items():
            self._doubtful.labels(reason).inc(total.calls)
            self._doubtful_cost.labels(reason).inc(float(total.cost))
        self._unknown_types.inc(sum(noticed.unknown_types.values()))
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
