"""Finds the shape and the customer of a call. The customer is the Kafka key, by the same rule on every route.

LiteLLM names up to five parties of a call; the deployment chooses their order (`CUSTOMER_ID_FIELDS`). A call without a
party belongs to `UNATTRIBUTED`: it is held, never dropped. The user and the key of LiteLLM's master key do not count as
parties.
"""

from collections.abc import Callable

from schemas.customer_id import UNATTRIBUTED, normalise_customer_id
from schemas.errors import Rejected
from schemas.wire import (
    CLOUDEVENT,
    FLAT,
    INTEGRATION,
    LAGO,
    SLP,
    Call,
    CallMetadata,
    CloudEvent,
    CloudEventData,
    Id,
)

_NO_METADATA, _NO_DATA = CallMetadata(), CloudEventData()
_UNNAMED = (UNATTRIBUTED, "unattributed")

#: LiteLLM's names for the owner of the master key. They are no customers.
MASTER_USER, MASTER_KEY = "default_user_id", "litellm_proxy_master_key"
_NO_NAMES = {"user": MASTER_USER, "key": MASTER_KEY}
#: The fields of each party in LiteLLM's shapes: at the top level of the flat payload, in `metadata` of
#: StandardLoggingPayload.
_NAMED: dict[str, Callable[[Call, CallMetadata], tuple[Id, ...]]] = {
    "end_user": lambda call, metadata: (call.end_user, metadata.user_api_key_end_user_id),
    "user": lambda call, metadata: (call.user, call.user_id, metadata.user_api_key_user_id),
    "team": lambda call, metadata: (call.team_id, metadata.user_api_key_team_id),
    "organization": lambda call, metadata: (call.organization_id, metadata.user_api_key_org_id),
    "key": lambda call, metadata: (call.api_key, metadata.user_api_key_hash),
}
#: The names that `CUSTOMER_ID_FIELDS` may list, in the default order.
CUSTOMER_ID_FIELDS = tuple(_NAMED)
#: The names that the API key determines. In contrast, a client writes `end_user` into its request.
PINNED_BY_KEY = tuple(name for name in CUSTOMER_ID_FIELDS if name != "end_user")


def shape_of(call: Call, otherwise: str) -> str:
    """Return the shape of a call by its fields; `otherwise` if they do not show it.

    The route or the attributes identify a CloudEvent before it is read. Lago's shape has a `transaction_id` and no
    other id.
    """
    if otherwise == CLOUDEVENT:
        return otherwise
    if call.id is None and call.request_id is None and call.litellm_call_id is None:
        if otherwise == LAGO or call.transaction_id is not None:
            return LAGO
    elif otherwise == LAGO:
        if call.transaction_id is not None:
            return LAGO
        otherwise = FLAT
    if call.customer_id is not None or call.tokens_input is not None or call.tokens_output is not None:
        return INTEGRATION
    if call.cost_usd is not None:
        return INTEGRATION
    if call.spend is not None:
        return FLAT
    if call.response_cost is not None or call.metadata is not None:
        return SLP
    return otherwise


def customer_of(shape: str, call: Call, fields: tuple[str, ...]) -> tuple[str, str]:
    """Return the normalised customer id of a call, and the kind of its field.

    Args:
        fields: names of `CUSTOMER_ID_FIELDS`; the first one that is present is used. A field that names the customer
            directly (`customer_id`, a CloudEvent's `subject`, Lago's `external_subscription_id`) has precedence.

    Returns:
        `(customer id, id_kind)`: one of `fields`, `customer`, `subscription` or `unattributed`.
    """
    if shape == CLOUDEVENT:
        return _of_event(call.cloud_event) or _UNNAMED
    if shape == LAGO and (
        subscription := _named("subscription", call.external_subscription_id, not_a_customer=MASTER_USER)
    ):
        return subscription
    if (call.customer_id is not None or call.external_customer_id is not None) and (
        subscription := _named("customer", call.customer_id, call.external_customer_id, not_a_customer=MASTER_USER)
    ):
        return subscription
    metadata = call.metadata or _NO_METADATA
    for kind in fields:
        for value in _NAMED[kind](call, metadata):
            if (
                value is not None
                and (name := normalise_customer_id(value if type(value) is str else str(value)))
                and name != _NO_NAMES.get(kind)
            ):
                return name, kind
    return _UNNAMED


def check_one_customer(call: Call) -> None:
    """Refuse a call in which two fields name different customers.

    LiteLLM calls the customer `end_user`, other senders `customer_id`. User, team, organization and key are other
    parties of the same call, so they cause no contradiction.

    Raises:
        Rejected: `contradicting_customer`.
    """
    event = call.cloud_event
    names = [call.customer_id, call.external_customer_id, call.end_user]
    if event is not None and event.data is not None:
        names += [event.subject, event.data.customer_id, event.data.end_user]
    named = {normalise_customer_id(str(name)) for name in names if name is not None}
    if len(named - {None}) > 1:
        raise Rejected(
            "contradicting_customer", "customer_id, external_customer_id, end_user or subject name different customers"
        )


#: The kind of customer id in a field, by the last part of the field's path.
_KIND_OF = {
    "end_user": "end_user",
    "user_api_key_end_user_id": "end_user",
    "user": "user",
    "user_id": "user",
    "user_api_key_user_id": "user",
    "team_id": "team",
    "user_api_key_team_id": "team",
    "organization_id": "organization",
    "user_api_key_org_id": "organization",
    "api_key": "key",
    "user_api_key_hash": "key",
}


def matters_less(path: str, customer: str, fields: tuple[str, ...]) -> bool:
    """Return whether an unreadable field does not matter, because the field of `customer` (an id kind) has precedence
    over it.
    """
    kind = _KIND_OF.get(path.rpartition(".")[2])
    if kind is None or path.startswith("cloud_event."):
        return False
    if customer in ("customer", "subscription"):
        return True
    return kind not in fields or (customer in fields and fields.index(kind) > fields.index(customer))


def _of_event(event: CloudEvent | None) -> tuple[str, str] | None:
    if event is None:
        return None
    data = event.data or _NO_DATA
    return _named("customer", event.subject, data.customer_id, data.end_user, data.user, not_a_customer=MASTER_USER)


def _named(kind: str, *ids: Id, not_a_customer: str | None = None) -> tuple[str, str] | None:
    for value in ids:
        if value is not None and (name := normalise_customer_id(str(value))) and name != not_a_customer:
            return name, kind
    return None
