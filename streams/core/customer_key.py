"""Which shape a call has and whose it is: the rule behind the Kafka key, the same on every route in.

LiteLLM names up to five parties a call; the deployment says in which order they are asked
(`CUSTOMER_ID_FIELDS`). A call that names nobody belongs to `UNATTRIBUTED`: held, never dropped. The user and the key
that LiteLLM names for its master key are nobody.
"""

from collections.abc import Callable

from schemas.customer_id import UNATTRIBUTED, normalise_customer_id
from schemas.wire import CLOUDEVENT, FLAT, INTEGRATION, LAGO, SLP, Call, CallMetadata, Id

_NOBODY = CallMetadata()

#: What LiteLLM calls whoever has the master key: it names nobody who could pay.
MASTER_USER, MASTER_KEY = "default_user_id", "litellm_proxy_master_key"
_NO_NAMES = {"user": MASTER_USER, "key": MASTER_KEY}
#: Where LiteLLM's shapes name each party: the flat payload at the top, StandardLoggingPayload in `metadata`.
_NAMED: dict[str, Callable[[Call, CallMetadata], tuple[Id, ...]]] = {
    "end_user": lambda call, metadata: (call.end_user, metadata.user_api_key_end_user_id),
    "user": lambda call, metadata: (call.user, call.user_id, metadata.user_api_key_user_id),
    "team": lambda call, metadata: (call.team_id, metadata.user_api_key_team_id),
    "organization": lambda call, metadata: (call.organization_id, metadata.user_api_key_org_id),
    "key": lambda call, metadata: (call.api_key, metadata.user_api_key_hash),
}
#: The names `CUSTOMER_ID_FIELDS` may list, in the default order.
CUSTOMER_ID_FIELDS = tuple(_NAMED)


def shape_of(call: Call, otherwise: str) -> str:
    """The shape a call shows by its fields; `otherwise` where nothing tells.

    LAGO and CLOUDEVENT are only told by their route.
    """
    if otherwise in (LAGO, CLOUDEVENT):
        return otherwise
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
    """The normalised customer id of a call and the kind of field it came from.

    Args:
        fields: for LiteLLM's shapes, names out of `CUSTOMER_ID_FIELDS`, first present one wins.

    Returns:
        `(customer id, id_kind)`: one of `fields`, `customer` for the integration payload
        and CloudEvents, `subscription` for Lago's shape, `unattributed` when nobody is named.
    """
    if shape == LAGO:
        return _named("subscription", call.external_subscription_id, nobody=MASTER_USER) or (
            UNATTRIBUTED,
            "unattributed",
        )
    if shape == INTEGRATION:
        return _named("customer", call.customer_id, nobody=MASTER_USER) or (UNATTRIBUTED, "unattributed")
    if shape == CLOUDEVENT:
        subject = call.cloud_event.subject if call.cloud_event is not None else None
        return _named("customer", subject, nobody=MASTER_USER) or (UNATTRIBUTED, "unattributed")
    metadata = call.metadata or _NOBODY
    for kind in fields:
        found = _named(kind, *_NAMED[kind](call, metadata), nobody=_NO_NAMES.get(kind))
        if found:
            return found
    return UNATTRIBUTED, "unattributed"


def _named(kind: str, *ids: Id, nobody: str | None = None) -> tuple[str, str] | None:
    for value in ids:
        if value is not None and (name := normalise_customer_id(str(value))) and name != nobody:
            return name, kind
    return None
