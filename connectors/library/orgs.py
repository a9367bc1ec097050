"""The billing of orgs as functions, for services that bill their own organisations.

They need `LAGO_API_URL` and `LAGO_API_KEY`, or an `OrgBilling` that the process sets with `serve_with`. Code that has an
`OrgBilling` calls its methods instead. Every failure is logged and raised as a `LagoIntegrationError`;
`check_lago_health` raises none.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

import structlog

from connectors.billing.metered_events import MeteredEvent, Moment, Value
from connectors.billing.org_billing import LagoHealth, OrgBilling
from connectors.billing.org_takeover import Migrated, migrate
from connectors.billing.usage_limits import LimitReached, LimitStore, UsageLimits, UsedLimit
from connectors.lago.errors import LagoIntegrationError, LagoRejected, LagoUnavailable
from connectors.lago.responses import Customer, CustomerUsage, Invoice, Subscription
from connectors.library import standalone
from schemas.errors import ConfigurationError, MeterbridgeError, Rejected, Unavailable

__all__ = [
    "LagoIntegrationError",
    "LimitReached",
    "check_lago_health",
    "check_org_has_active_subscription",
    "create_org_customer",
    "create_subscription",
    "enforce_usage_limits",
    "get_current_usage",
    "get_customer",
    "get_invoices",
    "get_or_create_customer",
    "get_org_plan_limits",
    "get_subscription",
    "is_org_customer",
    "migrate_user_to_org",
    "record_api_call",
    "record_usage",
    "serve_with",
    "subscribe_org_to_plan",
    "terminate_subscription",
    "update_org_customer",
]

#: The code of the metric that counts API calls.
API_CALL = "api_call"
#: Lago's other billing time is `calendar`.
ANNIVERSARY = "anniversary"

_serving: list[OrgBilling] = []
_limiting: list[UsageLimits] = []
_log = structlog.get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def _function(of: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Log the failures of a function, and raise each as a `LagoIntegrationError`. A reached limit is a result, not a failure."""

    @wraps(of)
    async def function(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await of(*args, **kwargs)
        except LimitReached:
            raise
        except (Rejected, Unavailable, ConfigurationError) as error:
            _log.error("org_billing_failed", function=of.__name__, reason=error.reason, detail=error.detail)
            raise _as_lagos(error) from error

    return function


def _as_lagos(error: MeterbridgeError) -> LagoIntegrationError:
    if isinstance(error, LagoIntegrationError):
        return error
    kind = LagoUnavailable if isinstance(error, Unavailable) else LagoRejected
    return kind(error.reason, error.detail)


def serve_with(billing: OrgBilling | None, limits: LimitStore | None = None, *, tokens_code: str = "ai_usage") -> None:
    """Set the `OrgBilling` that the functions of this module use; None = the Lago of the environment.

    Args:
        limits: stores the limits of plans and orgs; without it the functions about limits raise `no_limits`.
        tokens_code: code of the metric that counts tokens (`LAGO_EVENT_CODE`).
    """
    _serving[:] = [] if billing is None else [billing]
    _limiting.clear()
    if billing is not None and limits is not None:
        _limiting.append(UsageLimits(billing, limits, tokens_code=tokens_code, requests_code=API_CALL))


@_function
async def create_org_customer(
    org_id: str, org_name: str, email: str, user_id: str | None = None, metadata: Mapping[str, str] | None = None
) -> Customer:
    """Create the customer of an org, with the org's id as `external_id`; an existing one is returned without a change.

    Its metadata gets `created_by_user_id`, `created_at` and `billing_type` = `organization`; `metadata` may add two entries.
    """
    customer, is_new = await _billing().ensured_customer(org_id, org_name, email, user_id, metadata)
    if not is_new:
        _log.warning("org_customer_exists", org=org_id)
    return customer


@_function
async def get_customer(org_id: str) -> Customer | None:
    """The customer of an org; None if it does not exist."""
    return await _billing().lago.customer(org_id)


@_function
async def update_org_customer(
    org_id: str, org_name: str | None = None, email: str | None = None, metadata: Mapping[str, str] | None = None
) -> Customer:
    """Change the given fields of a customer; metadata is added, and entries with the same key are replaced."""
    return await _billing().update_customer(org_id, org_name, email, metadata)


@_function
async def get_or_create_customer(
    org_id: str, org_name: str, email: str, user_id: str | None = None, metadata: Mapping[str, str] | None = None
) -> Customer:
    """Like `create_org_customer`, for callers that expect an existing customer: it is not logged."""
    return await _billing().create_customer(org_id, org_name, email, user_id, metadata)


@_function
async def create_subscription(
    org_id: str, plan_code: str, billing_time: str = ANNIVERSARY, subscription_at: str | None = None
) -> Subscription:
    """Subscribe an org, or change its plan. Repeating it never makes a second subscription.

    A plan that costs the same or more applies at once, a cheaper one at the end of the period (`next_plan_code`).

    Args:
        subscription_at: when it begins, ISO 8601; default now.
    """
    return await _billing().subscribe(org_id, plan_code, billing_time, subscription_at)


@_function
async def subscribe_org_to_plan(
    org_id: str, plan_code: str, org_name: str, email: str, user_id: str | None = None
) -> Subscription:
    """Create the customer and the subscription of an org; existing ones are kept.

    If the plan is unknown or the subscription is refused, no new customer is created.
    """
    return await _billing().sign_up(org_id, plan_code, org_name, email, user_id, ANNIVERSARY)


@_function
async def get_subscription(org_id: str) -> Subscription | None:
    """The active subscription of an org, at most some seconds old; None if there is none."""
    return await _billing().subscription(org_id)


@_function
async def terminate_subscription(org_id: str, subscription_id: str | None = None) -> Subscription | None:
    """End a subscription of an org, by default its running one; None if it has ended already."""
    return await _billing().terminate(org_id, subscription_id)


@_function
async def record_usage(
    org_id: str,
    event_code: str,
    transaction_id: str,
    properties: Mapping[str, Value] | None = None,
    timestamp: Moment | None = None,
) -> MeteredEvent:
    """Store an event of an org. Two calls with the same `transaction_id` record one event.

    `properties` gets `org_id`, and may have `user_id` and what the metric reads. `timestamp` is now by default.
    """
    return await _billing().record(org_id, event_code, transaction_id, properties, timestamp)


@_function
async def record_api_call(
    org_id: str,
    transaction_id: str,
    endpoint: str,
    user_id: str | None = None,
    tokens: int = 0,
    model: str | None = None,
) -> MeteredEvent:
    """Record one API call, on the metric `api_call`; see `record_usage`."""
    properties = call_properties(endpoint, user_id, tokens, model)
    return await _billing().record(org_id, API_CALL, transaction_id, properties, None)


def call_properties(endpoint: str, user_id: str | None, tokens: int, model: str | None) -> dict[str, Value]:
    """Return the properties of an event on `api_call`."""
    return {"endpoint": endpoint, "user_id": user_id, "tokens": tokens, "model": model}


@_function
async def get_invoices(org_id: str, limit: int = 10) -> list[Invoice]:
    """The latest invoices of an org, the latest first."""
    return await _billing().invoices(org_id, limit)


@_function
async def get_current_usage(org_id: str) -> CustomerUsage | None:
    """Return the usage that Lago counts in the running period; None without an active subscription."""
    return await _billing().usage(org_id)


@_function
async def check_org_has_active_subscription(org_id: str) -> bool:
    """Whether the org has an active subscription; the answer is at most some seconds old."""
    return await _billing().subscription(org_id) is not None


@_function
async def get_org_plan_limits(org_id: str) -> dict[str, int]:
    """Return the limits of the org's usage in a billing period, by name; see `UsageLimits.of`."""
    return await _limits().of(org_id)


@_function
async def enforce_usage_limits(org_id: str) -> tuple[UsedLimit, ...]:
    """Each limit of the org with its usage. Raises: LimitReached; see `UsageLimits.check`."""
    return await _limits().check(org_id)


@_function
async def migrate_user_to_org(user_id: str, org_id: str, org_name: str, email: str) -> Migrated:
    """Move a user's customer to an org; the metadata keeps the old id. See `migrate`."""
    return await migrate(_billing(), user_id, org_id, org_name, email)


def is_org_customer(external_id: str) -> bool:
    """Return whether a customer's id is the id of an org, by `ORG_ID_PREFIXES`; this does not ask Lago."""
    try:
        return _serving[0].is_org(external_id) if _serving else standalone.is_org(external_id)
    except ConfigurationError as error:
        raise _as_lagos(error) from error


async def check_lago_health() -> LagoHealth:
    """Return whether Lago answers, its URL, and its version; never raises."""
    try:
        return await (_serving[0] if _serving else standalone.StandaloneBilling.of().billing).health()
    except ConfigurationError as error:
        _log.error("org_billing_failed", function="check_lago_health", reason=error.reason, detail=error.detail)
        return LagoHealth("unhealthy", "")


def _billing() -> OrgBilling:
    return _serving[0] if _serving else standalone.StandaloneBilling.of().needs_key().billing


def _limits() -> UsageLimits:
    if not _serving:
        return standalone.StandaloneBilling.of().needs_key().limits
    if not _limiting:
        raise LagoRejected("no_limits", "connectors.library.orgs has no limits: pass them to serve_with")
    return _limiting[0]
