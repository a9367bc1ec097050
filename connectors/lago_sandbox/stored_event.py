"""One stored copy of an event, the same in both stores."""

import msgspec


class Event(msgspec.Struct, gc=False):
    """One stored copy of an event.

    Fields:
        subscription: external id; it need not exist, and may be None.
        ts_us: event time, microseconds since 1970 UTC, cut to the store's precision.
        cents: plain decimal text, at most 15 decimals; None when absent.
        properties: a JSON object, keys sorted.
        received_us: when the request arrived.
        superseded: a later copy with the same key replaced it; it is still listed, never billed.
    """

    transaction_id: str
    subscription: str | None
    code: str
    ts_us: int
    cents: str | None
    properties: bytes
    received_us: int
    superseded: bool = False

    def same_content(self, other: "Event") -> bool:
        """Return whether both copies have the same code, timestamp, amount and properties."""
        return (
            self.code == other.code
            and self.ts_us == other.ts_us
            and self.cents == other.cents
            and self.properties == other.properties
        )
