"""From users to organisations: an org takes over the customer and the plan of a user.

Not yet the user's usage: that follows its mapping. Repeated after any failure it is the same once.
"""

from collections.abc import Sequence

import msgspec
import structlog

from connectors.billing.org_billing import OTHER_PLAN, RUNNING, OrgBilling
from connectors.lago.errors import LagoRejected
from connectors.lago.response_types import Customer, Subscription

#: Of the org's metadata: the users it took over from, separated by commas.
FORMER = "migrated_from_user"

_log = structlog.get_logger(__name__)


class Migrated(msgspec.Struct, frozen=True):
    """What became of a user's customer.

    Fields:
        org: the org that took over.
        subscription: the org's, None where neither had one.
        to_end: the user's own, still running: to be ended once no usage is mapped to them.
    """

    org: Customer
    subscription: Subscription | None
    to_end: tuple[Subscription, ...]


async def migrate(billing: OrgBilling, user_id: str, org_id: str, name: str, email: str) -> Migrated:
    """Create the org with the user's id in its metadata, and subscribe it to the user's plan.

    The user's subscriptions go on: ended before its usage is mapped to the org they would leave usage behind. An org
    that has a subscription keeps it, so several users may become one org.

    Raises:
        LagoRejected: `unknown_customer`.
        LagoIntegrationError
    """
    if await billing.lago.customer(user_id) is None:
        raise LagoRejected("unknown_customer", "Lago has no such user")
    org = await billing.create_customer(org_id, name, email, user_id, {FORMER: user_id})
    org = await _noted(billing, org, user_id)
    to_end = tuple(await billing.lago.subscriptions(user_id))
    return Migrated(org, await _subscribed(billing, org_id, to_end), to_end)


def has_noted(org: Customer, user_id: str) -> bool:
    """Whether the org's metadata has the user's id."""
    return f",{user_id}," in f",{org.note(FORMER) or ''},"


def noting(org: Customer, user_id: str) -> str:
    """The metadata's value once the user's id stands in it."""
    return f"{org.note(FORMER) or ''},{user_id}".removeprefix(",")


async def _subscribed(billing: OrgBilling, org_id: str, user_s: Sequence[Subscription]) -> Subscription | None:
    """The org's subscription, made after the user's first where it has none; None where neither has one."""
    own = next(iter(await billing.lago.subscriptions(org_id, RUNNING)), None)
    if own is not None or not user_s:
        return own
    plan, billing_time = user_s[0].plan_code or "", user_s[0].billing_time or "anniversary"
    try:
        return await billing.subscribe(org_id, plan, billing_time, None, only_new=True)
    except LagoRejected as error:
        if error.reason != OTHER_PLAN:
            raise
    return next(iter(await billing.lago.subscriptions(org_id, RUNNING)), None)  # somebody else was first


async def _noted(billing: OrgBilling, org: Customer, user_id: str) -> Customer:
    """The org with the user's id beside those it has; where Lago's metadata is full, a line of the log must do."""
    if has_noted(org, user_id):
        return org
    try:
        return await billing.update_customer(org.external_id, None, None, {FORMER: noting(org, user_id)})
    except LagoRejected as error:
        if error.reason != "bad_metadata":
            raise
        _log.warning("former_user_not_noted", org=org.external_id, user=user_id)
        return org
