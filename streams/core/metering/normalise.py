"""Converts a stored call of any shape to a `Usage`, and refuses a call that can never be billed."""

from collections.abc import Callable
from decimal import Decimal

from schemas.errors import Rejected
from schemas.moments import HOUR_US, MAX_US, SECOND_US, parse_us
from schemas.money import ZERO
from schemas.normalised_call import Twins, Usage
from schemas.rounding import quantise
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
from streams.core.metering.call_meaning import PLAIN, SEALED, counts_media, tell_kind, tell_used, tell_whose
from streams.core.metering.cost_fields import amount_of
from streams.core.metering.flags import is_yes
from streams.core.metering.identity import identity_of
from streams.core.metering.job_id import is_sealed, without_suffix
from streams.core.metering.token_counts import OddCount, count_of, with_sound_counts

#: If an event's time is later than its receipt by more than this, it comes from a wrong clock (ADR 0025).
FUTURE_US = 600 * SECOND_US
#: If Kafka stored a record so long after its receipt, it was replayed or spooled, because no ingress has such a wrong
#: clock.
_STORED_AGAIN_US = 23 * HOUR_US

#: The `source` that LiteLLM's `openmeter` callback writes into CloudEvents.
LITELLM_SOURCE = "litellm-proxy"

#: The largest difference between a start in LiteLLM's database and in its callbacks, milliseconds.
_APART_MS = 2
#: A sender may leave the status out, and LiteLLM's database stores an interrupted stream as a success.
_STATUSES = ("success", "failure", "")
_LITELLM = (SLP, FLAT)
#: The shapes whose identity is made of ids, status and a time.
_TIMED = (*_LITELLM, INTEGRATION)

_NO_METADATA = CallMetadata()
_NO_PROPERTIES = LagoProperties()
_NO_EVENT, _NO_DATA = CloudEvent(), CloudEventData()


def normalise(
    record: RawRecord, customer_id: str, unit: Decimal, stored_us: int | None = None, clock_us: int = 0
) -> Usage:
    """Return the call in `record` as `Usage`, with its cost quantised to `unit` dollars.

    Args:
        stored_us: timestamp of the Kafka record, microseconds since 1970 UTC. Kafka has checked it. None = the time of
            its receipt.
        clock_us: the later of the partition clock and the worker's own clock, microseconds since 1970 UTC. A call's end
            is accepted if one of the clocks or the receipt allows it, so one slow clock refuses nothing.

    Raises:
        Rejected: `no_identity`, `bad_time`, `bad_cost`, `negative_cost`, `absurd_cost`, `contradicting_cost`,
            `foreign_currency`, `bad_event`, `unknown_shape` or `unknown_version`: the call goes to the rejected topic.
    """
    if record.v > ENVELOPE_VERSION:
        raise unknown_version(record.v)
    try:
        read = _SHAPES[record.shape]
    except KeyError:
        raise Rejected("unknown_shape", _OTHER_SHAPE) from None
    try:
        usage = read(record, record.call, unit)
    except OddCount:
        usage = read(record, with_sound_counts(record.call), unit)
        usage.note = "odd: a count"
    if record.note:
        usage.note = record.note
    usage.context = record.context
    usage.shape = record.shape
    usage.customer_id = customer_id
    usage.id_kind = record.id_kind
    usage.checked_us = record.checked_at
    if record.accepted:
        usage.accepted = record.accepted
    backfilled = record.source == BACKFILL
    if backfilled and record.shape in _LITELLM:
        _without_suffix(usage, record.call.status or "")
    if usage.call_type not in PLAIN and usage.metered is None:
        tell_kind(usage, record.call)
    if not usage.cost:
        usage.media = counts_media(record.call)
    elif record.call.carried_cost is not None:
        usage.carried = _carried(record.call.carried_cost, usage.cost, unit)
    metadata = record.call.metadata
    if metadata is not None:
        if metadata.usage_object is not None:
            tell_used(usage, metadata.usage_object)
        if metadata.used_client_oauth_token or metadata.is_silent_experiment:
            tell_whose(usage, metadata)
    if record.power_level:
        usage.power_level, usage.has_details = record.power_level, True
    if backfilled and record.shape in _TIMED and usage.twins is None and usage.identity is not usage.job:
        usage.twins = _twins(usage)
    if not 0 <= record.received_at < MAX_US:
        raise Rejected("bad_time", "received outside 1970..9999")
    at_us = record.received_at if stored_us is None else stored_us
    if at_us - record.received_at > _STORED_AGAIN_US:  # it was replayed or spooled, so its receipt is more reliable
        at_us, clock_us = record.received_at, 0
    if usage.end_us > at_us + FUTURE_US and usage.end_us > clock_us + FUTURE_US:
        usage.told_end_us, usage.end_us = usage.end_us, at_us
        usage.note = f"future_time; {usage.note}" if usage.note else "future_time"
    return usage


def unknown_version(v: int) -> Rejected:
    """Return the refusal of an envelope of a later release, because this release cannot interpret its fields."""
    return Rejected("unknown_version", f"{v}, this worker reads up to {ENVELOPE_VERSION}")


def _litellm(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """Read a flat payload or a StandardLoggingPayload. They share one namespace, so a call has the same identity on
    both routes.
    """
    metadata = call.metadata or _NO_METADATA
    call_id, request_id = _text(call.litellm_call_id), _text(call.id or call.request_id)
    status = call.status or ""
    start_us = _moment(call.startTime if call.startTime is not None and call.startTime != "" else call.timestamp)
    if call.endTime is not None and call.endTime != "":
        end_us = parse_us(call.endTime)
    else:
        end_us = record.received_at if start_us is None else start_us
    tokens_input = count_of(call.tokens_input if call.prompt_tokens is None else call.prompt_tokens)
    tokens_output = count_of(call.tokens_output if call.completion_tokens is None else call.completion_tokens)
    usage = Usage(
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
        count_of(call.total_tokens) or tokens_input + tokens_output,
        _cached(call, metadata),
        _reasoning(call, metadata),
        _cost(call, unit),
        call.cache_hit is not None and is_yes(call.cache_hit),
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
        _text(call.api_key or metadata.user_api_key_hash or call.api_key_hash),
        _text(call.key_alias or metadata.user_api_key_alias),
    )
    if start_us is None:
        usage.twins = _when_backfilled(call_id, request_id)
    return usage


def _integration(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """Read the integration payload, identified by `request_id` and `timestamp`."""
    call_id, request_id = _text(call.litellm_call_id), _text(call.request_id or call.id)
    at_us = _moment(call.timestamp)
    identity = _litellm_identity(call_id, request_id, call.status or "", at_us)
    if at_us is None and (call.startTime is not None or call.endTime is not None):
        usage = _litellm(record, call, unit)
        if usage.identity != identity and record.source != BACKFILL:
            usage.twins = Twins((identity,), (identity,))  # its identity in earlier releases
        return usage
    tokens = (
        call.prompt_tokens if call.tokens_input is None else call.tokens_input,
        call.completion_tokens if call.tokens_output is None else call.tokens_output,
        call.total_tokens,
    )
    usage = _plain(record, at_us, identity, tokens, _cost(call, unit))
    usage.call_id, usage.request_id = call_id, request_id
    usage.provider = call.provider or call.custom_llm_provider or ""
    usage.call_type = call.call_type or ""
    usage.key_hash = _text(call.api_key_hash or call.api_key)
    usage.cache_hit = call.cache_hit is not None and is_yes(call.cache_hit)
    usage.byok = call.byok is True
    _tell_parties(usage, call, call.metadata or _NO_METADATA)
    if at_us is None:
        usage.twins = _when_backfilled(call_id, request_id)
    return usage


def _tell_parties(usage: Usage, call: Call, metadata: CallMetadata) -> None:
    """Set the details of tokens and the parties, as `_litellm` does: a rate card and windows read them."""
    usage.cached_tokens, usage.reasoning_tokens = _cached(call, metadata), _reasoning(call, metadata)
    usage.model_group = call.model_group or ""
    usage.end_user = _text(call.end_user or metadata.user_api_key_end_user_id)
    usage.user_id = _text(call.user_id or metadata.user_api_key_user_id or call.user)
    usage.team_id = _text(call.team_id or metadata.user_api_key_team_id)
    usage.organization_id = _text(call.organization_id or metadata.user_api_key_org_id)
    usage.project_id = _text(metadata.user_api_key_project_id)
    usage.key_hash = usage.key_hash or _text(metadata.user_api_key_hash)
    usage.key_alias = _text(call.key_alias or metadata.user_api_key_alias)


def _lago(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """Read Lago's ingest shape, identified by `external_subscription_id | transaction_id`, as in Lago."""
    transaction_id = _text(call.transaction_id)
    if not transaction_id.strip():
        raise Rejected("no_identity", "no id of the call: transaction_id")
    properties = call.properties or _NO_PROPERTIES
    identity = identity_of("lago", _text(call.external_subscription_id), transaction_id)
    tokens = (
        call.prompt_tokens if properties.prompt_tokens is None else properties.prompt_tokens,
        call.completion_tokens if properties.completion_tokens is None else properties.completion_tokens,
        call.total_tokens if properties.total_tokens is None else properties.total_tokens,
    )
    usage = _plain(record, _moment(call.timestamp), identity, tokens, _cost(call, unit))
    usage.request_id = transaction_id
    usage.provider = _text(properties.provider) or call.provider or ""
    usage.model = _text(properties.model) or usage.model
    return usage


def _cloud_event(record: RawRecord, call: Call, unit: Decimal) -> Usage:
    """Read a CloudEvent, identified by `source | id` as its specification says.

    LiteLLM's own CloudEvents have the provider's id, which may repeat, so they are identified by `source | subject | id
    | time`.
    """
    event = call.cloud_event or _NO_EVENT
    event_id, data = _text(event.id), event.data or _NO_DATA
    if not event_id.strip():
        raise Rejected("no_identity", "no id of the call: id of the event")
    at_us = _moment(event.time)
    time, source = "" if at_us is None else str(at_us), _text(event.source)
    identity = full = identity_of("cloudevent", source, _text(event.subject), event_id, time)
    if source != LITELLM_SOURCE:
        identity = identity_of("cloudevent", source, event_id)
    tokens = (
        data.tokens_input if data.prompt_tokens is None else data.prompt_tokens,
        data.tokens_output if data.completion_tokens is None else data.completion_tokens,
        data.total_tokens,
    )
    usage = _plain(record, at_us, identity, tokens, _cost(call, unit))
    if identity is not full:
        usage.twins = Twins((full,), (full,))  # its identity in earlier releases
    usage.request_id = event_id
    usage.model = _text(data.model)
    usage.provider = _text(data.provider)
    return usage


def _metered(record: RawRecord, _call: Call, _unit: Decimal) -> Usage:
    """Read a metered event, identified by `org_id | transaction_id`, because a repeat may omit its time."""
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
    """Read the common part of the shapes with a single timestamp."""
    call = record.call
    at_us = record.received_at if at is None else at
    tokens_input, tokens_output = count_of(tokens[0]), count_of(tokens[1])
    total = count_of(tokens[2]) or tokens_input + tokens_output
    status, model = call.status or "success", call.model or ""
    return Usage(identity, "", "", status, at_us, at_us, model, "", tokens_input, tokens_output, total, 0, 0, cost)


def _moment(value: float | int | str | None) -> int | None:
    return None if value is None or value == "" else parse_us(value)


def _litellm_identity(call_id: str, request_id: str, status: str, start_us: int | None) -> bytes:
    if not call_id.strip() and not request_id.strip():
        raise Rejected("no_identity", "no id of the call: litellm_call_id, id or request_id")
    return identity_of("litellm", call_id, request_id, status, "" if start_us is None else str(start_us // 1000))


def _without_suffix(usage: Usage, status: str) -> None:
    """Remove the suffix that LiteLLM's database appends to the request id of a row whose cost came late.

    LiteLLM's callbacks report the same call without the suffix.
    """
    request_id = without_suffix(usage.request_id)
    if request_id != usage.request_id:
        usage.request_id = request_id
        usage.identity = _litellm_identity(usage.call_id, request_id, status, usage.start_us)
        if is_sealed(request_id):
            usage.note = SEALED


def _twins(usage: Usage) -> Twins:
    """Return the identities that a backfilled call may have if its sender reports it.

    LiteLLM's database keeps the start with a precision of 2 ms. A sender may give no start at all (ADR 0067). Two
    backfilled calls with the same ids and different starts are two calls. So each of them is remembered for a repeat
    without a time (`_when_backfilled`), but is not itself sought there.
    """
    start_ms = usage.start_us // 1000
    ids = ("litellm", usage.call_id, usage.request_id)
    near = range(max(0, start_ms - _APART_MS), start_ms + _APART_MS + 1)
    timed = {identity_of(*ids, status, str(at)) for status in _STATUSES for at in near} - {usage.identity}
    untimed = [identity_of(*ids, status, "") for status in _STATUSES]
    return Twins((*timed, *untimed), (*timed, *_when_backfilled(usage.call_id, usage.request_id).sought))


def _when_backfilled(call_id: str, request_id: str) -> Twins:
    """Return under what a call without a time is found if it was backfilled, from where its time is known."""
    return Twins((identity_of("backfilled", call_id, request_id),))


def _text(value: str | int | None) -> str:
    if type(value) is str:
        return value
    return "" if value is None else str(value)


def _cost(call: Call, unit: Decimal) -> Decimal:
    amount = amount_of(call)
    return ZERO if amount is None else quantise(amount, unit)


def _carried(amount: Decimal, cost: Decimal, unit: Decimal) -> Decimal:
    """Return the carried part of a cost; 0 if it is no amount, because a call is never refused for it."""
    return quantise(amount, unit) if amount.is_finite() and 0 < amount <= cost else ZERO


def _cached(call: Call, metadata: CallMetadata) -> int:
    if call.cached_tokens is not None:
        return count_of(call.cached_tokens)
    usage = metadata.usage_object
    if usage is None:
        return 0
    if usage.prompt_tokens_details is not None and usage.prompt_tokens_details.cached_tokens is not None:
        return count_of(usage.prompt_tokens_details.cached_tokens)
    return count_of(usage.cache_read_input_tokens)


def _reasoning(call: Call, metadata: CallMetadata) -> int:
    if call.reasoning_tokens is not None:
        return count_of(call.reasoning_tokens)
    usage = metadata.usage_object
    if usage is None or usage.completion_tokens_details is None:
        return 0
    return count_of(usage.completion_tokens_details.reasoning_tokens)


_SHAPES: dict[str, Callable[[RawRecord, Call, Decimal], Usage]] = {
    SLP: _litellm,
    FLAT: _litellm,
    INTEGRATION: _integration,
    LAGO: _lago,
    CLOUDEVENT: _cloud_event,
    METERED: _metered,
}
#: The name of the shape is left out, because another program may have written any value to the topic.
_OTHER_SHAPE = f"its shape is none of {', '.join(_SHAPES)}, which this worker reads"
