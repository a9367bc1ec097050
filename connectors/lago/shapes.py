"""The parts of Lago's answers that are read, and what they mean in our own types."""

import msgspec

from schemas.customers import Period
from schemas.moments import lago_timestamp, parse_us
from schemas.records import LagoEvent


class Organization(msgspec.Struct, frozen=True):
    """Lago's tenant; `events_store` is `postgres` or `clickhouse`, None where this Lago does not tell."""

    lago_id: str | None = None
    name: str | None = None
    events_store: str | None = None


class Customer(msgspec.Struct, frozen=True):
    """Lago's customer: the billed org."""

    external_id: str
    lago_id: str | None = None
    name: str | None = None
    currency: str | None = None


class Event(msgspec.Struct):
    transaction_id: str
    external_subscription_id: str | None
    code: str
    timestamp: str
    precise_total_amount_cents: str | None = None
    properties: dict[str, msgspec.Raw] = {}


class EventBody(msgspec.Struct):
    event: Event


class OrganizationBody(msgspec.Struct):
    organization: Organization


class CustomerBody(msgspec.Struct):
    customer: Customer


class Subscription(msgspec.Struct):
    external_id: str
    started_at: str
    plan_code: str | None = None
    terminated_at: str | None = None


class _Meta(msgspec.Struct):
    next_page: int | None = None


class SubscriptionsBody(msgspec.Struct):
    subscriptions: list[Subscription]
    meta: _Meta = msgspec.field(default_factory=_Meta)


class Refusal(msgspec.Struct):
    code: str = ""


def event_of(found: Event) -> LagoEvent:
    """The event as it would be sent. Raises: Rejected `bad_time`."""
    return LagoEvent(
        transaction_id=found.transaction_id,
        external_subscription_id=found.external_subscription_id or "",
        code=found.code,
        timestamp=lago_timestamp(parse_us(found.timestamp)),
        precise_total_amount_cents=found.precise_total_amount_cents or "0",
        properties={name: _text(value) for name, value in found.properties.items()},
    )


def _text(value: msgspec.Raw) -> str:
    """A JSON text as itself, anything else as its JSON."""
    decoded = msgspec.json.decode(value)
    return decoded if isinstance(decoded, str) else bytes(value).decode()


def period_of(found: Subscription) -> Period:
    """Raises: Rejected `bad_time`."""
    ended = None if found.terminated_at is None else parse_us(found.terminated_at)
    return Period(found.external_id, parse_us(found.started_at), ended, found.plan_code or "")
