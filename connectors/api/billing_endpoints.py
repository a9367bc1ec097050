"""The endpoints of orgs, customers and plans, and the objects that they use."""

import time
from collections.abc import Callable, Mapping

from connectors.api.customers import CustomerHandlers
from connectors.api.dashboard import DashboardHandler
from connectors.api.limits import LimitHandlers
from connectors.api.org_invoices import InvoiceHandlers
from connectors.api.org_usage import UsageHandlers
from connectors.api.organization_choice import by_organization
from connectors.api.orgs import OrgHandlers
from connectors.api.plans import PlanHandlers
from connectors.billing.dashboard import Dashboards
from connectors.billing.identity_mapping import Identities, NoIdentities
from connectors.billing.lago_setup import API_CALL
from connectors.billing.org_accounts import OrgAccounts
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_records import OrgRecords
from connectors.billing.plan_preview import PlanPreviews
from connectors.billing.usage_limits import REQUESTS, TOKENS, RecordLimits
from connectors.http.endpoint import Endpoint, endpoints_of


def billing_endpoints_of_all(
    billings: Mapping[str, OrgBilling],
    organization_of: Callable[[str], str],
    records: OrgRecords,
    event_code: str,
    identities: Identities,
    *,
    now_us: Callable[[], int],
) -> list[Endpoint]:
    """Return `billing_endpoints` of several Lago organisations.

    Args:
        billings: by organisation, with the default one.
        organization_of: the organisation of an org.
        identities: of customers of the default organisation. Customers of other organisations are mapped only on
            request, because several organisations may have the same id.
    """
    return by_organization(
        {
            name: billing_endpoints(billing, records, event_code, NoIdentities() if name else identities, now_us=now_us)
            for name, billing in billings.items()
        },
        organization_of,
    )


def billing_endpoints(
    billing: OrgBilling,
    records: OrgRecords,
    event_code: str,
    identities: Identities,
    *,
    now_us: Callable[[], int],
    clock: Callable[[], float] = time.monotonic,
) -> list[Endpoint]:
    """Return all endpoints of this folder about billing.

    Args:
        event_code: code of the metric that counts tokens (`LAGO_EVENT_CODE`).
        identities: mappings of LiteLLM customers to the Lago customers of the same id.
        now_us: microseconds since 1970 UTC.
        clock: monotonic seconds.
    """
    accounts, limits = OrgAccounts(billing, records, now_us), RecordLimits(records)
    codes = {TOKENS: event_code, REQUESTS: API_CALL}
    handlers = (
        OrgHandlers(accounts, PlanPreviews(accounts, now_us)),
        UsageHandlers(accounts),
        InvoiceHandlers(accounts),
        DashboardHandler(Dashboards(accounts, limits, codes, clock)),
        LimitHandlers(accounts, limits),
        CustomerHandlers(accounts, identities),
        PlanHandlers(billing),
    )
    return [declared for handler in handlers for declared in endpoints_of(handler)]
