"""Orgs over HTTP: set up, show, change and end their subscriptions, and hand out links to pay."""

from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import BaseModel, Field, StringConstraints

from connectors.api.org_models import (
    AccountShown,
    AttributesModel,
    Email,
    Id,
    Name,
    OrgShown,
    SubscriptionShown,
    account_shown,
    answer,
    org_shown,
)
from connectors.billing.org_accounts import Account, OrgAccounts, OrgRequest
from connectors.billing.plan_preview import PlanPreviews
from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import NO_STORE
from connectors.http.problem import Problem
from connectors.lago.errors import LagoRejected

ORG: Final = "/api/v1/billing/org/organizations/{org_id}"
#: A portal link of Lago expires after 12 hours.
PORTAL_S: Final = 12 * 3600
#: How the audit log names these links.
CHECKOUT: Final = "a link to enter a payment method"
PORTAL: Final = "a link to the org's pages in Lago"

Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}([T ][\d:.]{5,15}(Z|[+-]\d{2}:?\d{2})?)?$")]


class SetupBody(BaseModel, extra="forbid"):
    """The org to set up and its plan.

    Fields:
        plan_code: the plan to subscribe the org to.
        org_name: its name on invoices; empty = it stays as it is.
        email: where Lago sends invoices; empty = it stays as it is.
        user_id: the user in your own system, stored in Lago's metadata.
        metadata: at most two entries, because Lago keeps five and we write three.
        billing_time: `anniversary`: periods begin at the start of the subscription; `calendar`: with the
            calendar's months.
        subscription_at: when the subscription begins, ISO 8601; null = now.
    """

    plan_code: Id
    org_name: Name = ""
    email: Email = ""
    user_id: Annotated[Name, Field(max_length=100)] = ""
    metadata: dict[Id, Name] = {}
    billing_time: Literal["anniversary", "calendar"] = "anniversary"
    subscription_at: Moment | None = None


class PlanChangeBody(BaseModel, extra="forbid"):
    """The plan to change to. The code of the running plan cancels a change that waits for the end of the period.

    Fields:
        plan_code: the plan to change to.
    """

    plan_code: Id


class ChangedShown(BaseModel):
    """The subscription after a change of its plan.

    Fields:
        org: the org.
        subscription: its subscription after the request.
        applies: a plan that costs the same or more per year applies now, a cheaper one at the end of the
            period.
    """

    org: OrgShown
    subscription: SubscriptionShown
    applies: Literal["now", "at_period_end"]


class PreviewQuery(BaseModel):
    """The plan to compare with the running one.

    Fields:
        plan_code: the plan to compare with the running one.
    """

    plan_code: Id


class LineShown(AttributesModel):
    """A line of an invoice or a credit note for the days `[from_day, until_day)`.

    Fields:
        kind: `fee` of the plan, `usage` of a metric, or `credit` for days that are paid and not used.
        code: the code of the plan or of the billable metric.
        amount_cents: in the smallest unit of the currency.
        due: when it is invoiced, `YYYY-MM-DD`; null = never.
        from_day, until_day: the days `[from_day, until_day)`; null = not known.
    """

    kind: Literal["fee", "usage", "credit"]
    code: str
    amount_cents: int
    currency: str
    due: str | None
    from_day: str | None
    until_day: str | None


class PreviewShown(AttributesModel):
    """What a change of plan would cost. A preview changes nothing.

    Fields:
        from_plan, to_plan: the codes of the running plan and of the wanted one.
        applies: when the change would apply.
        applies_on: the day on which it would apply, `YYYY-MM-DD`.
        charged_cents: total of the invoice that Lago would issue on `applies_on`.
        credited_cents: credit for days that are paid and not used.
        computed_by: `lago`, which needs a licence of Lago, or `rules`: Meterbridge computed it by Lago's rules.
        lines: what the totals are made of.
        left_out: what the totals do not contain.
    """

    org_id: str
    external_subscription_id: str
    from_plan: str
    to_plan: str
    applies: Literal["now", "at_period_end", "never"]
    applies_on: str
    currency: str
    charged_cents: int
    credited_cents: int
    computed_by: Literal["lago", "rules"]
    lines: list[LineShown]
    left_out: list[str]


class LinkShown(BaseModel):
    """A link for a user of the org; `expires_in_s` is null if Lago does not say when it expires.

    Fields:
        url: the link. It gives access to the org's invoices: do not log it.
        expires_in_s: seconds after which it expires; null = Lago does not say.
    """

    url: str
    expires_in_s: int | None = None


class OrgHandlers:
    """Everything below `/api/v1/billing/org/organizations/{org_id}` except usage, invoices, limits and the dashboard.

    `checkout` and `portal` need the scope `orgs:write`: their links change how the org pays.
    """

    def __init__(self, accounts: OrgAccounts, previews: PlanPreviews) -> None:
        self._accounts = accounts
        self._previews = previews

    @endpoint(
        "POST",
        f"{ORG}/setup",
        "orgs:write",
        body=SetupBody,
        refuses={404: ("plan_not_found",), 409: ("other_plan", "several_subscriptions"), 422: ("validation_errors",)},
        answers={200: AccountShown, 201: AccountShown},
    )
    async def set_up(self, authorized: AuthorizedRequest) -> web.Response:
        """Create the customer and the subscription of an org if they do not exist; repeating it changes nothing."""
        body: SetupBody = authorized.body
        wanted = OrgRequest(
            authorized.part("org_id"),
            body.org_name,
            body.email,
            body.user_id,
            body.plan_code,
            body.metadata,
            body.billing_time,
            body.subscription_at,
        )
        account = await self._accounts.set_up(wanted, authorized.changing)
        return answer(account_shown(account), 201 if account.created else 200)

    @endpoint(
        "GET",
        f"{ORG}/subscription",
        "orgs:read",
        refuses={404: ("unknown_org", "no_subscription")},
        answers={200: SubscriptionShown},
    )
    async def subscription(self, authorized: AuthorizedRequest) -> web.Response:
        """Show the org's running subscription."""
        org_id = authorized.part("org_id")
        running = await self._accounts.billing.subscription(org_id)
        if running is None:
            running = (await self._accounts.account(org_id)).subscription
        if running is None:
            raise Problem(404, "no_subscription", "the org has no subscription")
        return answer(SubscriptionShown.model_validate(running))

    @endpoint(
        "PUT",
        f"{ORG}/subscription",
        "orgs:write",
        body=PlanChangeBody,
        refuses={
            404: ("unknown_org", "no_subscription", "plan_not_found"),
            409: ("several_subscriptions",),
            422: ("validation_errors",),
        },
        answers={200: ChangedShown},
    )
    async def change(self, authorized: AuthorizedRequest) -> web.Response:
        """Change the plan of the org's subscription; the subscription keeps its id."""
        body: PlanChangeBody = authorized.body
        account = await self._accounts.change_plan(authorized.part("org_id"), body.plan_code, authorized.changing)
        return answer(_changed(account, body.plan_code))

    @endpoint(
        "DELETE",
        f"{ORG}/subscription",
        "orgs:write",
        refuses={404: ("unknown_org", "no_subscription")},
        answers={200: SubscriptionShown},
    )
    async def end(self, authorized: AuthorizedRequest) -> web.Response:
        """End the org's subscription now; Lago bills its usage until now."""
        ended = await self._accounts.end(authorized.part("org_id"), authorized.changing)
        return answer(SubscriptionShown.model_validate(ended))

    @endpoint(
        "GET",
        f"{ORG}/subscription/preview",
        "orgs:read",
        query=PreviewQuery,
        refuses={
            404: ("unknown_org", "no_subscription", "plan_not_found"),
            422: ("other_currency", "unknown_interval"),
        },
        answers={200: PreviewShown},
    )
    async def preview(self, authorized: AuthorizedRequest) -> web.Response:
        """Show what another plan would cost, and from when."""
        query: PreviewQuery = authorized.query
        found = await self._previews.of(authorized.part("org_id"), query.plan_code)
        return answer(PreviewShown.model_validate(found))

    @endpoint(
        "GET",
        f"{ORG}/checkout",
        "orgs:write",
        refuses={404: ("unknown_org",)},
        answers={200: LinkShown},
        hands_out=CHECKOUT,
    )
    async def checkout(self, authorized: AuthorizedRequest) -> web.Response:
        """Get a link where the org enters a payment method."""
        url = await self._accounts.billing.lago.checkout_url(authorized.part("org_id"))
        await authorized.handing_out(CHECKOUT)
        return answer(LinkShown(url=url), headers=NO_STORE)

    @endpoint(
        "GET",
        f"{ORG}/portal",
        "orgs:write",
        refuses={404: ("unknown_org",)},
        answers={200: LinkShown},
        hands_out=PORTAL,
    )
    async def portal(self, authorized: AuthorizedRequest) -> web.Response:
        """Get a link to the org's own pages in Lago; it expires after 12 hours."""
        url = await self._accounts.billing.lago.portal_url(authorized.part("org_id"))
        await authorized.handing_out(PORTAL)
        return answer(LinkShown(url=url, expires_in_s=PORTAL_S), headers=NO_STORE)


def _changed(account: Account, plan_code: str) -> ChangedShown:
    running = account.subscription
    if running is None:
        raise LagoRejected("no_subscription", "the org's subscription has ended since the request began")
    return ChangedShown(
        org=org_shown(account.customer),
        subscription=SubscriptionShown.model_validate(running),
        applies="now" if running.plan_code == plan_code else "at_period_end",
    )
