"""A record of the events or the retry topic with its decoded parts. Each part is decoded once."""

from typing import Final

import msgspec
from aiokafka import ConsumerRecord

from schemas.organizations import DEFAULT, is_name
from schemas.record_sizes import is_outsized_event
from schemas.records import LagoEvent, Manifest
from streams.core.delivery.backoff import RETRY_CAP_S
from streams.core.delivery.dead_letter_headers import DeliveryHistory, delivery_history_of
from streams.state.step_writes import read_event, read_manifest

_UNREAD: Final = LagoEvent("", "", "", "", "", {})


class ReceivedEvent:
    """A record and its decoded parts.

    Fields:
        manifest: the calls that the event bills; None = the header is absent or unreadable.
        organization: its Lago organisation; the default one if the record names none or an invalid one.
    """

    __slots__ = ("_event", "_history", "manifest", "organization", "record")

    def __init__(self, record: ConsumerRecord) -> None:
        self.record = record
        self.manifest = manifest = manifest_in(record)
        named = "" if manifest is None else manifest.organization
        self.organization = named if named and is_name(named) else DEFAULT
        self._event: LagoEvent | None = _UNREAD
        self._history: DeliveryHistory | None = None

    @property
    def event(self) -> LagoEvent | None:
        """The event; None if the record is no event. Events of other senders are not read."""
        if self._event is _UNREAD:
            self._event = event_in(self.record)
        return self._event

    @property
    def is_outsized(self) -> bool:
        """Whether the record is too large to be written on: the meter writes none."""
        return is_outsized_event(self.record, self.record.headers)

    @property
    def history(self) -> DeliveryHistory:
        """The earlier attempts to deliver the event."""
        if self._history is None:
            self._history = delivery_history_of(self.record.headers)
        return self._history

    @property
    def due_ms(self) -> int:
        """When the event may be posted, milliseconds since 1970 UTC. It is at most `RETRY_CAP_S` after the time of the
        record, even if the header says later.
        """
        return min(self.history.not_before_ms, int(self.record.timestamp + RETRY_CAP_S * 1000))

    @property
    def calls(self) -> int:
        """Number of calls that the event bills; 0 = unknown."""
        return 0 if self.manifest is None else self.manifest.count


def event_in(record: ConsumerRecord) -> LagoEvent | None:
    """Return the event of a record; None if the record is no event."""
    try:
        return read_event(record.value or b"")
    except msgspec.DecodeError:
        return None


def manifest_in(record: ConsumerRecord) -> Manifest | None:
    """Return the manifest in a record's headers; None if it is absent or unreadable."""
    try:
        return read_manifest(dict(record.headers))
    except msgspec.DecodeError:
        return None
