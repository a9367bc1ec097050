"""One normalised call: the input of every rule about money, whatever route the call came by."""

from decimal import Decimal

import msgspec

from schemas.money import ZERO
from schemas.wire import Metered


class Usage(msgspec.Struct, gc=False):
    """One LLM request's usage.

    Fields:
        identity: 16 bytes; equal for two deliveries of one call (streams/core/metering/identity.py).
        customer_id: normalised LiteLLM customer id, the Kafka key.
        id_kind: the field that the customer id came from.
        status: LiteLLM's `success` or `failure`.
        start_us, end_us: microseconds since 1970 UTC; `end_us` is the event time.
        model, provider: LiteLLM's names, `""` when there is none.
        tokens_input, tokens_output, total_tokens, cached_tokens, reasoning_tokens: counts; input includes cached,
            output includes reasoning.
        cost: dollars, quantised to `COST_DECIMALS`.
        cache_hit: answered from LiteLLM's cache.
        byok: the caller's own provider key paid the provider.
        checked_us: when a check found that the usage log does not have the call, microseconds since 1970 UTC; 0 =
            never.
        twins: identities that another route may give the same call. Only a backfilled call has them: its times have
            milliseconds, and may be rounded.
        metered: usage that others measured, emitted unchanged; it costs nothing here. None for a call.
        note: why a value was corrected, e.g. `future_time`; `""` = nothing was.
        kind: the kind of the call (streams/core/metering/call_kinds.py).
        media: seconds, images or characters were counted.
        job: 16 bytes, equal for all reports of one job. It equals `identity` for a creation or a read of the job, and
            stands beside an own `identity` where the answer of a call may be read again. `b""` = no job.
        own_subscription: the caller's own subscription paid the provider (LiteLLM's `used_client_oauth_token`).
        silent_experiment: a copy of another call, made to compare models.
        accepted: reasons that an operator has overruled (`RawRecord.accepted`).
        context: see `CallContext`; as it was stored.
        shape: as stored in the envelope.
        cache_write_tokens: written to the provider's cache; input includes them.
        images, seconds: images that were made; seconds of sound or video.
        power_level: that the call asked for, such as `eco`; `""` = none.
        has_details: one of the four has a value.
        told_end_us: the end as it was sent, where no clock confirms it and `end_us` differs; 0 = `end_us` is that end.
    """

    identity: bytes
    customer_id: str
    id_kind: str
    status: str
    start_us: int
    end_us: int
    model: str
    provider: str
    tokens_input: int
    tokens_output: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: Decimal
    cache_hit: bool = False
    byok: bool = False
    call_id: str = ""
    request_id: str = ""
    call_type: str = ""
    model_group: str = ""
    end_user: str = ""
    user_id: str = ""
    team_id: str = ""
    organization_id: str = ""
    project_id: str = ""
    key_hash: str = ""
    key_alias: str = ""
    note: str = ""
    checked_us: int = 0
    twins: tuple[bytes, ...] = ()
    metered: Metered | None = None
    kind: str = "inference"
    media: bool = False
    job: bytes = b""
    own_subscription: bool = False
    silent_experiment: bool = False
    accepted: tuple[str, ...] = ()
    context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    shape: str = ""
    told_end_us: int = 0
    cache_write_tokens: int = 0
    images: int = 0
    seconds: Decimal = ZERO
    power_level: str = ""
    has_details: bool = False


#: The fields that `WINDOW_GROUP_BY` may add to a window's key.
GROUP_FIELDS = (
    "end_user",
    "user_id",
    "team_id",
    "organization_id",
    "project_id",
    "key_hash",
    "key_alias",
    "call_type",
    "model_group",
)
