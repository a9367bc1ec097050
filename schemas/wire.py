"""The fields that senders post, as one tolerant struct, and the envelope in which they are stored.

A call has one of five shapes: the flat webhook payload, LiteLLM's StandardLoggingPayload, the integration payload
(`event_type`, `tokens_input` ...), Lago's ingest shape, and CloudEvents. Their field names never clash in type, so a
single struct reads all of them in one pass. Only a CloudEvent has names that others use too (`data`, `type`), so it is
stored as one field. The struct is an allow-list: prompts, responses and unknown fields have no place in it, so they
cannot reach a topic.

Usage that another service measured is no call. It is stored as `Metered`, which only our own API writes.

The meter reads the typed `Call`. The ingress stores `stored_call()`, which has the same fields as raw JSON and so
preserves every number's text.
"""

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw

ENVELOPE_VERSION = 1
#: The value of `rules` that an ingress of this release writes.
RULES = 1
#: The values of `source`.
WEBHOOK, BACKFILL, API = "webhook", "backfill", "api"

#: The values of `shape`.
SLP, FLAT, INTEGRATION, LAGO, CLOUDEVENT = "slp", "flat", "integration", "lago", "cloudevent"
#: The `shape` of usage that another service measured. Older releases reject the record and keep it.
METERED = "metered"
#: The `id_kind` of a record whose key is an org, and not a LiteLLM customer.
ORG = "org"

Id = str | int | None
Number = Decimal | None
Count = int | float | None
Time = float | int | str | None
Flag = bool | int | str | None


class TokenDetails(msgspec.Struct, gc=False):
    """`metadata.usage_object.*_tokens_details` of LiteLLM; unknown counts are absent."""

    cached_tokens: Count = None
    reasoning_tokens: Count = None
    image_count: Count = None
    character_count: Count = None
    audio_length_seconds: Count = None
    video_length_seconds: Count = None
    cache_creation_tokens: Count = None


class UsageObject(msgspec.Struct, gc=False):
    """`metadata.usage_object`: prompt tokens already include the cached ones.

    Fields:
        output_image_count: number of generated images; `seconds`, `duration_seconds`: length of the audio input, of the
            generated video.
    """

    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None
    cache_read_input_tokens: Count = None
    output_image_count: Count = None
    seconds: Count = None
    duration_seconds: Count = None
    cache_creation_input_tokens: Count = None


class CallMetadata(msgspec.Struct, gc=False):
    """The part of LiteLLM's `metadata` that names the caller. The proxy sets it, not the client."""

    user_api_key_hash: Id = None
    user_api_key_alias: Id = None
    user_api_key_user_id: Id = None
    user_api_key_team_id: Id = None
    user_api_key_team_alias: Id = None
    user_api_key_org_id: Id = None
    user_api_key_project_id: Id = None
    user_api_key_end_user_id: Id = None
    usage_object: UsageObject | None = None
    used_client_oauth_token: Flag = None
    is_silent_experiment: Flag = None


class LagoProperties(msgspec.Struct, gc=False):
    """`properties` of an event in Lago's ingest shape, as LiteLLM's `lago` callback fills it."""

    model: Id = None
    provider: Id = None
    response_cost: Number = None
    cost_usd: Number = None
    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    spend: Number = None
    cost: Number = None
    currency: str | None = None


class CloudEventData(msgspec.Struct, gc=False):
    """`data` of a CloudEvent, as LiteLLM's `openmeter` callback fills it; `cost` in dollars.

    The fields after `total_tokens` are the names that other senders use for the same values.
    """

    model: Id = None
    cost: Number = None
    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    spend: Number = None
    response_cost: Number = None
    cost_usd: Number = None
    tokens_input: Count = None
    tokens_output: Count = None
    provider: Id = None
    customer_id: Id = None
    end_user: Id = None
    user: Id = None
    precise_total_amount_cents: Number = None
    currency: str | None = None


class CloudEvent(msgspec.Struct, gc=False):
    """The attributes of a CloudEvent (cloudevents.io, 1.0) that identify the call, its customer and its time."""

    id: Id = None
    source: Id = None
    subject: Id = None
    time: Time = None
    data: CloudEventData | None = None


class Call(msgspec.Struct, gc=False):
    """One call in any of the five shapes. Every field may be absent."""

    # LiteLLM, both shapes
    id: Id = None
    request_id: Id = None
    litellm_call_id: Id = None
    status: str | None = None
    call_type: str | None = None
    custom_llm_provider: str | None = None
    model: str | None = None
    model_group: str | None = None
    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    startTime: Time = None  # LiteLLM's spelling
    endTime: Time = None
    cache_hit: bool | str | None = None
    end_user: Id = None
    # StandardLoggingPayload only
    response_cost: Number = None
    metadata: CallMetadata | None = None
    # flat only
    spend: Number = None
    user: Id = None
    user_id: Id = None
    team_id: Id = None
    organization_id: Id = None
    api_key: Id = None
    key_alias: Id = None
    cached_tokens: Count = None
    reasoning_tokens: Count = None
    byok: bool | None = None
    # integration payload
    event_type: str | None = None
    timestamp: Time = None
    customer_id: Id = None
    provider: str | None = None
    tokens_input: Count = None
    tokens_output: Count = None
    cost_usd: Number = None
    api_key_hash: Id = None
    # id of an answer that was read again; the ingress makes it from the answer's own id
    answer_id: str | None = None
    # Lago's ingest shape
    transaction_id: Id = None
    external_subscription_id: Id = None
    code: str | None = None
    precise_total_amount_cents: Number = None
    properties: LagoProperties | None = None
    # CloudEvents
    cloud_event: CloudEvent | None = None
    # dollars in the cost that failed attempts of the call have cost; the ingress reads it from LiteLLM's breakdown
    carried_cost: Number = None
    # other senders' names for the same
    cost: Number = None
    external_customer_id: Id = None
    # of the cost; LiteLLM sends none, because its costs are in US dollars
    currency: str | None = None


def _raw_twin(of: type[msgspec.Struct], also: tuple[str, ...] = (), **nested: Any) -> type[msgspec.Struct]:
    """Make a struct with the same field names and those in `also`, in which every value stays the sent JSON text."""
    names = (*of.__struct_fields__, *also)
    fields = [(name, nested.get(name, Raw) | msgspec.UnsetType, msgspec.UNSET) for name in names]
    return msgspec.defstruct("Stored" + of.__name__, fields, gc=False)


_StoredDetails = _raw_twin(TokenDetails)
_StoredUsage = _raw_twin(
    UsageObject,
    prompt_tokens_details=_StoredDetails | None,
    completion_tokens_details=_StoredDetails | None,
)
_StoredProperties = _raw_twin(LagoProperties)
_StoredEventData = _raw_twin(CloudEventData)

#: The members of a CloudEvent that are read and not stored: they distinguish it from a call, or hold its data in
#: another form.
EVENT_SIGNS = ("specversion", "type", "data_base64")
StoredCloudEvent = _raw_twin(CloudEvent, also=EVENT_SIGNS, data=_StoredEventData | None)
#: Members that may contain calls: wrappers of several senders.
WRAPPERS = ("events", "event", "records", "record", "data", "calls", "logs", "usage")
#: The member with the parts of a call's cost. Rows of LiteLLM's table have it in `metadata`.
BREAKDOWN = "cost_breakdown"
#: The members from which the context is made (schemas/context.py), at the top level and in `metadata`.
CONTEXT_FIELDS = (BREAKDOWN, "completionStartTime", "model_id", "api_base")
#: The member of a failed call that holds its error; connectors/ingest/call_errors.py selects the stored parts.
ERROR = "error_information"
CONTEXT_METADATA = ("spend_logs_metadata", "user_api_key_auth_metadata")
#: The members that may hold a call's power level: `metadata`, the metadata of its row in LiteLLM's logs, or a tag.
TAGS = "request_tags"
LEVEL_METADATA = ("power_level", "spend_logs_metadata")


def stored_call(*, metadata: bool = False) -> type[msgspec.Struct]:
    """Return the type of an element at the ingress: a call's fields, and those that are not stored unchanged.

    Args:
        metadata: also read all of `CONTEXT_METADATA`.
    """
    context = (*CONTEXT_FIELDS, TAGS, ERROR)
    also = (*LEVEL_METADATA, *CONTEXT_METADATA) if metadata else LEVEL_METADATA
    of_key = _raw_twin(CallMetadata, also=tuple(dict.fromkeys(also)), usage_object=_StoredUsage | None)
    return _raw_twin(
        Call,
        also=("specversion", *WRAPPERS, *context),
        completionStartTime=Time,
        model_id=str | None,
        api_base=str | None,
        metadata=of_key | None,
        properties=_StoredProperties | None,
        cloud_event=_raw_twin(CloudEvent, data=_StoredEventData | None) | None,
        cost_breakdown=StoredCosts | None,
    )


#: The numeric members of LiteLLM's `cost_breakdown`.
COSTS = (
    *("input_cost", "output_cost", "total_cost", "original_cost", "tool_usage_cost", "cache_read_cost"),
    *("cache_creation_cost", "discount_percent", "discount_amount", "margin_percent", "margin_fixed_amount"),
    "margin_total_amount",
)
#: The member of `cost_breakdown` with further costs, and those of them that failed attempts of the same call have reported before.
ADDITIONAL = "additional_costs"
CARRIED = ("mid_stream_partial_cost", "failed_attempts_cost")
#: Floats, as LiteLLM sends them. They are not used for billing, except the carried ones of the additional costs.
StoredCosts = msgspec.defstruct(
    "StoredCosts",
    [*((name, float | None, None) for name in COSTS), (ADDITIONAL, Raw | msgspec.UnsetType, msgspec.UNSET)],
    omit_defaults=True,
    gc=False,
)


class Metered(msgspec.Struct, gc=False):
    """Usage that another service measured: an event of an org, with its own code and properties.

    Fields:
        org_id: id of Lago's customer, normalised like a customer id.
        transaction_id: id from the recorder. Two events of one org with the same id are one event.
        code: code of the billable metric.
        at: time of the usage, microseconds since 1970 UTC.
        properties: the properties that the metric reads, and others.
        actor: the account that recorded it, as in the audit log; `""` in older records, and from processes without a
            credential of their own.
    """

    org_id: str
    transaction_id: str
    code: str
    at: int
    properties: dict[str, str] = {}
    actor: str = ""


class RawRecord(msgspec.Struct, gc=False):
    """A value of `litellm.usage.raw`.

    Fields:
        v: version of the envelope.
        source: the origin: `webhook`, `backfill` or `api`. A replayed or requeued call keeps its origin.
        shape: which of the five shapes `call` has, or `metered`.
        received_at: microseconds since 1970 UTC at the ingress.
        id_kind: the field of the Kafka key: `end_user`, `user`, `team`, `organization`, `key`, `customer`,
            `subscription` or `unattributed`; `org` together with `metered`.
        call: the allow-listed call; empty together with `metered`.
        checked_at: when a check found that the usage log does not have the call, microseconds since 1970 UTC; 0 = never
            checked, as for a call by webhook.
        metered: usage that another service measured; null for a call.
        accepted: reasons for which the meter would refuse the call and that an operator has overruled, e.g.
            `implausible_cost`.
        rules: version of the rules of the ingress that wrote it. From 1 on, texts have no NUL, an amount that is text
            is a plain decimal number, and no field for a key's hash holds a key. Records of an older ingress are
            checked when they are read.
        note: the details that the ingress converted or left out; `""` = none.
        context: a `CallContext`, which no billing rule reads, for later questions; absent if there is none.
        power_level: the requested power level, such as `eco`; `""` = none.
    """

    v: int
    source: str
    shape: str
    received_at: int
    id_kind: str
    call: Call
    checked_at: int = 0
    metered: Metered | None = None
    accepted: tuple[str, ...] = ()
    rules: int = 0
    note: str = ""
    context: Raw | msgspec.UnsetType = msgspec.UNSET
    power_level: str = ""
