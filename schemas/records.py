"""Values of the topics that leave the meter and the sink."""

from decimal import Decimal
from hashlib import sha256

import msgspec

from schemas.money import ZERO


class EnrichedUsage(msgspec.Struct, omit_defaults=True, gc=False):
    """A value of `litellm.usage.enriched`: one record a call, also for calls that are not billed.

    A repeated delivery has no record; a rejected call is in `litellm.usage.rejected`. It has a record here, too, if the
    lost ledger of its partition may have counted it.

    Fields:
        identity: hex of the call's identity.
        offset: the call's offset in the raw topic's partition of the same number.
        decision: see streams/core/metering/decisions.py.
        part: transaction id of the event that bills the call; `""` when it is not billed. While held it names the held
            window; the event that releases the window lists it in its manifest.
        external_subscription_id, org_id: the resolved target; `""` while held.
        start, end: ISO 8601 UTC.
        note: unusual facts about the call, for people; `""` = none.
        context: a `CallContext`; absent if there is none.
        billed_usd: the billed amount by a rate card, dollars. For a held call it is the amount before the factor of its
            org or plan, which its event has. None = no card applies, and the amount is `cost_usd` if `decision` is
            billed, otherwise nothing.
        rate: id of the rate card version; `""` = none applies.
        power_level: the requested power level, such as `eco`; `""` = none.
        cache_write_tokens: tokens that were written to the provider's cache; `tokens_input` includes them.
        images, seconds: number of generated images; seconds of sound or video.
        byok: whether the caller's own provider key paid the provider.
        price_usd: `billed_usd` before the payer's factor, if the factor is not 1.
        ledger: the deployment, raw topic and partition, as the names of parts begin with them; `""` if `part` does so.
        cache_hit: whether a cache answered the call.
    """

    identity: str
    offset: int
    customer_id: str
    id_kind: str
    decision: str
    cost_usd: Decimal
    start: str
    end: str
    model: str = ""
    provider: str = ""
    tokens_input: int = 0
    tokens_output: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    status: str = ""
    call_id: str = ""
    request_id: str = ""
    call_type: str = ""
    user_id: str = ""
    team_id: str = ""
    organization_id: str = ""
    key_hash: str = ""
    key_alias: str = ""
    org_id: str = ""
    external_subscription_id: str = ""
    held: str = ""
    part: str = ""
    note: str = ""
    context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    billed_usd: Decimal | None = None
    rate: str = ""
    power_level: str = ""
    cache_write_tokens: int = 0
    images: int = 0
    seconds: Decimal = ZERO
    price_usd: Decimal | None = None
    byok: bool = False
    ledger: str = ""
    cache_hit: bool = False


class LagoEvent(msgspec.Struct, gc=False):
    """One element of Lago's `POST /api/v1/events/batch`, posted byte for byte as stored.

    Fields:
        timestamp: seconds with milliseconds, as text.
        precise_total_amount_cents: cents as plain decimal text, at most 15 decimals.
        properties: text values by name; `unit` is never 0, because Lago would bill nothing.
    """

    transaction_id: str
    external_subscription_id: str
    code: str
    timestamp: str
    precise_total_amount_cents: str
    properties: dict[str, str]


class Manifest(msgspec.Struct, omit_defaults=True, gc=False):
    """Header `manifest` of an event: which calls it bills.

    Fields:
        partition: partition of the raw topic.
        first, last: raw offsets of the part's first and last call.
        count: number of calls.
        windows: first offsets of the held windows that were released into this part.
        deployment: the deployment that sealed it; another deployment's sink does not post it.
        organization: the Lago organisation to which it is posted; `""` = the default one.
    """

    partition: int
    first: int
    last: int
    count: int
    windows: tuple[int, ...] = ()
    deployment: str = ""
    organization: str = ""


class Receipt(msgspec.Struct, omit_defaults=True, gc=False):
    """A value of `billing.receipts`: the state of one Lago event changed.

    Fields:
        status: `pending` (sealed), `processing` (posted, waiting for another attempt), `completed`, `failed` (a dead
            letter); `written_off` for a held window that an operator wrote off, which never became an event.
        at: microseconds since 1970 UTC.
        cents: the event's amount, plain decimal text.
        calls: number of calls in the event.
        reason: why it is not completed; `""` = it is.
        external_subscription_id: the subscription to which it was posted: the event's own, unless that one had ended
            before.
        attempts: number of failed deliveries. A requeued dead letter begins at 0 again.
        timestamp: the timestamp of the post, if the billing period of the event's own timestamp was invoiced before;
            `""` = its own.
        maybe_sent: of a dead letter, whether Lago may have stored an earlier post of it; None = not said: the status is
            another one, or an earlier release wrote the receipt. streams/core/delivery/maybe_sent.py decides with it.
    """

    transaction_id: str
    status: str
    at: int
    external_subscription_id: str = ""
    cents: str = "0"
    calls: int = 0
    attempts: int = 0
    reason: str = ""
    timestamp: str = ""
    maybe_sent: bool | None = None


class WriteOff(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """An operator's order in `litellm.usage.raw`, with the header `control: write_off`; the key is the customer.

    A worker of a release without `match` finds no usage for the empty key of such an order, and skips it.

    Fields:
        audit_id: id of the line in `billing.audit` with the operator and the reason.
        at: microseconds since 1970 UTC.
        until: held usage that ended at or before this moment is written off, microseconds since 1970 UTC.
        id_kind: only usage with customer ids of this kind; `""` = all.
        match: all customers of the partition whose id matches this pattern (`fnmatch`); the key is then empty. Ids that
            begin with `unattributed:` match only a pattern with the same beginning.
    """

    audit_id: str
    at: int
    until: int
    id_kind: str = ""
    match: str = ""


class AuditRecord(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """A value of `billing.audit`: an action that affects money.

    Fields:
        audit_id: random id, which the records of the action contain, too.
        at: microseconds since 1970 UTC.
        actor: the person or process that acted, as far as the command or the key shows.
        action: `dlq.requeue`, `dlq.purge`, `held.write_off`, `replay`, `backfill`, `keys.*`; for the api the method and
            the path, `PUT /customers/{id}`; `access.refused`.
        target: the object of the action, in the command's own terms; for the api the parts of the path.
        reason: the operator's comment; for a refused attempt the code of the response.
        count, cost_usd: number of affected records and their dollars; for refused attempts their number.
        before, after: the state before the action and the requested state, as JSON text; `""` = nothing.
        request_id: id of the api request, which the log lines contain, too.
        address: the client's address.
        prev, covered, chain: the newest line that its writer had read, how many there were up to it, and the running
            hash over them (ADR 0030).
        digest: SHA-256 of the line without this member, hex; it is the last member. `""` in lines from before the
            chain.
    """

    audit_id: str
    at: int
    actor: str
    action: str
    target: dict[str, str]
    reason: str = ""
    count: int = 0
    cost_usd: Decimal = Decimal(0)
    before: str = ""
    after: str = ""
    request_id: str = ""
    address: str = ""
    prev: str = ""
    covered: int = 0
    chain: str = ""
    digest: str = ""


class DeliveryAttempt(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """A value of `billing.deliveries`: a post of events to Lago or a webhook of Lago, without the content; or the state
    of a partition, halted or running.

    Fields:
        at: time of the response, or of the detection, microseconds since 1970 UTC.
        direction: `out`: from Meterbridge to Lago; `in`: from Lago to Meterbridge; `state`: the state of a partition.
        event_type: `events.batch`, or the webhook's type; for a partition `partition.halted` or `partition.running`.
        status: HTTP status of the response; 0 = none came, or there was no request.
        duration_ms: time from the request to the response, milliseconds.
        error: stable code of the failure, or why the partition is halted; `""` = success, or the partition runs.
        attempt: number of posts of its first event since the event was last read from its topic, including this post.
        events: number of events.
        first, last: transaction ids of its first and its last event.
        source: topic and partition of the events; for a partition `role/topic/number`.
        unique_key: Lago's key of the webhook, the same in all its attempts.
    """

    at: int
    direction: str
    event_type: str
    status: int
    duration_ms: int
    error: str = ""
    attempt: int = 1
    events: int = 0
    first: str = ""
    last: str = ""
    source: str = ""
    unique_key: str = ""


class Rejection(msgspec.Struct, omit_defaults=True, gc=False):
    """A value of `litellm.usage.rejected`.

    Fields:
        reason: stable code (docs/errors.md).
        stage: `ingress` or `meter`.
        offset: offset in the raw topic if the meter rejected the call; -1 for the ingress.
        call: the stored envelope or allow-listed element, if it could be parsed.
        length, sha256, error_offset: the only stored data of a body that could not be parsed.
    """

    reason: str
    stage: str
    at: int
    detail: str = ""
    offset: int = -1
    call: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # msgspec cannot decode `Raw | None`
    length: int | None = None
    sha256: str | None = None
    error_offset: int | None = None

    @property
    def content_digest(self) -> bytes | None:
        """SHA-256 of what is stored of the call or of the body. Copies have the same one; None = nothing is stored."""
        if isinstance(self.call, msgspec.Raw):
            return sha256(bytes(self.call)).digest()
        return sha256(self.sha256.encode()).digest() if self.sha256 else None
