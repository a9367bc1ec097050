"""Writes recorded usage to the raw topic. The usage is durable before the caller gets a response."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from connectors.billing.metered_events import MeteredEvent
from connectors.kafka.producer import Record
from schemas.wire import API, ENVELOPE_VERSION, METERED, ORG, Metered

_encode = msgspec.json.Encoder().encode


class UsageWriter(Protocol):
    """Stores a record durably; see `CheckedProducer.send_one`."""

    async def send_one(self, record: Record) -> tuple[int, int]: ...


class _MeteredEnvelope(msgspec.Struct, gc=False):
    """A `RawRecord` without a call."""

    v: int
    source: str
    shape: str
    received_at: int
    id_kind: str
    metered: Metered
    call: dict[str, str] = {}


class KafkaUsage:
    """Implements `connectors.billing.metered_events.UsageSink` with `litellm.usage.raw`.

    The meter counts an event once, even if it is stored twice. So the caller may repeat an event if it got no response.

    Args:
        named: called with each org for which usage was recorded.
        now_us: microseconds since 1970 UTC.
    """

    def __init__(
        self, writer: UsageWriter, topic: str, *, now_us: Callable[[], int], named: Callable[[str], None] | None = None
    ) -> None:
        self._writer = writer
        self._topic = topic
        self._now_us = now_us
        self._named = named

    async def record(self, event: MeteredEvent) -> None:
        """See `UsageSink`."""
        await self._writer.send_one(record_of(event, self._topic, self._now_us()))
        if self._named is not None:
            self._named(event.org_id)


def record_of(event: MeteredEvent, topic: str, now_us: int) -> Record:
    """Return the event as it is stored. Its key is the org, so that repeats are on the same partition."""
    metered = Metered(event.org_id, event.transaction_id, event.code, event.at_us, event.properties, event.actor)
    value = _encode(_MeteredEnvelope(ENVELOPE_VERSION, API, METERED, now_us, ORG, metered))
    return topic, event.org_id, value, now_us // 1000
