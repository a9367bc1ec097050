"""Functions that work on the running `org_billing_service`, under the names of the org billing specification.

Each raises `BillingRejected` with the reason `no_running_service` outside of it.
"""

from collections.abc import Mapping

from meterbridge_sdk.events import Timestamp, UsageEvent, Value
from meterbridge_sdk.limits import LimitUse
from meterbridge_sdk.responses import CurrentUsage, OrgSubscription
from meterbridge_sdk.service import running_service


async def record_usage(
    org_id: str,
    event_code: str,
    transaction_id: str,
    properties: Mapping[str, Value] | None = None,
    timestamp: Timestamp | None = None,
) -> UsageEvent:
    """Record a usage event; it is durable in Kafka on return. See `MeterbridgeClient.record_usage`."""
    return await running_service().client.record_usage(org_id, event_code, transaction_id, properties, timestamp)


async def record_api_call(
    org_id: str,
    transaction_id: str,
    endpoint: str,
    user_id: str | None = None,
    tokens: int = 0,
    model: str | None = None,
) -> UsageEvent:
    """Record one API call, on the metric `api_call`. See `MeterbridgeClient.record_api_call`."""
    return await running_service().client.record_api_call(org_id, transaction_id, endpoint, user_id, tokens, model)


async def get_subscription(org_id: str) -> OrgSubscription | None:
    """Return the org's subscription; None = it has none. See `MeterbridgeClient.get_subscription`."""
    return await running_service().client.get_subscription(org_id)


async def get_current_usage(org_id: str) -> CurrentUsage | None:
    """Return the usage that Lago counts in the running billing period. See `MeterbridgeClient.get_current_usage`."""
    return await running_service().client.get_current_usage(org_id)


async def check_org_has_active_subscription(org_id: str) -> bool:
    """Return whether the org may be served, by an answer that is at most 10 s old here. See `OrgLimits.is_active`."""
    return await running_service().limits.is_active(org_id)


async def get_org_plan_limits(org_id: str) -> dict[str, int]:
    """Return the maximum that the org may use in a billing period, by the limit's name. See `OrgLimits.of`."""
    return await running_service().limits.of(org_id)


async def enforce_usage_limits(org_id: str) -> tuple[LimitUse, ...]:
    """Return each limit of the org with its use. Raises: UsageLimitReached. See `OrgLimits.check`."""
    return await running_service().limits.check(org_id)


async def create_subscription(
    org_id: str, plan_code: str, billing_time: str = "anniversary", subscription_at: str | None = None
) -> OrgSubscription:
    """Subscribe the org, or change its plan. See `MeterbridgeClient.subscribe_org_to_plan`."""
    service = running_service()
    try:
        return await service.client.subscribe_org_to_plan(
            org_id, plan_code, billing_time=billing_time, subscription_at=subscription_at
        )
    finally:
        service.limits.changed(org_id)


async def subscribe_org_to_plan(
    org_id: str, plan_code: str, org_name: str, email: str, user_id: str | None = None
) -> OrgSubscription:
    """Make the org's customer and subscription if they are missing. See `MeterbridgeClient.subscribe_org_to_plan`."""
    service = running_service()
    try:
        return await service.client.subscribe_org_to_plan(org_id, plan_code, org_name, email, user_id)
    finally:
        service.limits.changed(org_id)
