"""Gives a call that was counted without a price the price of a copy, so that it can be sent again with its old
identity.

The copy may come from LiteLLM's database, which has other ids and times, or from a price list with little more than the
request id. The meter recognises the call only by its identity. So the ids, the start and the customer from the usage
log replace those of the copy.
"""

from decimal import Decimal

import msgspec
from msgspec import Raw

from connectors.operations.dead_letters import usage_of
from schemas.moments import to_iso
from schemas.wire import FLAT, SLP
from streams.core.metering.identity import identity_of
from streams.core.metering.matching import LoggedCall

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


def as_counted(stored: bytes, row: LoggedCall, unit: Decimal) -> tuple[bytes, bytes]:
    """Return key and value for the raw topic: `stored` with the identity of `row`, if that identity can be made.

    Some usage has an identity that is not made of ids, status and start: a polled job, or an event of another sender.
    It keeps its own members, with the key of `row`.

    Args:
        stored: a value of the raw topic.
        unit: the smallest amount that is stored, dollars.
    """
    key = row.customer_id.encode()
    envelope = _members(stored)
    envelope["id_kind"] = Raw(_encode(row.id_kind))
    if msgspec.json.decode(envelope["shape"]) in (SLP, FLAT) and (status := _status_of(row)) is not None:
        call = _members(envelope["call"])
        for name in ("request_id", "timestamp"):
            call.pop(name, None)
        token_counts = {
            "id": row.request_id,
            "litellm_call_id": row.call_id,
            "status": status,
            "startTime": to_iso(row.start_us),
        }
        counted = {name: Raw(_encode(value)) for name, value in token_counts.items() if value}
        for name in token_counts:
            call.pop(name, None)
        value = _encode({**envelope, "call": Raw(_encode({**call, **counted}))})
        usage = usage_of(value, row.customer_id, unit)
        if usage is not None and usage.identity == row.identity:
            return key, value
    return key, _encode(envelope)


def _status_of(row: LoggedCall) -> str | None:
    """Return the status in the row's identity, which may be `""`; None = the identity is made of other members."""
    for status in (row.status, ""):
        if identity_of("litellm", row.call_id, row.request_id, status, str(row.start_us // 1000)) == row.identity:
            return status
    return None
