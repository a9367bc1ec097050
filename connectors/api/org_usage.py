"""Usage of orgs over HTTP: record it, and read it as Lago counts it."""

from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final

import msgspec
from aiohttp import web
from pydantic import BaseModel, BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, WithJsonSchema

from connectors.api.org_models import answer
from connectors.api.orgs import ORG
from connectors.billing.metered_events import MeteredEvent
from connectors.billing.metered_numbers import numbers_of, takes_back
from connectors.billing.org_accounts import OrgAccounts
from connectors.http.endpoint import AuthorizedRequest, endpoint, missing_scope
from connectors.ingest.sender_mistakes import doubt_about
from connectors.lago.responses import CustomerUsage
from schemas.moments import to_iso

#: The scope to record usage below 0.
CORRECT: Final = "usage:correct"
#: Bytes of a body, which is one event.
MAX_EVENT: Final = 1 << 17

Text = Annotated[StrictStr, Field(min_length=1, max_length=255)]
#: A number in JSON with all its digits; a float would bill 100000000000000010000000 for 100000000000000000000000.5.
ExactNumber = Annotated[Decimal, Field(strict=True, allow_inf_nan=True), WithJsonSchema({"type": "number"})]


def _seconds(moment: Any) -> Any:
    return float(moment) if isinstance(moment, Decimal) else moment


class UsageBody(BaseModel, extra="forbid"):
    """An event that another service measured.

    Fields:
        event_code: code of the billable metric.
        transaction_id: two requests with the same one record one event.
        properties: the properties that the billable metric reads.
        timestamp: of the usage; seconds or milliseconds since 1970, or ISO 8601; default now.
    """

    exact_numbers: ClassVar[bool] = True

    event_code: Text
    transaction_id: Text
    properties: dict[str, StrictStr | StrictBool | StrictInt | ExactNumber | None] = {}
    timestamp: Annotated[StrictInt | StrictFloat | StrictStr | None, BeforeValidator(_seconds)] = None


class Accepted(BaseModel):
    """The event is stored: it will be billed once.

    Fields:
        status: always `accepted`.
        warning: why the event will probably cost nothing, or not what was meant, for people; null = nothing is known
            to be wrong.
    """

    status: str = "accepted"
    transaction_id: str
    warning: str | None


class ChargedUsage(BaseModel):
    """The usage on one billable metric; `units` is a decimal.

    Fields:
        code: the code of the billable metric.
        name: its name on invoices.
        units: what was used, a decimal.
        events_count: how many events Lago counted.
        amount_cents: the amount before taxes, in the smallest unit of the currency.
    """

    code: str
    name: str
    units: str
    events_count: int
    amount_cents: int


class UsageShown(BaseModel):
    """What Lago counts in the running period, both ends included; `amount_cents` is without taxes.

    Fields:
        from_datetime, to_datetime: bounds of the running period, ISO 8601, both included.
        amount_cents: the amount before taxes, in the smallest unit of the currency.
        total_amount_cents: amount and taxes, in the smallest unit of the currency.
    """

    external_subscription_id: str
    from_datetime: str
    to_datetime: str
    currency: str
    amount_cents: int
    taxes_amount_cents: int
    total_amount_cents: int
    charges: list[ChargedUsage]


class UsageHandlers:
    """`/usage/record` and `/usage/current` of an org."""

    def __init__(self, accounts: OrgAccounts) -> None:
        self._accounts = accounts

    @endpoint(
        "POST",
        f"{ORG}/usage/record",
        "usage:write",
        body=UsageBody,
        refuses={
            404: ("no_active_subscription",),
            422: ("bad_event", "bad_property", "number_out_of_range", "limit_reached"),
        },
        answers={202: Accepted},
        also={CORRECT: "a property below 0"},
        max_bytes=MAX_EVENT,
    )
    async def record(self, authorized: AuthorizedRequest) -> web.Response:
        """Store usage that another service measured; it is billed once."""
        body: UsageBody = authorized.body

        async def accept(event: MeteredEvent) -> MeteredEvent:
            if (name := takes_back(event.properties)) and not authorized.principal.may(CORRECT):
                raise missing_scope(CORRECT, f"{name} is below 0, which reduces the bill")
            with_problem_answers = {"event_code": event.code, "transaction_id": event.transaction_id}
            await authorized.changing(
                None, with_problem_answers | {"at": to_iso(event.at_us), "numbers": numbers_of(event.properties)}
            )
            return msgspec.structs.replace(event, actor=authorized.principal.actor)

        event = await self._accounts.billing.record(
            authorized.part("org_id"), body.event_code, body.transaction_id, body.properties, body.timestamp, accept
        )
        doubts = (
            self._accounts.uncharged(event.org_id, event.code),
            doubt_about("timestamp", event.at_us, self._accounts.now_us()),
        )
        warning = "; ".join(filter(None, doubts)) or None
        return answer(Accepted(transaction_id=event.transaction_id, warning=warning), 202)

    @endpoint(
        "GET",
        f"{ORG}/usage/current",
        "orgs:read",
        refuses={404: ("unknown_org", "no_subscription")},
        answers={200: UsageShown},
    )
    async def current(self, authorized: AuthorizedRequest) -> web.Response:
        """Show what Lago counts in the org's running period."""
        running, usage = await self._accounts.usage(authorized.part("org_id"))
        return answer(usage_shown(running.external_id, usage))


def usage_shown(external_subscription_id: str, usage: CustomerUsage) -> UsageShown:
    """Usage as Lago reports it."""
    return UsageShown(
        external_subscription_id=external_subscription_id,
        from_datetime=usage.from_datetime,
        to_datetime=usage.to_datetime,
        currency=usage.currency,
        amount_cents=usage.amount_cents,
        taxes_amount_cents=usage.taxes_amount_cents,
        total_amount_cents=usage.total_amount_cents,
        charges=[
            ChargedUsage(
                code=charge.billable_metric.code,
                name=charge.billable_metric.name,
                units=charge.units,
                events_count=charge.events_count,
                amount_cents=charge.amount_cents,
            )
            for charge in usage.charges_usage
        ],
    )
