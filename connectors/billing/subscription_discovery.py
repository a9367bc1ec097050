"""Learns which subscriptions Lago has of the mapped orgs, and, where that is wished, subscribes those without one.

Usage of an org without a known subscription is held; what is learnt here releases it (docs/mapping.md).
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from connectors.billing.plan_terms import PlanSource, PlanTermsCache
from connectors.billing.reused_subscriptions import held_by_others
from connectors.billing.subscription_history import not_running, org_with, to_the_moment
from connectors.lago.errors import LagoRejected
from connectors.lago.response_types import Customer, Subscription
from connectors.lago.subscriptions import ACTIVE, STATUSES
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import MeterbridgeError, Unavailable
from streams.core.mapping.set_mapping import shown
from streams.core.mapping.subscription_choice import FOREIGN_SUBSCRIPTION, NO_SUBSCRIPTION, UNKNOWN_SUBSCRIPTION

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


class DiscoverySource(PlanSource, Protocol):
    """Lago's customers, subscriptions and plans; see `LagoClient`."""

    async def subscriptions(
        self, external_customer_id: str = "", statuses: Sequence[str] = ..., plan_code: str = ""
    ) -> list[Subscription]: ...
    async def subscription(self, external_id: str, status: str = "active") -> Subscription | None: ...
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


class SubscriptionDiscovery:
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
        lago: DiscoverySource,
        *,
        now_us: Callable[[], int],
    ) -> None:
        self._customers = customers
        self._orgs = orgs
        self._records = records
        self._lago = lago
        self._now_us = now_us
        self._terms = PlanTermsCache(lago)
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

    def _asked_for(self, org_id: str, subscription: str) -> bool:
        """Whether it is known of a named subscription that it is the org's, or that it is not."""
        org = self._orgs.get(org_id)
        return self.knows(org_id, subscription) or (org is not None and subscription in org.unusable)

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
        names = self._unasked_names()
        meant = {version.lago_customer_id for version in self._versions()} | self._named.keys()
        meant.update(org.org_id for org in self._orgs.values() if org.subscription_id)
        unknown = [org_id for org_id in meant if org_id in names or not self.knows(org_id)]
        unknown = beginning_after(self._given_up_at, unknown)
        self._refused = {org_id: why for org_id, why in self._refused.items() if org_id in unknown}
        self._unanswered &= set(unknown)
        self._given_up_at, failures = "", 0
        for org_id in unknown:
            failures = 0 if await self.learn(org_id, names.get(org_id, ())) else failures + 1
            if failures == MOST_FAILURES:
                self._given_up_at = org_id
                break
            if not failures and org_id in plans and not self.knows(org_id):
                await self._subscribe(org_id, plans[org_id], told)
        if failures:  # what stands against the others was told already, and still does
            self._told |= told

    async def learn(self, org_id: str, names: Iterable[str] = ()) -> bool:
        """Store the org's active subscriptions as Lago knows them; False when Lago does not answer.

        What others change in the record all the time is left as they have it, for the next time.

        Args:
            names: subscriptions that a mapping names; of those that are not the org's it is stored why.
        """
        for _ in range(ROUNDS):
            before = self._orgs.get(org_id)
            try:
                async with asyncio.timeout(_LAGO_S):
                    listed, unusable = await self._listed(org_id, names, before)
                    customer = await self._lago.customer(org_id) if listed else None
                    found = to_the_moment(await self._terms.periods(listed, customer))
            except (MeterbridgeError, TimeoutError) as error:
                await self._marked(org_id, names)
                return self._unknown(org_id, error)
            self._lago_away = False
            self._unanswered.discard(org_id)
            if not (found or unusable) or await self._stored(org_id, before, customer, found, unusable):
                break
        return True

    async def _listed(
        self, org_id: str, names: Iterable[str], before: OrgRecord | None
    ) -> tuple[list[Subscription], dict[str, str]]:
        """The org's running subscriptions, and those named that ran once; why the others that are named are none.

        Where one does not run any more that the record shows as running, all that ended: Lago alone knows when.
        """
        listed = await self._lago.subscriptions(org_id, ACTIVE)
        missing = set(names).difference(one.external_id for one in listed)
        over = before is not None and not_running(before.periods, listed, self._now_us())
        unusable: dict[str, str] = {}
        if missing or over:
            everything = await self._lago.subscriptions(org_id, STATUSES)
            listed = [
                one
                for one in everything
                if one.status == "active" or (one.status == "terminated" and (over or one.external_id in missing))
            ]
            for name in missing.difference(one.external_id for one in listed):
                waits = any(one.external_id == name for one in everything)
                unusable[name] = NO_SUBSCRIPTION if waits else await self._whose(name)
        return listed, unusable

    async def _whose(self, name: str) -> str:
        try:
            found = await self._lago.subscription(name)
        except LagoRejected as error:
            if error.reason != "unsafe_id":
                raise
            found = None
        return UNKNOWN_SUBSCRIPTION if found is None else FOREIGN_SUBSCRIPTION

    async def _marked(self, org_id: str, names: Iterable[str]) -> None:
        """Lago does not say whose the named subscriptions are. One that runs as another org's is not taken at its word."""
        taken = held_by_others(names, org_id, self._orgs.values(), self._now_us()) if names else ()

        def made(org: OrgRecord) -> OrgRecord:
            own = {one.external_id for one in org.periods}
            foreign = {name: FOREIGN_SUBSCRIPTION for name in taken if name not in own}
            return copy(org, unusable={**foreign, **org.unusable}) if foreign else org

        if taken:
            await self._records.change(org_id, made)

    def _unknown(self, org_id: str, error: MeterbridgeError | TimeoutError) -> bool:
        """Tell once of an org, and of a Lago that is away, that there is no answer; False: Lago is away."""
        if not self._lago_away and org_id not in self._unanswered:
            _log.warning("subscriptions_unknown", org=org_id, error=str(error) or "timeout")
        self._unanswered.add(org_id)
        self._lago_away = isinstance(error, Unavailable | TimeoutError)
        return not self._lago_away

    async def _stored(
        self,
        org_id: str,
        before: OrgRecord | None,
        customer: Customer | None,
        found: Sequence[Period],
        unusable: Mapping[str, str],
    ) -> bool:
        """False: the record is another than `before` by now."""

        def made(org: OrgRecord) -> OrgRecord:
            known = org_with(org, customer, found, self._now_us()) if found else org
            return copy(known, unusable={**known.unusable, **unusable}) if unusable else known

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
                _log.warning("subscription_discovery_failed", reason=error.reason, detail=error.detail)
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

    def _versions(self) -> Iterator[MappingVersion]:
        return (version for record in self._customers.values() for version in record.versions)

    def _unasked_names(self) -> dict[str, set[str]]:
        """Subscriptions that mappings name, by org, where Lago was not asked yet whether it has them."""
        names: dict[str, set[str]] = {}
        for version in self._versions():
            name, org_id = version.external_subscription_id, version.lago_customer_id
            if name and version.is_active and not self._asked_for(org_id, name):
                names.setdefault(org_id, set()).add(name)
        return names

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
