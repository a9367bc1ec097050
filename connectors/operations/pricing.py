"""Gives a call that was counted without a price the price of a copy, so that it can be sent again with its old
identity.

The copy may come from LiteLLM's database, which has other ids and times, or from a price list with little more than the
request id. The meter recognises the call only by its identity. So the ids, the start and the customer from the usage
log replace those of the copy. What the copy does not have (model, tokens, end, team, the user's own key ...) comes from the log, too: an event,
a rate card and the log itself need it.
"""

from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from connectors.operations.dead_letters import usage_of
from schemas.moments import to_iso
from schemas.normalised_call import TOKENS, Usage
from schemas.wire import FLAT, SLP
from streams.core.metering.identity import identity_of
from streams.core.metering.matching import LoggedCall, LoggedDetails

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_NULL: Final = Raw(b"null")
#: The members of a call that hold names and tokens, by the name in the log.
_NAMES: Final = {
    "provider": "custom_llm_provider",
    "call_type": "call_type",
    "user_id": "user_id",
    "team_id": "team_id",
    "organization_id": "organization_id",
    "key_hash": "api_key",
    "key_alias": "key_alias",
}
_TOKENS: Final = {name: name for name in TOKENS} | {
    "tokens_input": "prompt_tokens",
    "tokens_output": "completion_tokens",
}


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
    if msgspec.json.decode(envelope["shape"]) in (SLP, FLAT) and (made_of := _made_of(row)) is not None:
        call = _members(envelope["call"])
        copy = usage_of(stored, row.customer_id, unit)
        if copy is not None and row.details is not None:
            _complete(envelope, call, copy, row.model, row.details)
        for name in ("request_id", "timestamp"):
            call.pop(name, None)
        token_counts = {
            "id": row.request_id,
            "litellm_call_id": row.call_id,
            "status": made_of.status,
            "startTime": to_iso(row.start_us) if made_of.start else "",
        }
        if not made_of.start and call.get("endTime", _NULL) == _NULL:
            call["endTime"] = Raw(
                _encode(to_iso(row.start_us))
            )  # its sender gave no time, so it has that of its receipt
        counted = {name: Raw(_encode(value)) for name, value in token_counts.items() if value}
        for name in token_counts:
            call.pop(name, None)
        value = _encode({**envelope, "call": Raw(_encode({**call, **counted}))})
        usage = usage_of(value, row.customer_id, unit)
        if usage is not None and usage.identity == row.identity:
            return key, value
    return key, _encode(envelope)


def _complete(envelope: dict[str, Raw], call: dict[str, Raw], copy: Usage, model: str, details: LoggedDetails) -> None:
    """Add what the log knows of a call and its copy does not say."""
    found: dict[str, Any] = {} if copy.model else {"model": model}
    found |= {field: getattr(details, name) for name, field in _NAMES.items() if not getattr(copy, name)}
    if not (copy.total_tokens or copy.cache_write_tokens or copy.images or copy.seconds):
        found |= {field: getattr(details, name) for name, field in _TOKENS.items()}
        units = {
            "cache_creation_input_tokens": details.cache_write_tokens,
            "output_image_count": details.images,
            "seconds": Raw(str(details.seconds).encode()) if details.seconds else 0,
        }
        if used := {name: count for name, count in units.items() if count}:
            metadata = msgspec.json.decode(call.get("metadata", b"null"), type=dict[str, Raw] | None) or {}
            found["metadata"] = {**metadata, "usage_object": used}
    if details.byok and not copy.byok:
        found["byok"] = True
    if details.end_us and call.get("endTime", _NULL) == _NULL:
        found["endTime"] = to_iso(details.end_us)
    call |= {name: Raw(_encode(value)) for name, value in found.items() if value}
    if details.power_level and "power_level" not in envelope:
        envelope["power_level"] = Raw(_encode(details.power_level))


class _MadeOf(NamedTuple):
    """What the identity of a call of LiteLLM is made of, besides its ids. Both may be `""`."""

    status: str
    start: str


def _made_of(row: LoggedCall) -> _MadeOf | None:
    """Return what the row's identity is made of; None = of other members."""
    for start in (str(row.start_us // 1000), ""):
        for status in (row.status, ""):
            if identity_of("litellm", row.call_id, row.request_id, status, start) == row.identity:
                return _MadeOf(status, start)
    return None
