"""Keeps the orgs' records equal to Lago: one org after a webhook, and all orgs by a poll every quarter of an hour.

Lago sends a webhook at most three times within half a minute. The poll finds the changes of lost webhooks.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from connectors.billing.in_slices import in_slices
from connectors.billing.org_records import ROUNDS, OrgRecords, changed_from
from connectors.billing.plan_terms import PlanTermsCache, period_with, timezone_of
from connectors.billing.subscription_discovery import MOST_FAILURES, beginning_after
from connectors.billing.subscription_history import org_with, to_the_moment
from connectors.lago.client import LagoClient
from connectors.lago.responses import Customer
from schemas.customers import CustomerRecord, OrgRecord, Period
from schemas.errors import MeterbridgeError, Unavailable
from schemas.moments import HOUR_US

POLL_EVERY_S: Final = 900.0
#: Time limit to refresh one org, seconds (Lago waits 30 s for the response to a webhook), and the number of concurrent
#: refreshes.
_ASK_S, _AT_ONCE = 20.0, 4
#: Number of orgs that one poll refreshes, and the pause after each, seconds. The next poll continues.
POLLED, _PAUSE_S = 500, 0.1
_FIRST_S: Final = 60.0
#: A subscription that ended longer ago is ignored, because no usage for it can arrive any more.
_ENDED_US: Final = 40 * 24 * HOUR_US
#: Statuses of subscriptions that have begun.
BEGUN: Final = ("active", "terminated")

_log = structlog.get_logger(__name__)
copy = msgspec.structs.replace


class OrgSynchroniser:
    """Refreshes orgs that have a record, that a mapping names, or whose id begins with a prefix of orgs.

    Args:
        customers, orgs: views of the two topics.
        now_us: microseconds since 1970 UTC.
        is_org: whether an id begins with a prefix of orgs.
        is_mine: whether an org is in the organisation of this Lago. Other orgs are not changed.
    """

    def __init__(
        self,
        customers: Mapping[str, CustomerRecord],
        orgs: Mapping[str, OrgRecord],
        records: OrgRecords,
        lago: LagoClient,
        *,
        now_us: Callable[[], int],
        is_org: Callable[[str], bool] = lambda _org_id: False,
        is_mine: Callable[[str], bool] = lambda _org_id: True,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._customers = customers
        self._orgs = orgs
        self._records = records
        self._lago = lago
        self._now_us = now_us
        self._is_org = is_org
        self._is_mine = is_mine
        self._sleep = sleep
        self._terms = PlanTermsCache(lago)
        self._asking = asyncio.Semaphore(_AT_ONCE)
        self._given_up_at = ""

    async def refresh(self, org_id: str) -> bool:
        """Make an org's record equal to Lago, durable on return. False = Meterbridge does not know the org.

        Raises:
            Unavailable: Lago or Kafka does not answer; repeating is safe.
        """
        # Usage may be recorded for an org without a mapping. Then only the prefix of the id shows that it is an org.
        if not self._is_mine(org_id) or not (self._is_org(org_id) or await self._is_ours(org_id)):
            return False
        try:
            async with asyncio.timeout(_ASK_S) as limit:
                await self._refreshed(org_id)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unavailable("timeout", "Lago did not say in time what is true of the org") from None
        return await self._is_ours(org_id)

    async def _refreshed(self, org_id: str) -> None:
        """Refresh one org. Raises: Unavailable `write_conflict`: other processes changed the record during each request
        to Lago.
        """
        for _ in range(ROUNDS):
            before = self._orgs.get(org_id)
            async with self._asking:
                listed = await self._lago.subscriptions(org_id, BEGUN)
                customer = await self._lago.customer(org_id)
                periods = await self._terms.periods(listed, customer)
            make = partial(as_lago_says, customer=customer, listed=periods, now_us=self._now_us())
            if await changed_from(self._records, org_id, before, make):
                return
        raise Unavailable(
            "write_conflict", "other processes change the org's record all the time; repeat the request, it is safe"
        )

    async def poll_every(self, seconds: float) -> None:
        """Poll until the task is cancelled. The first poll is one minute after the start, because webhooks may have
        been missed.
        """
        wait_s = min(seconds, _FIRST_S)
        while True:
            await self._sleep(wait_s)
            wait_s = seconds
            try:
                if changed := await self.poll():
                    _log.info("orgs_polled", changed=changed)
            except MeterbridgeError as error:
                _log.warning("orgs_not_polled", reason=error.reason, detail=error.detail)

    async def poll(self) -> int:
        """Refresh at most `POLLED` orgs whose active subscriptions, terms, time zone or currency differ from Lago's.

        The customers are listed, too: no webhook reports another time zone of the billing entity.

        An org that cannot be refreshed is skipped until the next poll.

        Returns:
            The number of refreshed orgs.

        Raises:
            MeterbridgeError: Lago does not list its subscriptions or customers, or `MOST_FAILURES` orgs in a row could not be refreshed.
        """
        running: dict[str, list[Period]] = defaultdict(list)
        terms = self._terms.learn(await self._lago.plans())
        customers = {customer.external_id: customer for customer in await self._lago.customers()}
        for subscription in await self._lago.subscriptions():
            if subscription.external_customer_id and subscription.started_at is not None:
                timezone = timezone_of(customers.get(subscription.external_customer_id))
                running[subscription.external_customer_id].append(
                    period_with(subscription, terms.get(subscription.plan_code or ""), timezone)
                )
        changed = failures = 0
        now_us = self._now_us()
        turns, self._given_up_at = beginning_after(self._given_up_at, filter(self._is_mine, self._orgs)), ""
        for org_id in turns:
            org = self._orgs.get(org_id)
            if org is not None and (
                _differ(_running(org.periods, now_us), _running(running.get(org_id, ()), now_us))
                or _has_another_currency(org, customers.get(org_id))
            ):
                try:
                    await self.refresh(org_id)
                    changed, failures = changed + 1, 0
                except MeterbridgeError as error:
                    _log.warning("org_not_polled", org=org_id, reason=error.reason, detail=error.detail)
                    failures += 1
                    if failures == MOST_FAILURES:
                        self._given_up_at = org_id
                        raise
                if changed == POLLED:
                    break
                await self._sleep(_PAUSE_S)
        return changed

    async def _is_ours(self, org_id: str) -> bool:
        if org_id in self._orgs:
            return True
        async for records in in_slices(self._customers.values()):
            if any(version.lago_customer_id == org_id for record in records for version in record.versions):
                return True
        return False


def as_lago_says(org: OrgRecord, customer: Customer | None, listed: Sequence[Period], now_us: int) -> OrgRecord:
    """Return the org's record, updated with Lago's active and ended subscriptions; `org` itself if nothing has changed.

    A subscription that ended long ago and is not in the record is left out. If Lago has no subscription, all
    subscriptions that are active in the record have ended.

    Args:
        listed: Lago's active and ended subscriptions of the org, with their terms.
        now_us: microseconds since 1970 UTC.
    """
    known = {(period.external_id, period.started_at) for period in org.periods}
    lately = [
        period
        for period in to_the_moment(listed)
        if period.terminated_at is None
        or period.terminated_at > now_us - _ENDED_US
        or (period.external_id, period.started_at) in known
    ]
    running = [period for period in lately if period.terminated_at is None]
    plan = max(running, key=lambda period: period.started_at).plan_code if running else org.plan
    with_plan = copy(org, plan=plan or org.plan)
    changed = org_with(with_plan, customer, lately, now_us) if lately else _without(with_plan, customer, now_us)
    email = (customer.email if customer is not None else None) or org.email
    return org if copy(changed, updated_at=org.updated_at, email=email) == org else copy(changed, email=email)


def _without(org: OrgRecord, customer: Customer | None, now_us: int) -> OrgRecord:
    """Return the org's record for the case that Lago has no subscription of the org."""
    periods = tuple(
        copy(period, terminated_at=now_us) if period.terminated_at is None and period.started_at <= now_us else period
        for period in org.periods
    )
    name = (customer.name if customer is not None else None) or org.name
    currency = (customer.currency if customer is not None else None) or org.currency
    return copy(org, name=name, currency=currency, periods=periods)


def _running(periods: Iterable[Period], now_us: int) -> dict[tuple[str, int, str], Period]:
    return {
        (period.external_id, period.started_at, period.plan_code): period
        for period in periods
        if period.started_at <= now_us and (period.terminated_at is None or period.terminated_at > now_us)
    }


def _differ(known: Mapping[tuple[str, int, str], Period], actual: Mapping[tuple[str, int, str], Period]) -> bool:
    """Return whether the subscriptions or their terms differ."""
    if known.keys() != actual.keys():
        return True
    return any(_terms(one) != _terms(known[key]) for key, one in actual.items() if one.charged is not None)


def _terms(period: Period) -> tuple[object, ...]:
    return period.interval, period.anchor, period.timezone, period.charged, period.currency


def _has_another_currency(org: OrgRecord, customer: Customer | None) -> bool:
    return customer is not None and bool(customer.currency) and customer.currency != org.currency
