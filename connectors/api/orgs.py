"""Orgs over HTTP: set up, subscribed, moved to another plan, ended; and links to pay by."""

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
    told,
)
from connectors.billing.org_accounts import Account, OrgAccounts, OrgRequest
from connectors.billing.plan_preview import PlanPreviews
from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.http.problem import Problem
from connectors.lago.errors import LagoRejected

ORG: Final = "/api/v1/billing/org/organizations/{org_id}"
#: Lago's portal links are good for so long.
PORTAL_S: Final = 12 * 3600
#: What the audit log calls what is handed out.
CHECKOUT: Final = "a link to leave a means of payment by"
PORTAL: Final = "a link to the org's pages in Lago"

Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}([T ][\d:.]{5,15}(Z|[+-]\d{2}:?\d{2})?)?$")]


class SetupBody(BaseModel, extra="forbid"):
    """Fields: metadata: at most two entries beside our own three; subscription_at: ISO 8601, now by default."""

    plan_code: Id
    org_name: Name = ""
    email: Email = ""
    user_id: Annotated[Name, Field(max_length=100)] = ""
    metadata: dict[Id, Name] = {}
    billing_time: Literal["anniversary", "calendar"] = "anniversary"
    subscription_at: Moment | None = None


class PlanChangeBody(BaseModel, extra="forbid"):
    """The plan to change to; the running one's own code takes back a change that waits."""

    plan_code: Id


class ChangedShown(BaseModel):
    """Fields: applies: a plan that costs as much or more a year applies at once, a cheaper one when the period ends."""

    org: OrgShown
    subscription: SubscriptionShown
    applies: Literal["now", "at_period_end"]


class PreviewQuery(BaseModel):
    """The plan that the org might change to."""

    plan_code: Id


class LineShown(AttributesModel):
    """A line of an invoice or a credit note, due on a day; `[from_day, until_day)`."""

    kind: Literal["fee", "usage", "credit"]
    code: str
    amount_cents: int
    currency: str
    due: str | None
    from_day: str | None
    until_day: str | None


class PreviewShown(AttributesModel):
    """What a change of plan would cost; nothing is changed.

    Fields:
        charged_cents: of the invoice that comes with the change, on `applies_on`.
        credited_cents: given back for days that are paid and not used.
        computed_by: `lago` itself, which needs a licence, or its `rules`, worked out here.
        left_out: what is not in the sums.
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
    """A link for the org's own people; `expires_in_s` null where Lago does not say."""

    url: str
    expires_in_s: int | None = None


def org_endpoints(accounts: OrgAccounts, previews: PlanPreviews) -> list[Endpoint]:
    """Everything below `/api/v1/billing/org/organizations/{org_id}` that is no usage, invoice or limit."""
    orgs = _Orgs(accounts, previews)
    return [
        Endpoint(
            "POST",
            f"{ORG}/setup",
            "orgs:write",
            "Make an org's customer and subscription where they are missing; the same twice is the same once.",
            told(orgs.set_up),
            body=SetupBody,
            answers={200: AccountShown, 201: AccountShown},
            org="org_id",
            changes=True,
        ),
        Endpoint(
            "GET",
            f"{ORG}/subscription",
            "orgs:read",
            "The org's running subscription.",
            told(orgs.subscription),
            answers={200: SubscriptionShown},
            org="org_id",
        ),
        Endpoint(
            "PUT",
            f"{ORG}/subscription",
            "orgs:write",
            "Upgrade or downgrade; the subscription keeps its id.",
            told(orgs.change),
            body=PlanChangeBody,
            answers={200: ChangedShown},
            org="org_id",
            changes=True,
        ),
        Endpoint(
            "DELETE",
            f"{ORG}/subscription",
            "orgs:write",
            "End the subscription now; what it used is billed.",
            told(orgs.end),
            answers={200: SubscriptionShown},
            org="org_id",
            changes=True,
        ),
        Endpoint(
            "GET",
            f"{ORG}/subscription/preview",
            "orgs:read",
            "What another plan would cost, and from when.",
            told(orgs.preview),
            query=PreviewQuery,
            answers={200: PreviewShown},
            org="org_id",
        ),
        *_link_endpoints(orgs),
    ]


def _link_endpoints(orgs: "_Orgs") -> list[Endpoint]:
    """Whoever has these links may change how the org pays: they need the scope to change it."""
    return [
        Endpoint(
            "GET",
            f"{ORG}/checkout",
            "orgs:write",
            "A link by which the org leaves a means of payment.",
            told(orgs.checkout),
            answers={200: LinkShown},
            org="org_id",
            hands_out=CHECKOUT,
        ),
        Endpoint(
            "GET",
            f"{ORG}/portal",
            "orgs:write",
            "A link to the org's own pages in Lago, good for 12 hours.",
            told(orgs.portal),
            answers={200: LinkShown},
            org="org_id",
            hands_out=PORTAL,
        ),
    ]


class _Orgs:
    """The handlers."""

    def __init__(self, accounts: OrgAccounts, previews: PlanPreviews) -> None:
        self._accounts = accounts
        self._previews = previews

    async def set_up(self, asked: AuthorizedRequest) -> web.Response:
        body: SetupBody = asked.body
        wanted = OrgRequest(
            asked.part("org_id"),
            body.org_name,
            body.email,
            body.user_id,
            body.plan_code,
            body.metadata,
            body.billing_time,
            body.subscription_at,
        )
        account = await self._accounts.set_up(wanted, asked.changing)
        return answer(account_shown(account), 201 if account.created else 200)

    async def subscription(self, asked: AuthorizedRequest) -> web.Response:
        org_id = asked.part("org_id")
        running = await self._accounts.billing.subscription(org_id)
        if running is None:
            running = (await self._accounts.account(org_id)).subscription
        if running is None:
            raise Problem(404, "no_subscription", "the org has no subscription")
        return answer(SubscriptionShown.model_validate(running))

    async def change(self, asked: AuthorizedRequest) -> web.Response:
        body: PlanChangeBody = asked.body
        account = await self._accounts.change_plan(asked.part("org_id"), body.plan_code, asked.changing)
        return answer(_changed(account, body.plan_code))

    async def end(self, asked: AuthorizedRequest) -> web.Response:
        ended = await self._accounts.end(asked.part("org_id"), asked.changing)
        return answer(SubscriptionShown.model_validate(ended))

    async def preview(self, asked: AuthorizedRequest) -> web.Response:
        query: PreviewQuery = asked.query
        found = await self._previews.of(asked.part("org_id"), query.plan_code)
        return answer(PreviewShown.model_validate(found))

    async def checkout(self, asked: AuthorizedRequest) -> web.Response:
        url = await self._accounts.billing.lago.checkout_url(asked.part("org_id"))
        await asked.handing_out(CHECKOUT)
        return _link(url)

    async def portal(self, asked: AuthorizedRequest) -> web.Response:
        url = await self._accounts.billing.lago.portal_url(asked.part("org_id"))
        await asked.handing_out(PORTAL)
        return _link(url, PORTAL_S)


def _changed(account: Account, plan_code: str) -> ChangedShown:
    running = account.subscription
    if running is None:
        raise LagoRejected("no_subscription", "the org's subscription has ended meanwhile")
    return ChangedShown(
        org=org_shown(account.customer),
        subscription=SubscriptionShown.model_validate(running),
        applies="now" if running.plan_code == plan_code else "at_period_end",
    )


def _link(url: str, expires_in_s: int | None = None) -> web.Response:
    response = answer(LinkShown(url=url, expires_in_s=expires_in_s))
    response.headers["Cache-Control"] = "no-store"
    return response
