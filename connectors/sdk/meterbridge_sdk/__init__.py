"""The SDK of Meterbridge, for services that bill their API calls to their organisations. See docs/sdk.md.

The middleware is in `meterbridge_sdk.aiohttp` and `meterbridge_sdk.asgi`.
"""

from meterbridge_sdk.client import MeterbridgeClient
from meterbridge_sdk.errors import (
    BillingError,
    BillingRejected,
    BillingUnauthorized,
    BillingUnavailable,
    UsageLimitReached,
)
from meterbridge_sdk.events import UsageEvent
from meterbridge_sdk.functions import (
    check_org_has_active_subscription,
    create_subscription,
    enforce_usage_limits,
    get_current_usage,
    get_org_plan_limits,
    get_subscription,
    record_api_call,
    record_usage,
    subscribe_org_to_plan,
)
from meterbridge_sdk.identity import CurrentOrg, get_current_org
from meterbridge_sdk.limits import FixedLimits, LimitUse, OrgLimits
from meterbridge_sdk.recorder import RecorderCounts, UsageRecorder
from meterbridge_sdk.responses import CurrentUsage, OrgSubscription
from meterbridge_sdk.service import OrgBillingService, org_billing_service

__all__ = [
    "BillingError",
    "BillingRejected",
    "BillingUnauthorized",
    "BillingUnavailable",
    "CurrentOrg",
    "CurrentUsage",
    "FixedLimits",
    "LimitUse",
    "MeterbridgeClient",
    "OrgBillingService",
    "OrgLimits",
    "OrgSubscription",
    "RecorderCounts",
    "UsageEvent",
    "UsageLimitReached",
    "UsageRecorder",
    "check_org_has_active_subscription",
    "create_subscription",
    "enforce_usage_limits",
    "get_current_org",
    "get_current_usage",
    "get_org_plan_limits",
    "get_subscription",
    "org_billing_service",
    "record_api_call",
    "record_usage",
    "subscribe_org_to_plan",
]
