"""Reads a rejected call again, with the rules of this release and without the fields for which the ingress rejected it.

A rejection keeps the readable rest of a call, and names the unreadable fields. If only a detail is missing (a count, a
flag), the rest is sent as the call. If a cost, an id, a time or the customer is missing, the debtor or the amount is
unknown, and the call stays rejected.
"""

from typing import Any, Final

import msgspec

from connectors.ingest.body_splitter import WrappedCalls
from connectors.ingest.raw_record import strip
from connectors.ingest.rejection_record import InvalidElement
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected
from schemas.reasons import BAD_NUMBER, WRONG_TYPE
from schemas.records import Rejection
from schemas.wire import CLOUDEVENT, FLAT, LAGO

#: Last parts of names of fields that decide about money. Without such a field the call may have another identity,
#: customer or cost.
_DECISIVE: Final = frozenset(
    {
        *("id", "request_id", "litellm_call_id", "transaction_id", "source", "subject", "time"),
        *("startTime", "endTime", "timestamp"),
        *("spend", "response_cost", "cost_usd", "cost", "precise_total_amount_cents"),
        *(
            "end_user",
            "user",
            "user_id",
            "team_id",
            "organization_id",
            "api_key",
            "customer_id",
            "external_customer_id",
            "external_subscription_id",
        ),
        *("user_api_key_hash", "user_api_key_user_id", "user_api_key_team_id", "user_api_key_org_id"),
        *("user_api_key_end_user_id", "metadata", "properties", "data", "cloud_event"),
    }
)
_members = msgspec.json.Decoder(dict[str, Any]).decode
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_again(refused: Rejection, fields: tuple[str, ...]) -> tuple[str, bytes] | None:
    """Return key and value for the raw topic for a call that the ingress rejected; None = it would be rejected again.

    Args:
        fields: `CUSTOMER_ID_FIELDS`.
    """
    if not isinstance(refused.call, msgspec.Raw):
        return None
    if refused.reason in (WRONG_TYPE, BAD_NUMBER) and not _details_alone(refused.detail):
        return None
    element = bytes(refused.call)
    try:
        call = _members(element)
        shape = FLAT
        if "cloud_event" in call:
            shape, element = CLOUDEVENT, bytes(_parts(element)["cloud_event"])
        elif call.get("transaction_id") is not None and "external_subscription_id" in call:
            shape = LAGO
        return strip(element, shape, refused.at, fields)
    except (InvalidElement, WrappedCalls, Rejected, *UNDECODABLE):
        return None


def _details_alone(names: str) -> bool:
    """Return whether all dropped fields are mere details, and none decides about money."""
    return bool(names) and all(name.rpartition(".")[2] not in _DECISIVE for name in names.split(", "))
