"""Rejects a call by its required fields: identity, time, cost and customer. All other fields are details.

The ingress checks them, so that its response names calls that the meter could never bill. `normalise` refuses the same
calls.
"""

from schemas.errors import Rejected
from schemas.moments import parse_us
from schemas.wire import CLOUDEVENT, LAGO, Call, CloudEvent, CloudEventData, Id
from streams.core.metering.cost_fields import amount_of
from streams.core.metering.customer_key import check_one_customer

#: The reason for an element that has no fields of a call.
NOT_A_CALL = "not_a_call"
_NO_EVENT = CloudEvent()


def vet(call: Call, shape: str) -> None:
    """Check whether the meter can bill the call.

    Raises:
        Rejected: `no_identity`, `not_a_call`, `bad_time`, `bad_cost`, `negative_cost`, `absurd_cost`, `contradicting_cost`,
            `foreign_currency` or `contradicting_customer`.
    """
    if shape == CLOUDEVENT:
        event = call.cloud_event or _NO_EVENT
        _check("id of the event", event.id, event.time)
        if event.data is None or all(getattr(event.data, name) is None for name in _OF_A_CALL):
            raise Rejected(NOT_A_CALL, "the event's data hold nothing of a call")
        check_one_customer(call)
    elif shape == LAGO:
        _check("transaction_id", call.transaction_id, call.timestamp)
    else:
        if is_absent(call.litellm_call_id) and is_absent(call.id) and is_absent(call.request_id):
            raise Rejected("no_identity", "no id of the call: litellm_call_id, id or request_id")
        name = "startTime"
        try:
            if (moment := call.startTime) is not None and moment != "":
                parse_us(moment)
            name = "endTime"
            if (moment := call.endTime) is not None and moment != "":
                parse_us(moment)
            name = "timestamp"
            if (moment := call.timestamp) is not None and moment != "":
                parse_us(moment)
        except Rejected as error:
            raise Rejected(error.reason, f"{name}: {error.detail}") from None
    if call.model is None and shape != CLOUDEVENT and all(getattr(call, name) is None for name in _SAYS_SOMETHING):
        raise Rejected(NOT_A_CALL, "nothing but ids: no cost, tokens, model, status or time of a call")
    if call.customer_id is not None or call.external_customer_id is not None:
        check_one_customer(call)
    amount_of(call)


def is_absent(identity: Id) -> bool:
    """Return whether the id is missing, or consists only of blanks: with such an id all calls of one moment would be one."""
    return identity is None or (type(identity) is str and not identity.strip())


#: The fields of an event's data that describe the call, and not its customer.
_OF_A_CALL = tuple({*CloudEventData.__struct_fields__} - {"provider", "customer_id", "end_user", "user", "currency"})
#: The fields of a call besides its ids and its customer, the most frequent ones first.
_SAYS_SOMETHING = (
    *("cost_usd", "spend", "response_cost", "cost", "precise_total_amount_cents", "properties", "metadata"),
    *("tokens_input", "tokens_output", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"),
    *(
        "reasoning_tokens",
        "status",
        "call_type",
        "model_group",
        "custom_llm_provider",
        "provider",
        "code",
        "event_type",
    ),
    *("startTime", "endTime", "timestamp", "cache_hit", "byok"),
)


def _check(name: str, identity: Id, moment: float | int | str | None) -> None:
    if is_absent(identity):
        raise Rejected("no_identity", f"no id of the call: {name}")
    if moment is not None and moment != "":
        parse_us(moment)
