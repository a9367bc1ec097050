"""One normalised call: the input of every rule about money, for calls of all routes."""

from decimal import Decimal
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from schemas.money import ZERO
from schemas.wire import Metered


class Twins(NamedTuple):
    """Other identities that one call may have, 16 bytes each.

    Fields:
        sought: if one of them is known, the call is a repeat.
        kept: they are remembered with the call.
    """

    sought: tuple[bytes, ...] = ()
    kept: tuple[bytes, ...] = ()


class Usage(msgspec.Struct, gc=False):
    """One LLM request's usage.

    Fields:
        identity: 16 bytes; equal for two deliveries of one call (streams/core/metering/identity.py).
        customer_id: normalised LiteLLM customer id, the Kafka key.
        id_kind: the field of the customer id.
        status: LiteLLM's `success` or `failure`.
        start_us, end_us: microseconds since 1970 UTC; `end_us` is the event time.
        model, provider: LiteLLM's names; `""` = there is none.
        tokens_input, tokens_output, total_tokens, cached_tokens, reasoning_tokens: counts; input includes cached,
            output includes reasoning.
        cost: dollars, quantised to `COST_DECIMALS`.
        cache_hit: whether LiteLLM's cache answered the call.
        byok: whether the caller's own provider key paid the provider.
        checked_us: when a check found that the usage log does not have the call, microseconds since 1970 UTC; 0 =
            never.
        twins: identities that the same call may have on another route. A backfilled call has them, because its times are
            in milliseconds and may be rounded, and so has a call whose sender gave no time.
        metered: usage that another service measured, emitted unchanged and without a cost. None for a call.
        note: why a value was corrected, e.g. `future_time`; `""` = nothing was.
        kind: the kind of the call (streams/core/metering/call_kinds.py).
        media: whether seconds, images or characters were counted.
        job: 16 bytes, equal for all reports of one job. It equals `identity` for a creation or a read of the job, and
            stands beside an own `identity` where the answer of a call may be read again. `b""` = no job.
        own_subscription: the caller's own subscription paid the provider (LiteLLM's `used_client_oauth_token`).
        silent_experiment: whether it is a copy of another call, made to compare models.
        accepted: reasons that an operator has overruled (`RawRecord.accepted`).
        context: see `CallContext`, in its stored form.
        shape: shape in the envelope.
        cache_write_tokens: tokens that were written to the provider's cache; input includes them.
        images, seconds: number of generated images; seconds of sound or video.
        power_level: the requested power level, such as `eco`; `""` = none.
        has_details: whether one of the four previous fields has a value.
        told_end_us: the end as it was sent, if no clock confirms it and `end_us` differs; 0 = `end_us` is that end.
        carried: dollars in `cost` that failed attempts of the same call have cost. They may be billed already
            (streams/core/metering/failed_attempts.py).
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
    twins: Twins | None = None
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
    carried: Decimal = ZERO


#: The counts of tokens, by the names that calls, failed attempts, windows and rows of the usage log have in common.
TOKENS: Final = ("tokens_input", "tokens_output", "total_tokens", "cached_tokens", "reasoning_tokens")
token_counts: Final = attrgetter(*TOKENS)
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
