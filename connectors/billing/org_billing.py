"""Bills by organisation: an org is a customer in Lago with one subscription, whose id never changes.

Every step can be repeated after a failure, and takes effect once (docs/orgs.md).
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import structlog
from msgspec import UNSET

from connectors.billing.lago_directory import LagoDirectory
from connectors.billing.metered_events import MeteredEvent, Moment, UsageSink, Value, metered
from connectors.billing.subscription_id_store import SubscriptionIds
from connectors.lago.client import LagoClient
from connectors.lago.customers import check_new_id, customer_part
from connectors.lago.errors import LagoIntegrationError, LagoRejected, LagoUnavailable, plan_not_found
from connectors.lago.requests import NewCustomer, NewSubscription
from connectors.lago.responses import Customer, CustomerUsage, Invoice, Plan, Subscription
from connectors.lago.subscriptions import STATUSES
from schemas.errors import Rejected, Unavailable
from schemas.moments import SECOND_US, to_datetime
from streams.core.mapping.subscription_ids import BY_MOMENT, check_template, subscription_id

PREFIXES = ("org_",)
#: Statuses of subscriptions that bill usage now or later.
RUNNING = ("active", "pending")
#: Reason of a refusal: the org is already subscribed to another plan.
OTHER_PLAN = "other_plan"
#: Keys of a customer's metadata; Lago allows 20 characters.
MADE_BY, MADE_AT, KIND = "created_by_user_id", "created_at", "billing_type"
ORGANIZATION = "organization"

_log = structlog.get_logger(__name__)


class LagoHealth(msgspec.Struct, frozen=True):
    """The health of Lago; `status`: `healthy` or `unhealthy`; `version`: `""` = not known."""

    status: str
    api_url: str
    version: str = ""


class OrgBilling:
    """Creates, subscribes and reads the orgs of one Lago.

    Args:
        ids: stores the orgs' subscription ids.
        usage: stores recorded usage.
        now_us: microseconds since 1970 UTC.
        prefixes: beginnings of the ids of orgs.
        template: template of new subscription ids, see `check_template`.
        clock: monotonic, seconds; for the cache of Lago's responses.
        stamp: returns the time for a new subscription's id, microseconds since 1970 UTC; None = now.

    Raises:
        Rejected: `bad_template`.
    """

    def __init__(
        self,
        lago: LagoClient,
        ids: SubscriptionIds,
        usage: UsageSink,
        *,
        now_us: Callable[[], int],
        prefixes: Sequence[str] = PREFIXES,
        template: str = BY_MOMENT,
        clock: Callable[[], float] = time.monotonic,
        stamp: Callable[[str], Awaitable[int]] | None = None,
    ) -> None:
        check_template(template)
        self.lago = lago
        self.directory = LagoDirectory(lago, clock)
        self._ids = ids
        self._usage = usage
        self._now_us = now_us
        self._prefixes = tuple(prefixes)
        self._template = template
        self._stamp = stamp

    async def create_customer(
        self, org_id: str, name: str, email: str, user_id: str | None, metadata: Mapping[str, str] | None
    ) -> Customer:
        """Return the org's customer: the existing one, unchanged, or a new one."""
        return (await self.ensured_customer(org_id, name, email, user_id, metadata))[0]

    async def ensured_customer(
        self, org_id: str, name: str, email: str, user_id: str | None, metadata: Mapping[str, str] | None
    ) -> tuple[Customer, bool]:
        """Like `create_customer`; also return whether the customer is new."""
        customer_part(org_id)
        known = await self.lago.customer(org_id)
        if known is not None:
            return known, False
        check_new_id(org_id)
        made_at = to_datetime(self._now_us()).isoformat(timespec="seconds").replace("+00:00", "Z")
        noted = {**(metadata or {}), **({MADE_BY: user_id} if user_id else {}), MADE_AT: made_at, KIND: ORGANIZATION}
        new_customer = NewCustomer(external_id=org_id, name=name or UNSET, email=email or UNSET)
        made = await self.lago.save_customer(new_customer, noted)
        _log.info("org_customer_created", org=org_id)
        return made, True

    async def take_back(self, org_id: str) -> None:
        """Delete the customer that this request has made, because its subscription was refused. A customer with a
        subscription stays.
        """
        try:
            if not await self.lago.subscriptions(org_id, STATUSES):
                await self.lago.delete_customer(org_id)
        except LagoIntegrationError as error:
            _log.error(
                "org_customer_left", org=org_id, reason=error.reason
            )  # an expected error, so the reason is enough

    async def update_customer(
        self, org_id: str, name: str | None, email: str | None, metadata: Mapping[str, str] | None
    ) -> Customer:
        """Change the members that are not None; metadata is merged. Raises: LagoRejected `unknown_customer`."""
        if await self.lago.customer(org_id) is None:
            raise LagoRejected("unknown_customer", "Lago has no such org")
        new_customer = NewCustomer(
            external_id=org_id, name=UNSET if name is None else name, email=UNSET if email is None else email
        )
        saved = await self.lago.save_customer(new_customer, metadata)
        _log.info("org_customer_changed", org=org_id)
        return saved

    async def sign_up(
        self, org_id: str, plan_code: str, name: str, email: str, user_id: str | None, billing_time: str
    ) -> Subscription:
        """Make the customer and the subscription, or keep the existing ones. Raises: as `subscribe`.

        If the plan is unknown or the subscription is refused, no new customer remains."""
        await self.plan(plan_code)
        _, is_new = await self.ensured_customer(org_id, name, email, user_id, None)
        try:
            return await self.subscribe(org_id, plan_code, billing_time, None)
        except LagoRejected:
            if is_new:
                await self.take_back(org_id)
            raise

    async def plan(self, plan_code: str) -> Plan:
        """Return the plan, cached for minutes. Raises: LagoRejected: code `plan_not_found`."""
        known_plan = await self.directory.plan(plan_code)
        if known_plan is None:
            raise plan_not_found(plan_code)
        return known_plan

    async def subscribe(
        self, org_id: str, plan_code: str, billing_time: str, subscription_at: str | None, *, only_new: bool = False
    ) -> Subscription:
        """Subscribe the org, or change its plan; see `LagoClient.create_subscription`.

        Args:
            only_new: never change the plan of an existing subscription.

        Raises:
            LagoRejected: code `plan_not_found`; `several_subscriptions`; with `only_new` also `other_plan`.
        """
        await self.plan(plan_code)
        new_subscription = NewSubscription(
            external_customer_id=org_id,
            external_id=await self._id_of(org_id, plan_code, only_new=only_new),
            plan_code=plan_code,
            billing_time=billing_time,
            subscription_at=UNSET if subscription_at is None else subscription_at,
        )
        try:
            made = await self.lago.create_subscription(new_subscription)
        finally:
            self.directory.changed(org_id)
        _log.info("org_subscribed", org=org_id, plan=plan_code, subscription=made.external_id)
        return made

    async def subscription(self, org_id: str) -> Subscription | None:
        """Return the org's active subscription, cached for seconds; None = there is none. If there are several, the one
        with the org's stored id is returned.
        """
        running = await self.directory.subscriptions(org_id)
        own = await self._ids.recall(org_id) if len(running) > 1 else None
        return next(
            (subscription for subscription in running if subscription.external_id == own),
            running[0] if running else None,
        )

    async def terminate(self, org_id: str, external_id: str | None) -> Subscription | None:
        """End a subscription, or cancel it if it has not begun. Return None if it has ended before.

        Args:
            external_id: None = the org's own subscription.

        Raises:
            LagoRejected: `other_org`: the subscription belongs to another org.
        """
        subscription = await self._to_end(org_id, external_id)
        if subscription is None:
            return None
        if subscription.external_customer_id != org_id:
            raise LagoRejected("other_org", "the subscription is another org's")
        try:
            ended = await self.lago.terminate_subscription(
                subscription.external_id, pending=subscription.status == "pending"
            )
        finally:
            self.directory.changed(org_id)
        _log.info("org_subscription_ended", org=org_id, subscription=subscription.external_id)
        return ended

    async def record(
        self,
        org_id: str,
        code: str,
        transaction_id: str,
        properties: Mapping[str, Value] | None,
        timestamp: Moment | None,
        accept: Callable[[MeteredEvent], Awaitable[MeteredEvent]] | None = None,
    ) -> MeteredEvent:
        """Record usage, see `metered`.

        Args:
            accept: may change the event, or refuse it by an exception, before it is stored.

        Raises:
            LagoIntegrationError: the usage is refused, or could not be stored.
        """
        try:
            event = metered(org_id, code, transaction_id, properties, timestamp, self._now_us())
            if accept is not None:
                event = await accept(event)
            await self._usage.record(event)
        except Rejected as error:
            raise LagoRejected(error.reason, error.detail) from error
        except Unavailable as error:
            raise LagoUnavailable(error.reason, error.detail) from error
        _log.debug("usage_recorded", org=org_id, code=code)
        return event

    async def invoices(self, org_id: str, limit: int) -> list[Invoice]:
        """Return the org's latest invoices, at most `limit`, the newest first, without fees."""
        return await self.lago.invoices(org_id, most=max(1, limit))

    async def usage(self, org_id: str) -> CustomerUsage | None:
        """Return the usage in the org's current billing period; None = it has no active subscription."""
        running = await self.subscription(org_id)
        return None if running is None else await self.lago.usage(org_id, running.external_id)

    def is_org(self, external_id: str) -> bool:
        """Return whether the id begins with one of the orgs' prefixes."""
        return external_id.startswith(self._prefixes)

    async def health(self) -> LagoHealth:
        """Check whether Lago answers. It never raises."""
        healthy, version = await self.lago.healthy(), ""
        with suppress(LagoIntegrationError):
            version = await self.lago.version()
        return LagoHealth("healthy" if healthy else "unhealthy", self.lago.root, version)

    async def _to_end(self, org_id: str, external_id: str | None) -> Subscription | None:
        """Find the active or pending subscription with this id, or of the org if the id is None; None = there is none."""
        external_id = external_id or await self._ids.recall(org_id)
        if external_id is None:
            return next(iter(await self.lago.subscriptions(org_id, RUNNING)), None)
        active = await self.lago.subscription(external_id)
        return active if active is not None else await self.lago.subscription(external_id, "pending")

    async def _id_of(self, org_id: str, plan_code: str, *, only_new: bool) -> str:
        """Return the org's subscription id, which is stored before its first use. If Lago already has a subscription,
        its id is used.
        """
        listed = await self.lago.subscriptions(org_id, RUNNING)
        others = (
            [subscription.plan_code for subscription in listed if subscription.plan_code != plan_code]
            if only_new
            else []
        )
        if others:
            raise LagoRejected(OTHER_PLAN, f"the org is on the plan {others[0]}: `PUT .../subscription` changes it")
        running = {subscription.external_id for subscription in listed}
        known = await self._ids.recall(org_id)
        if len(running - {known}) > (known is None):
            raise LagoRejected("several_subscriptions", "which of the org's subscriptions is meant is not known")
        if known is not None:
            return known
        stamp_us = self._now_us() if self._stamp is None else await self._stamp(org_id)
        made = subscription_id(self._template, org_id, plan_code, stamp_us // SECOND_US)
        return await self._ids.remember(org_id, next(iter(running), made))
