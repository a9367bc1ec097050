"""What the roles tell of their work while traces are recorded (docs/tracing.md).

Traces never decide anything: an implementation must not raise, and must not wait.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from aiokafka import ConsumerRecord

from streams.core.delivery.batches import EventOutcome

if TYPE_CHECKING:
    # An ingress loads this module, and has no other use for numpy, which the meter's state needs.
    from streams.core.metering.step_changes import Changes


class MeterTraces(Protocol):
    """Records the spans of the meter."""

    def step(self, records: Sequence[ConsumerRecord], changes: "Changes", began_us: int) -> Callable[[], None]:
        """Before a step is committed; call the result after it.

        It may set `traceparent` of the sealed parts.

        Args:
            records: those that the step folded.
            began_us: when the step began, microseconds since 1970 UTC.
        """


class DeliveryTraces(Protocol):
    """Records the spans of the sink and the retry role."""

    def delivering(self, records: Sequence[ConsumerRecord]) -> Callable[[Sequence[EventOutcome]], None]:
        """Before events are posted; call the result with their outcomes once these are durable, or with none if the events are
        given back, or an error ends the work.
        """


class Traces(MeterTraces, DeliveryTraces, Protocol):
    """Records the spans of any role."""
