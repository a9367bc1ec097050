"""For services that bill their own organisations: middleware for aiohttp and ASGI, and what it stands on.

See docs/middleware.md.
"""

from connectors.lago.limits import FixedLimits, LimitUse, UsageLimitReached
from connectors.lago.orgs import (
    LagoIntegrationError,
    check_org_has_active_subscription,
    enforce_usage_limits,
    get_org_plan_limits,
    record_api_call,
    record_usage,
)
from connectors.middleware.aio import flushing, org_billing_middleware, return_request_id
from connectors.middleware.asgi import OrgBillingMiddleware
from connectors.middleware.calls import record_with
from connectors.middleware.recorder import Counts, Recorder
from connectors.middleware.service import org_billing_service
from connectors.middleware.who import CurrentOrg, get_current_org

__all__ = [
    "Counts",
    "CurrentOrg",
    "FixedLimits",
    "LagoIntegrationError",
    "LimitUse",
    "OrgBillingMiddleware",
    "Recorder",
    "UsageLimitReached",
    "check_org_has_active_subscription",
    "enforce_usage_limits",
    "flushing",
    "get_current_org",
    "get_org_plan_limits",
    "org_billing_middleware",
    "org_billing_service",
    "record_api_call",
    "record_usage",
    "record_with",
    "return_request_id",
]
