"""Migrates a user's customer to an org: the org gets a customer and the user's plan.

The user's usage goes to the org as soon as its mapping is changed. The migration can be repeated after a failure.
"""

from collections.abc import Sequence

import msgspec
import structlog

from connectors.billing.org_billing import OTHER_PLAN, RUNNING, OrgBilling
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Customer, Subscription

#: Key of the org's metadata that holds the ids of the migrated users, separated by commas.
FORMER = "migrated_from_user"

_log = structlog.get_logger(__name__)


class Migrated(msgspec.Struct, frozen=True):
    """The result of a migration.

    Fields:
        org: the customer of the org.
        subscription: the subscription of the org; None = neither the org nor the user had one.
        to_end: the user's active subscriptions. End them as soon as no usage is mapped to them any more.
    """

    org: Customer
    subscription: Subscription | None
    to_end: tuple[Subscription, ...]


async def migrate(billing: OrgBilling, user_id: str, org_id: str, name: str, email: str) -> Migrated:
    """Create the org with the user's id in its metadata, and subscribe it to the user's plan.

    The user's subscriptions are not ended, because usage that is still mapped to the user would be lost. An org with a
    subscription keeps it, so several users may become one org.

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
    """Return whether the org's metadata has the user's id."""
    return f",{user_id}," in f",{org.note(FORMER) or ''},"


def noting(org: Customer, user_id: str) -> str:
    """Add the user's id to the value of the metadata."""
    return f"{org.note(FORMER) or ''},{user_id}".removeprefix(",")


async def _subscribed(billing: OrgBilling, org_id: str, user_s: Sequence[Subscription]) -> Subscription | None:
    """Return the org's subscription. A new one gets the plan of the user's first subscription. None = neither has one."""
    own = next(iter(await billing.lago.subscriptions(org_id, RUNNING)), None)
    if own is not None or not user_s:
        return own
    plan, billing_time = user_s[0].plan_code or "", user_s[0].billing_time or "anniversary"
    try:
        return await billing.subscribe(org_id, plan, billing_time, None, only_new=True)
    except LagoRejected as error:
        if error.reason != OTHER_PLAN:
            raise
    return next(
        iter(await billing.lago.subscriptions(org_id, RUNNING)), None
    )  # another request has subscribed the org to another plan


async def _noted(billing: OrgBilling, org: Customer, user_id: str) -> Customer:
    """Add the user's id to the org's metadata. If Lago's metadata is full, the id is only logged."""
    if has_noted(org, user_id):
        return org
    try:
        return await billing.update_customer(org.external_id, None, None, {FORMER: noting(org, user_id)})
    except LagoRejected as error:
        if error.reason != "bad_metadata":
            raise
        _log.warning("former_user_not_noted", org=org.external_id, user=user_id)
        return org
