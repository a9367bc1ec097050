"""Learns which subscriptions Lago has of the mapped orgs, and, where that is wished, subscribes those without one.

Usage of an org without a known subscription is held; what is learnt here releases it (docs/mapping.md).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from connectors.lago.errors import LagoRejected
from connectors.lago.shapes import Customer
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import MeterbridgeError, Unavailable
from streams.core.remap import shown

#: Somebody waits for the answer: Lago gets this long, the background asks again.
_LAGO_S = 5.0
#: Making a customer and a subscription is half a dozen requests.
_SUBSCRIBE_S = 30.0
#: Orgs mapped just now that are seen to at once.
_AT_ONCE = 4
#: Orgs remembered that usage was recorded for and nothing is known of: the latest; others wait for Lago's webhook.
_NAMED = 200
#: How often Lago is asked about an org whose record others change meanwhile.
ROUNDS = 3
#: So many orgs one after the other that Lago does not answer for: it is away, and the rest is tried next time, first.
MOST_FAILURES = 3

_log = structlog.get_logger(__name__)
copy = msgspec.structs.replace


def beginning_after(last: str, org_ids: Iterable[str]) -> list[str]:
    """In order, from the first after `last` on, round to `last`: nobody's turn depends on those before it for ever."""
    return sorted(org_ids, key=lambda org_id: (org_id <= last, org_id))


class Directory(Protocol):
    """Lago's customers and subscriptions; see `LagoClient`."""

    async def active_subscriptions(self, external_customer_id: str) -> list[Period]: ...
    async def customer(self, external_id: str) -> Customer | None: ...


class OrgChanges(Protocol):
    """What changes an org's record; see `OrgRecords`."""

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord: ...


async def changed_from(
    records: OrgChanges, org_id: str, before: OrgRecord | None, make: Callable[[OrgRecord], OrgRecord]
) -> bool:
    """Make the org's record what `make` says, if it is still `before`; False: it is another by now, and stays so.

    Lago is asked between the two. Whoever changed the record meanwhile may have had a later answer than ours, and an
    older one would let an ended subscription run again: Lago is to be asked once more.

    Raises:
        As `OrgRecords.change`.
    """
    fresh = True

    def made(org: OrgRecord) -> OrgRecord:
        nonlocal fresh
        fresh = org == (before or OrgRecord(org_id))
        return make(org) if fresh else org

    await records.change(org_id, made)
    return fresh


class Subscriber(Protocol):
    """What subscribes an org that never was; see `AutoSubscriber`."""

    async def subscribe(self, org: OrgRecord, plan: str) -> None: ...


class OrgLearner:
    """The orgs of the mapped customers.

    Args:
        customers, orgs: views of the two topics.
        now_us: microseconds since 1970 UTC.
    """

    def __init__(
        self,
        customers: Mapping[str, CustomerRecord],
        orgs: Mapping[str, OrgRecord],
        records: OrgChanges,
        lago: Directory,
        *,
        now_us: Callable[[], int],
    ) -> None:
        self._customers = customers
        self._orgs = orgs
        self._records = records
        self._lago = lago
        self._now_us = now_us
        self._subscriber: Subscriber | None = None
        self._soon: dict[str, str] = {}
        self._named: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._refused: dict[str, str] = {}
        self._told: set[str] = set()
        self._lago_away = False
        self._unanswered: set[str] = set()
        self._given_up_at = ""

    def subscribe_by(self, subscriber: Subscriber) -> None:
        """From now on orgs without a subscription get one; else they are left to whoever subscribes them."""
        self._subscriber = subscriber

    def knows(self, org_id: str, subscription: str = "") -> bool:
        """Whether a period of the org is known, of this subscription where one is named."""
        org = self._orgs.get(org_id)
        return org is not None and any(subscription in ("", period.external_id) for period in org.periods)

    async def is_nobody(self, org_id: str) -> bool:
        """Whether there is no record of the org, and Lago says that it has no such customer; False where it says nothing."""
        if org_id in self._orgs:
            return False
        try:
            async with asyncio.timeout(_LAGO_S):
                return await self._lago.customer(org_id) is None
        except (MeterbridgeError, TimeoutError) as error:
            self._unknown(org_id, error)
            return False

    def refused(self, org_id: str) -> str:
        """Why the org cannot be subscribed, as a stable code; `""` where nothing stands against it."""
        return self._refused.get(org_id, "")

    def mapped(self, version: MappingVersion) -> None:
        """Somebody was mapped: the org is seen to at once, if it is to be subscribed."""
        org_id = version.lago_customer_id
        if self._subscriber is not None and _wants_one(version) and not self.knows(org_id):
            self._soon.setdefault(org_id, version.billing_plan)
            self._woken.set()

    def named(self, org_id: str) -> None:
        """Usage was recorded for an org, mapped or not: it is seen to with the others, if no `_NAMED` come after it."""
        if self.knows(org_id):
            return
        self._named.pop(org_id, None)
        self._named[org_id] = None
        if len(self._named) > _NAMED:
            del self._named[next(iter(self._named))]

    async def learn_every(self, seconds: float) -> None:
        """For ever: see to all mapped orgs now and then, and to those mapped just now at once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._see_to_all_every(seconds))
            group.create_task(self._see_to_the_new())

    async def learn_orgs(self) -> None:
        """Ask Lago, one at a time, for orgs without a known subscription: what is held for them is then billed.

        Those are the mapped ones, those subscribed here, and those that usage was recorded for. One that Lago has no
        answer for is passed over; after `MOST_FAILURES` in a row the rest waits for the next time.
        """
        plans, told = self._plans(), self._told
        self._told = set()
        versions = (version for record in self._customers.values() for version in record.versions)
        meant = {version.lago_customer_id for version in versions} | self._named.keys()
        meant.update(org.org_id for org in self._orgs.values() if org.subscription_id)
        unknown = beginning_after(self._given_up_at, (org_id for org_id in meant if not self.knows(org_id)))
        self._refused = {org_id: why for org_id, why in self._refused.items() if org_id in unknown}
        self._unanswered &= set(unknown)
        self._given_up_at, failures = "", 0
        for org_id in unknown:
            failures = 0 if await self.learn(org_id) else failures + 1
            if failures == MOST_FAILURES:
                self._given_up_at = org_id
                break
            if not failures and org_id in plans and not self.knows(org_id):
                await self._subscribe(org_id, plans[org_id], told)
        if failures:  # what stands against the others was told already, and still does
            self._told |= told

    async def learn(self, org_id: str) -> bool:
        """Store the org's active subscriptions as Lago knows them; False when Lago does not answer.

        What others change in the record all the time is left as they have it, for the next time.
        """
        for _ in range(ROUNDS):
            before = self._orgs.get(org_id)
            try:
                async with asyncio.timeout(_LAGO_S):
                    active = await self._lago.active_subscriptions(org_id)
                    customer = await self._lago.customer(org_id) if active else None
            except (MeterbridgeError, TimeoutError) as error:
                return self._unknown(org_id, error)
            self._lago_away = False
            self._unanswered.discard(org_id)
            if not active or await self._stored(org_id, before, customer, active):
                break
        return True

    def _unknown(self, org_id: str, error: MeterbridgeError | TimeoutError) -> bool:
        """Tell once of an org, and of a Lago that is away, that there is no answer; False: Lago is away."""
        if not self._lago_away and org_id not in self._unanswered:
            _log.warning("subscriptions_unknown", org=org_id, error=str(error) or "timeout")
        self._unanswered.add(org_id)
        self._lago_away = isinstance(error, Unavailable | TimeoutError)
        return not self._lago_away

    async def _stored(
        self, org_id: str, before: OrgRecord | None, customer: Customer | None, active: Sequence[Period]
    ) -> bool:
        """False: the record is another than `before` by now."""

        def made(org: OrgRecord) -> OrgRecord:
            return org_with(org, customer, active, self._now_us())

        stored = await changed_from(self._records, org_id, before, made)
        if stored:
            self._refused.pop(org_id, None)
            self._named.pop(org_id, None)
        return stored

    async def _see_to_all_every(self, seconds: float) -> None:
        while True:
            try:
                await self.learn_orgs()
            except MeterbridgeError as error:
                _log.warning("orgs_not_learnt", reason=error.reason, detail=error.detail)
            await asyncio.sleep(seconds)

    async def _see_to_the_new(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._soon:
                some = [self._soon.popitem() for _ in range(min(_AT_ONCE, len(self._soon)))]
                await asyncio.gather(*(self._subscribe(org_id, plan, self._told) for org_id, plan in some))

    async def _subscribe(self, org_id: str, plan: str, told: set[str]) -> None:
        """Subscribe an org that has none; what stands against it is told once, and tried again next time.

        `told`: what was said already, lately or when all orgs were last seen to.
        """
        if self._subscriber is None:
            return
        try:
            async with asyncio.timeout(_SUBSCRIBE_S):
                await self._subscriber.subscribe(self._orgs.get(org_id) or OrgRecord(org_id), plan)
            await self.learn(org_id)
        except (MeterbridgeError, TimeoutError) as error:
            code, sentence = _cause(error, plan)
            if isinstance(error, LagoRejected):
                self._refused[org_id] = code
            if sentence not in told | self._told:
                _log.warning("org_not_subscribed", org=org_id, plan=plan, reason=code, error=str(error) or "timeout")
            self._told.add(sentence)

    def _plans(self) -> dict[str, str]:
        """The plan of every org that somebody active is mapped to; of several the one that was named first."""
        now_us, first = self._now_us(), dict[str, tuple[int, str, str]]()
        for record in self._customers.values():
            version = shown(record.versions, now_us)
            if version is not None and _wants_one(version):
                named = (version.updated_at, record.litellm_customer_id, version.billing_plan)
                first[version.lago_customer_id] = min(named, first.get(version.lago_customer_id, named))
        return {org_id: plan for org_id, (_, _, plan) in first.items()}


def _wants_one(version: MappingVersion) -> bool:
    """Not where a subscription is named: that one is somebody's choice, and taken at its word."""
    return version.is_active and not version.external_subscription_id


def _cause(error: MeterbridgeError | TimeoutError, plan: str) -> tuple[str, str]:
    """A stable code, and what is said once of all orgs that it happens to."""
    if isinstance(error, TimeoutError):
        return "timeout", "timeout"
    code = (error.code if isinstance(error, LagoRejected) else "") or error.reason
    return code, f"{code} {plan}" if code == "plan_not_found" else code


def org_with(org: OrgRecord, customer: Customer | None, active: Sequence[Period], now_us: int) -> OrgRecord:
    """The org with Lago's active subscriptions, `active`; `org` itself where nothing is new.

    A subscription that ran and is not active any more has ended: where a new one took over its external id at
    that one's start (as Lago's plan changes do), else now, which is the latest it can have been.
    """
    listed = {(period.external_id, period.started_at): period for period in active}
    periods = []
    for period in org.periods:
        if (same := listed.pop((period.external_id, period.started_at), None)) is not None:
            periods.append(same)
        elif period.terminated_at is not None or period.started_at > now_us:
            periods.append(period)
        else:
            successors = [
                one.started_at
                for one in active
                if one.external_id == period.external_id and one.started_at > period.started_at
            ]
            periods.append(copy(period, terminated_at=min([*successors, now_us])))
    periods = sorted([*periods, *listed.values()], key=lambda period: (period.started_at, period.external_id))
    name = (customer.name if customer is not None else None) or org.name
    currency = (customer.currency if customer is not None else None) or org.currency
    plan = org.plan or active[-1].plan_code
    changed = copy(org, name=name, plan=plan, currency=currency, periods=tuple(periods))
    return org if changed == org else copy(changed, updated_at=now_us)
