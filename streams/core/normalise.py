"""A stored call of any shape becomes one `Usage`; what cannot be billed for ever is refused here."""

from collections.abc import Callable
from decimal import Decimal

from schemas.errors import Rejected
from schemas.money import ZERO, check_cost, quantise
from schemas.moments import SECOND_US, parse_us
from schemas.usage import Usage
from schemas.wire import FLAT, INTEGRATION, LAGO, SLP, Call, CallMetadata, LagoProperties, RawRecord
from streams.core.identity import identity_of

#: An event time later than this after its receipt is a wrong clock.
FUTURE_US = 600 * SECOND_US
MAX_TOKENS = 10**12

_NO_METADATA = CallMetadata()
_NO_PROPERTIES = LagoProperties()
_HUNDRED = Decimal(100)


def normalise(record: RawRecord, customer_id: str, unit: Decimal) -> Usage:
    """The call in `record` as `Usage`, its cost quantised to `unit` dollars.

    Raises:
        Rejected: `no_identity`, `bad_time`, `bad_cost`, `negative_cost`, `absurd_cost`,
            `bad_tokens` or `unknown_shape`: the call goes to the rejected topic.
    """
    try:
        read = _SHAPES[record.shape]
    except KeyError:
        raise Rejected("unknown_shape") from None
    usage = read(record, record.call, unit)
    usage.customer_id = customer_id
    usage.id_kind = record.id_kind
    if usage.end_us > record.received_at + FUTURE_US:
        usage.end_us = record.received_at
        usage.note = "future_time"
    return usage


def _litellm(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """Flat payload and StandardLoggingPayload: one namespace, so either route gives one identity."""
    metadata = call.metadata or _NO_METADATA
    call_id, request_id = _text(call.litellm_call_id), _text(call.id) or _text(call.request_id)
    start = call.startTime if call.startTime is not None else call.timestamp
    start_us = parse_us(start) if start is not None else None
    return _usage(
        record,
        identity=_litellm_identity(call_id, request_id, call.status or "", start_us),
        start_us=start_us,
        end=call.endTime,
        tokens=(call.prompt_tokens, call.completion_tokens, call.total_tokens),
        cost=_cost(call.response_cost if call.spend is None else call.spend, unit),
        call_id=call_id,
        request_id=request_id,
        cached_tokens=_cached(call, metadata),
        reasoning_tokens=_reasoning(call, metadata),
        provider=call.custom_llm_provider or call.provider or "",
        end_user=_text(call.end_user) or _text(metadata.user_api_key_end_user_id),
        user_id=_text(call.user_id) or _text(metadata.user_api_key_user_id) or _text(call.user),
        team_id=_text(call.team_id) or _text(metadata.user_api_key_team_id),
        organization_id=_text(call.organization_id) or _text(metadata.user_api_key_org_id),
        project_id=_text(metadata.user_api_key_project_id),
        key_hash=_text(call.api_key) or _text(metadata.user_api_key_hash),
        key_alias=_text(call.key_alias) or _text(metadata.user_api_key_alias),
    )


def _integration(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """The integration payload: `request_id` and `timestamp` identify it."""
    request_id = _text(call.request_id) or _text(call.id)
    start_us = parse_us(call.timestamp) if call.timestamp is not None else None
    return _usage(
        record,
        identity=_litellm_identity(_text(call.litellm_call_id), request_id, call.status or "", start_us),
        start_us=start_us,
        end=None,
        tokens=(call.tokens_input, call.tokens_output, call.total_tokens),
        cost=_cost(call.cost_usd, unit),
        request_id=request_id,
        provider=call.provider or "",
        key_hash=_text(call.api_key_hash),
    )


def _lago(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """Lago's ingest shape: `external_subscription_id | transaction_id`, as Lago's own key."""
    transaction_id = _text(call.transaction_id)
    if not transaction_id:
        raise Rejected("no_identity", "transaction_id is absent")
    properties = call.properties or _NO_PROPERTIES
    start_us = parse_us(call.timestamp) if call.timestamp is not None else None
    cost = properties.response_cost if properties.cost_usd is None else properties.cost_usd
    if call.precise_total_amount_cents is not None:
        check_cost(call.precise_total_amount_cents)
        cost = call.precise_total_amount_cents / _HUNDRED
    usage = _usage(
        record,
        identity=identity_of("lago", _text(call.external_subscription_id), transaction_id),
        start_us=start_us,
        end=None,
        tokens=(properties.prompt_tokens, properties.completion_tokens, properties.total_tokens),
        cost=_cost(cost, unit),
        request_id=transaction_id,
        provider=_text(properties.provider),
    )
    usage.model = _text(properties.model)
    return usage


def _usage(
    record: RawRecord,
    *,
    identity: bytes,
    start_us: int | None,
    end: float | int | str | None,
    tokens: tuple[float | int | None, float | int | None, float | int | None],
    cost: Decimal,
    call_id: str = "",
    request_id: str = "",
    cached_tokens: int = 0,
    reasoning_tokens: int = 0,
    provider: str = "",
    end_user: str = "",
    user_id: str = "",
    team_id: str = "",
    organization_id: str = "",
    project_id: str = "",
    key_hash: str = "",
    key_alias: str = "",
) -> Usage:
    call = record.call
    if end is not None:
        end_us = parse_us(end)
    else:
        end_us = record.received_at if start_us is None else start_us
    tokens_input, tokens_output = _count(tokens[0]), _count(tokens[1])
    return Usage(
        identity,
        "",
        "",
        call.status or "success",
        end_us if start_us is None else start_us,
        end_us,
        call.model or call.model_group or "",
        provider,
        tokens_input,
        tokens_output,
        _count(tokens[2]) or tokens_input + tokens_output,
        cached_tokens,
        reasoning_tokens,
        cost,
        call.cache_hit is True or call.cache_hit in ("True", "true"),
        call.byok is True,
        call_id,
        request_id,
        call.call_type or "",
        call.model_group or "",
        end_user,
        user_id,
        team_id,
        organization_id,
        project_id,
        key_hash,
        key_alias,
    )


def _litellm_identity(call_id: str, request_id: str, status: str, start_us: int | None) -> bytes:
    if not call_id and not request_id:
        raise Rejected("no_identity", "neither litellm_call_id, id nor request_id")
    return identity_of("litellm", call_id, request_id, status, "" if start_us is None else str(start_us // 1000))


def _text(value: str | int | None) -> str:
    if value is None:
        return ""
    return value if type(value) is str else str(value)


def _count(value: float | int | None) -> int:
    if value is None:
        return 0
    if not 0 <= value <= MAX_TOKENS or value != int(value):
        raise Rejected("bad_tokens", "not a whole number between 0 and 1e12")
    return int(value)


def _cost(value: Decimal | None, unit: Decimal) -> Decimal:
    if value is None:
        return ZERO
    check_cost(value)
    return quantise(value, unit)


def _cached(call: Call, metadata: CallMetadata) -> int:
    if call.cached_tokens is not None:
        return _count(call.cached_tokens)
    usage = metadata.usage_object
    if usage is None:
        return 0
    if usage.prompt_tokens_details is not None and usage.prompt_tokens_details.cached_tokens is not None:
        return _count(usage.prompt_tokens_details.cached_tokens)
    return _count(usage.cache_read_input_tokens)


def _reasoning(call: Call, metadata: CallMetadata) -> int:
    if call.reasoning_tokens is not None:
        return _count(call.reasoning_tokens)
    usage = metadata.usage_object
    if usage is None or usage.completion_tokens_details is None:
        return 0
    return _count(usage.completion_tokens_details.reasoning_tokens)


_SHAPES: dict[str, Callable[[RawRecord, Call, Decimal], Usage]] = {
    SLP: _litellm,
    FLAT: _litellm,
    INTEGRATION: _integration,
    LAGO: _lago,
}
