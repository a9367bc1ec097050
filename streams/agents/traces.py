"""The interface through which the roles report their work if traces are recorded (docs/tracing.md).

Traces never change the result. An implementation must not raise, and must not wait.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from aiokafka import ConsumerRecord

from streams.core.delivery.batches import EventOutcome

if TYPE_CHECKING:
    # An ingress imports this module, and must not import numpy, which the meter's state needs.
    from streams.core.metering.step_changes import Changes


class MeterTraces(Protocol):
    """Records the spans of the meter."""

    def step(self, records: Sequence[ConsumerRecord], changes: "Changes", began_us: int) -> Callable[[], None]:
        """Begin a span before a step is committed. Call the result after the commit. It may set `traceparent` of the
        sealed parts.

        Args:
            records: the records that the step folded.
            began_us: start of the step, microseconds since 1970 UTC.
        """


class DeliveryTraces(Protocol):
    """Records the spans of the sink and the retry role."""

    def delivering(self, records: Sequence[ConsumerRecord]) -> Callable[[Sequence[EventOutcome]], None]:
        """Begin a span before events are posted. Call the result with the outcomes as soon as they are durable. Call it
        without outcomes if the events are given back or an error ends the work.
        """


class Traces(MeterTraces, DeliveryTraces, Protocol):
    """Records the spans of any role."""
