"""Reads the ids from what is kept of a rejected call, so that it can be found; the rules may refuse any of its fields."""

from typing import Any

import msgspec

from schemas.bounded_name import bounded_name
from schemas.decoding import UNDECODABLE
from schemas.records import Rejection

#: The fields that may hold an id of a call, the one that people know first.
_NAMES = ("request_id", "id", "transaction_id", "litellm_call_id")
_members = msgspec.json.Decoder(dict[str, Any]).decode


def ids_of(refused: Rejection) -> tuple[str, ...]:
    """Return the ids of a rejected call, each once: the request id, or the id of its event, before LiteLLM's call id.

    The result is empty if nothing with an id was kept. A long id is bounded as in the usage log, see `bounded_name`.
    """
    if not isinstance(refused.call, msgspec.Raw):
        return ()
    try:
        kept = _members(bytes(refused.call))
    except UNDECODABLE:
        return ()
    ids: list[str] = []
    for holder in (kept, *_inner(kept)):
        ids += [bounded_name(str(holder[name])) for name in _NAMES if _is_id(holder.get(name))]
    return tuple(dict.fromkeys(ids))


def _inner(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects in which a call is kept: the meter keeps an envelope, and a CloudEvent is a field of a call."""
    found = [inner for name in ("call", "metered") if isinstance(inner := kept.get(name), dict)]
    events = [event for call in (kept, *found) if isinstance(event := call.get("cloud_event"), dict)]
    return [*found, *events]


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""
