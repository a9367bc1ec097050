"""A stored call of any shape becomes one `Usage`; what cannot be billed for ever is refused here."""

from collections.abc import Callable
from decimal import Decimal

from schemas.errors import Rejected
from schemas.moments import MAX_US, SECOND_US, parse_us
from schemas.money import EXACT, ZERO, check_cost, quantise
from schemas.usage import Usage
from schemas.wire import (
    BACKFILL,
    CLOUDEVENT,
    ENVELOPE_VERSION,
    FLAT,
    INTEGRATION,
    LAGO,
    METERED,
    ORG,
    SLP,
    Call,
    CallMetadata,
    CloudEvent,
    CloudEventData,
    LagoProperties,
    RawRecord,
)
from streams.core.identity import identity_of

#: An event time later than this after its receipt is a wrong clock (ADR 0025).
FUTURE_US = 600 * SECOND_US
MAX_TOKENS = 10**12

#: How far a start in LiteLLM's database may be from the one its callbacks told.
_APART_MS = 2
_LITELLM = (SLP, FLAT)

_NO_METADATA = CallMetadata()
_NO_PROPERTIES = LagoProperties()
_NO_EVENT, _NO_DATA = CloudEvent(), CloudEventData()
_HUNDRED = Decimal(100)
_TRUE = (True, "True", "true")


def normalise(
    record: RawRecord, customer_id: str, unit: Decimal, stored_us: int | None = None, clock_us: int = 0
) -> Usage:
    """The call in `record` as `Usage`, its cost quantised to `unit` dollars.

    Args:
        stored_us: the record's time in Kafka, which Kafka has checked; None = that of its receipt.
        clock_us: the partition's clock: what the ingresses before have stored by. A call may end as late as either
            allows: an ingress whose clock is slow is outvoted by the others.

    Raises:
        Rejected: `no_identity`, `bad_time`, `bad_cost`, `negative_cost`, `absurd_cost`, `bad_tokens`,
            `bad_event`, `unknown_shape` or `unknown_version`: the call goes to the rejected topic.
    """
    if record.v > ENVELOPE_VERSION:
        raise unknown_version(record.v)
    try:
        read = _SHAPES[record.shape]
    except KeyError:
        raise Rejected("unknown_shape") from None
    usage = read(record, record.call, unit)
    usage.customer_id = customer_id
    usage.id_kind = record.id_kind
    usage.checked_us = record.checked_at
    if record.source == BACKFILL and record.shape in _LITELLM:
        usage.twins = _twins(usage)
    at_us = record.received_at if stored_us is None else stored_us
    if usage.end_us > at_us + FUTURE_US and usage.end_us > clock_us + FUTURE_US:
        usage.told_end_us, usage.end_us = usage.end_us, at_us
        usage.note = "future_time"
    return usage


def unknown_version(v: int) -> Rejected:
    """An envelope of a later release: what its fields mean is not guessed at."""
    return Rejected("unknown_version", f"{v}, this worker reads up to {ENVELOPE_VERSION}")


def _litellm(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """Flat payload and StandardLoggingPayload: one namespace, so either route gives one identity."""
    metadata = call.metadata or _NO_METADATA
    call_id, request_id = _text(call.litellm_call_id), _text(call.id or call.request_id)
    status = call.status or ""
    start = call.startTime if call.startTime is not None else call.timestamp
    start_us = None if start is None else parse_us(start)
    if call.endTime is not None:
        end_us = parse_us(call.endTime)
    else:
        end_us = record.received_at if start_us is None else start_us
    tokens_input, tokens_output = _count(call.prompt_tokens), _count(call.completion_tokens)
    return Usage(
        _litellm_identity(call_id, request_id, status, start_us),
        "",
        "",
        status or "success",
        end_us if start_us is None else start_us,
        end_us,
        call.model or call.model_group or "",
        call.custom_llm_provider or call.provider or "",
        tokens_input,
        tokens_output,
        _count(call.total_tokens) or tokens_input + tokens_output,
        _cached(call, metadata),
        _reasoning(call, metadata),
        _cost(call.response_cost if call.spend is None else call.spend, unit),
        call.cache_hit is not None and call.cache_hit in _TRUE,
        call.byok is True,
        call_id,
        request_id,
        call.call_type or "",
        call.model_group or "",
        _text(call.end_user or metadata.user_api_key_end_user_id),
        _text(call.user_id or metadata.user_api_key_user_id or call.user),
        _text(call.team_id or metadata.user_api_key_team_id),
        _text(call.organization_id or metadata.user_api_key_org_id),
        _text(metadata.user_api_key_project_id),
        _text(call.api_key or metadata.user_api_key_hash),
        _text(call.key_alias or metadata.user_api_key_alias),
    )


def _integration(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """The integration payload: `request_id` and `timestamp` identify it."""
    call_id, request_id = _text(call.litellm_call_id), _text(call.request_id or call.id)
    at_us = _moment(call.timestamp)
    identity = _litellm_identity(call_id, request_id, call.status or "", at_us)
    tokens = (call.tokens_input, call.tokens_output, call.total_tokens)
    usage = _plain(record, at_us, identity, tokens, _cost(call.cost_usd, unit))
    usage.request_id = request_id
    usage.provider = call.provider or ""
    usage.key_hash = _text(call.api_key_hash)
    return usage


def _lago(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """Lago's ingest shape: `external_subscription_id | transaction_id`, as Lago's own key."""
    transaction_id = _text(call.transaction_id)
    if not transaction_id:
        raise Rejected("no_identity", "transaction_id is absent")
    properties = call.properties or _NO_PROPERTIES
    cost = properties.response_cost if properties.cost_usd is None else properties.cost_usd
    if call.precise_total_amount_cents is not None:
        check_cost(call.precise_total_amount_cents)
        cost = EXACT.divide(call.precise_total_amount_cents, _HUNDRED)
    identity = identity_of("lago", _text(call.external_subscription_id), transaction_id)
    tokens = (properties.prompt_tokens, properties.completion_tokens, properties.total_tokens)
    usage = _plain(record, _moment(call.timestamp), identity, tokens, _cost(cost, unit))
    usage.request_id = transaction_id
    usage.provider = _text(properties.provider)
    usage.model = _text(properties.model)
    return usage


def _cloud_event(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """A CloudEvent: `source | subject | id | time`, for LiteLLM's id is the provider's and may come twice."""
    event = call.cloud_event or _NO_EVENT
    event_id, data = _text(event.id), event.data or _NO_DATA
    if not event_id:
        raise Rejected("no_identity", "id is absent")
    at_us = _moment(event.time)
    time = "" if at_us is None else str(at_us)
    identity = identity_of("cloudevent", _text(event.source), _text(event.subject), event_id, time)
    tokens = (data.prompt_tokens, data.completion_tokens, data.total_tokens)
    usage = _plain(record, at_us, identity, tokens, _cost(data.cost, unit))
    usage.request_id = event_id
    usage.model = _text(data.model)
    return usage


def _metered(record: RawRecord, _call: Call, _unit: Decimal) -> Usage:
    """Usage that others measured: `org_id | transaction_id`, so that a repeat may leave its time out."""
    event = record.metered
    if event is None or record.id_kind != ORG:
        raise Rejected("bad_event", "metered usage of an org is absent")
    if not event.org_id or not event.transaction_id:
        raise Rejected("no_identity", "org_id or transaction_id is absent")
    if not 0 <= event.at < MAX_US:
        raise Rejected("bad_time", "outside 1970..9999")
    identity = identity_of("metered", event.org_id, event.transaction_id)
    usage = Usage(identity, "", "", "success", event.at, event.at, "", "", 0, 0, 0, 0, 0, ZERO)
    usage.request_id = event.transaction_id
    usage.call_type = event.code
    usage.metered = event
    return usage


def _plain(
    record: RawRecord,
    at: int | None,
    identity: bytes,
    tokens: tuple[float | int | None, float | int | None, float | int | None],
    cost: Decimal,
) -> Usage:
    """What the shapes with a single moment have in common."""
    call = record.call
    at_us = record.received_at if at is None else at
    tokens_input, tokens_output = _count(tokens[0]), _count(tokens[1])
    total = _count(tokens[2]) or tokens_input + tokens_output
    status, model = call.status or "success", call.model or ""
    return Usage(identity, "", "", status, at_us, at_us, model, "", tokens_input, tokens_output, total, 0, 0, cost)


def _moment(value: float | int | str | None) -> int | None:
    return None if value is None else parse_us(value)


def _litellm_identity(call_id: str, request_id: str, status: str, start_us: int | None) -> bytes:
    if not call_id and not request_id:
        raise Rejected("no_identity", "neither litellm_call_id, id nor request_id")
    return identity_of("litellm", call_id, request_id, status, "" if start_us is None else str(start_us // 1000))


def _twins(usage: Usage) -> tuple[bytes, ...]:
    """What a callback may call a backfilled call: LiteLLM's database keeps its start to 2 ms, and calls a stream that
    was cut a success."""
    start_ms = usage.start_us // 1000
    ids = ("litellm", usage.call_id, usage.request_id)
    near = range(max(0, start_ms - _APART_MS), start_ms + _APART_MS + 1)
    twins = {identity_of(*ids, status, str(at)) for status in ("success", "failure") for at in near}
    return tuple(twins - {usage.identity})


def _text(value: str | int | None) -> str:
    if type(value) is str:
        return value
    return "" if value is None else str(value)


def _count(value: float | int | None) -> int:
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
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
    CLOUDEVENT: _cloud_event,
    METERED: _metered,
}
