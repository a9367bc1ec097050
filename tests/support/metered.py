"""Metered events as records of the raw topic; created by the code that stores them."""

from connectors.billing.metered_events import Value, metered
from connectors.billing.usage_recorder import record_of
from tests.support.calls import NOON, Raw


def recorded(
    transaction_id: str,
    /,
    *,
    org: str = "org",
    code: str = "api_call",
    at_us: int = NOON,
    received_us: int | None = None,
    **properties: Value,
) -> Raw:
    """Return a record of the raw topic; its time is when it was received."""
    received = at_us if received_us is None else received_us
    event = metered(org, code, transaction_id, properties, at_us / 1_000_000, received)
    _, key, value, time_ms = record_of(event, "", received)
    assert key is not None
    return Raw(0, time_ms, key.encode(), value)
