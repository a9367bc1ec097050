"""Starts the traces of one process, gives them to its parts, and stops them.

OpenTelemetry is imported only by `start_tracing`, and without traces no part of a process calls this module. So traces
cost nothing if they are off (tests/unit/telemetry/test_tracing_off.py).
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import structlog

from connectors.config.tracing_settings import TracingConfig
from connectors.telemetry.logs import add_trace_ids
from schemas.errors import ConfigurationError
from schemas.topics import TopicNames
from streams.agents.traces import DeliveryTraces, MeterTraces
from streams.core.delivery.batches import EventOutcome
from streams.delivery.lago_port import LagoEventsApi

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from connectors.telemetry.traces.delivery import DeliverySpans
    from streams.core.metering.step_changes import Changes

#: How long a process that stops waits for its last spans, seconds: shorter than the time limit of a stop, even if the
#: receiver does not answer.
LAST_SPANS_S: Final = 1.0

_log = structlog.get_logger(__name__)


class Tracing:
    """The traces of a process, or of one role of it; see `start_tracing`.

    Attributes:
        ingress: spans of the webhooks.
    """

    #: How many are not closed in this process. Log lines, which are one for the process, have ids until the last one is.
    _open = 0

    def __init__(self, provider: "TracerProvider") -> None:
        from connectors.telemetry.traces.context import current_ids
        from connectors.telemetry.traces.ingress import IngressTraces

        self._provider = provider
        self._tracer = provider.get_tracer("meterbridge")
        self._delivery: DeliverySpans | None = None
        self.ingress: IngressTraces = IngressTraces(self._tracer)
        Tracing._open += 1
        add_trace_ids(current_ids)

    def of_role(self, topics: TopicNames, group: str) -> "GuardedTraces":
        """Return the spans of a worker's role. If the role posts, call `over_lago` first."""
        from connectors.telemetry.traces.meter import MeterSpans

        return GuardedTraces(MeterSpans(self._tracer, topics, group), self._spans_of_delivery(group))

    def over_lago(self, lago: LagoEventsApi, url: str, group: str) -> LagoEventsApi:
        """Return `lago` with spans around the posts of traced events. `url`: of its API."""
        return self._spans_of_delivery(group).over(lago, url)

    @staticmethod
    def record_headers() -> list[tuple[str, bytes]] | None:
        """See `connectors.telemetry.traces.ingress.record_headers`."""
        from connectors.telemetry.traces.ingress import record_headers

        return record_headers()

    @staticmethod
    def request_hook() -> Callable[[Any], Awaitable[None]]:
        """Return a hook of httpx that sends Lago the `traceparent` of a post."""
        from connectors.telemetry.traces.delivery import tell_lago

        return tell_lago

    async def close(self) -> None:
        """Export the last spans, for at most `LAST_SPANS_S`."""
        Tracing._open -= 1
        if not Tracing._open:
            add_trace_ids(None)
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        await asyncio.to_thread(last.join, LAST_SPANS_S)

    def _spans_of_delivery(self, group: str) -> "DeliverySpans":
        from connectors.telemetry.traces.delivery import DeliverySpans

        if self._delivery is None:
            self._delivery = DeliverySpans(self._tracer, group)
        return self._delivery


class GuardedTraces:
    """The spans of a role. The first bug in the tracing code ends the traces, and usage is still billed.

    This is the only place that continues after any exception, because no decision depends on traces. The exception is
    logged.
    """

    def __init__(self, meter: MeterTraces, delivery: DeliveryTraces) -> None:
        self._meter = meter
        self._delivery = delivery
        self._is_broken = False

    def step(self, records: Sequence[Any], changes: "Changes", began_us: int) -> Callable[[], None]:
        """See `streams.agents.traces.MeterTraces`."""
        committed = self._tried(lambda: self._meter.step(records, changes, began_us))
        return lambda: self._tried(committed) if committed is not None else None

    def delivering(self, records: Sequence[Any]) -> Callable[[Sequence[EventOutcome]], None]:
        """See `streams.agents.traces.DeliveryTraces`."""
        settled = self._tried(lambda: self._delivery.delivering(records))
        return lambda outcomes: self._tried(lambda: settled(outcomes)) if settled is not None else None

    def _tried(self, work: Callable[[], Any]) -> Any:
        if self._is_broken:
            return None
        try:
            return work()
        except Exception:  # noqa: BLE001  # a bug in the traces must not stop billing
            self._is_broken = True
            _log.exception("traces_failed", see="docs/tracing.md")
            return None


def start_tracing(config: TracingConfig | None, count: Callable[[str, int], None]) -> Tracing | None:
    """Begin to record traces; None = they are off. `count(outcome, spans)` is called in any thread.

    Raises:
        ConfigurationError: the packages of OpenTelemetry are not installed.
    """
    if config is None:
        return None
    try:
        from connectors.telemetry.traces.provider import make_provider
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        sentence = "TRACING_ENABLED needs the packages of OpenTelemetry: pip install -c constraints.txt '.[otel]' in the sources"
        raise ConfigurationError("TRACING_ENABLED", sentence) from error
    return Tracing(make_provider(config, version("meterbridge"), count))
