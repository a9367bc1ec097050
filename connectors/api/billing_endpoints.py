"""The endpoints of orgs, customers and plans, with what stands behind them."""

import time
from collections.abc import Callable

from connectors.api.customers import customer_endpoints
from connectors.api.dashboard import dashboard_endpoints
from connectors.api.limits import limit_endpoints
from connectors.api.org_invoices import invoice_endpoints
from connectors.api.org_usage import usage_endpoints
from connectors.api.orgs import org_endpoints
from connectors.api.plans import plan_endpoints
from connectors.billing.dashboard import Dashboards
from connectors.billing.identity_mapping import Identities
from connectors.billing.lago_setup import API_CALL
from connectors.billing.org_accounts import OrgAccounts
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_records import OrgRecords
from connectors.billing.plan_preview import PlanPreviews
from connectors.billing.usage_limits import REQUESTS, TOKENS, RecordLimits
from connectors.http.endpoint import Endpoint


def billing_endpoints(
    billing: OrgBilling,
    records: OrgRecords,
    event_code: str,
    identities: Identities,
    *,
    now_us: Callable[[], int],
    clock: Callable[[], float] = time.monotonic,
) -> list[Endpoint]:
    """All of them.

    Args:
        event_code: `LAGO_EVENT_CODE`: the metric whose units are tokens.
        identities: the mappings of customers onto themselves.
        now_us: microseconds since 1970 UTC.
        clock: seconds, never backwards.
    """
    accounts, limits = OrgAccounts(billing, records, now_us), RecordLimits(records)
    codes = {TOKENS: event_code, REQUESTS: API_CALL}
    return [
        *org_endpoints(accounts, PlanPreviews(accounts, now_us)),
        *usage_endpoints(accounts),
        *invoice_endpoints(accounts),
        *dashboard_endpoints(Dashboards(accounts, limits, codes, clock)),
        *limit_endpoints(accounts, limits),
        *customer_endpoints(accounts, identities),
        *plan_endpoints(billing),
    ]
