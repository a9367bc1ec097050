"""Asks Lago for the subscriptions of the mapped orgs. With `AUTO_SUBSCRIBE`, orgs without a subscription get one.

Usage of an org without a known subscription is held. A subscription that is found here releases it (docs/mapping.md).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec
import structlog

from connectors.billing.auto_subscribe import AutoSubscriber
from connectors.billing.in_slices import in_slices
from connectors.billing.org_records import ROUNDS, OrgRecords, changed_from
from connectors.billing.plan_terms import PlanTermsCache
from connectors.billing.reused_subscriptions import held_by_others
from connectors.billing.subscription_history import not_running, org_with, to_the_moment
from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Customer, Subscription
from connectors.lago.subscriptions import ACTIVE, STATUSES
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import MeterbridgeError, Unavailable
from streams.core.mapping.held_reasons import FOREIGN_SUBSCRIPTION, NO_SUBSCRIPTION, UNKNOWN_SUBSCRIPTION
from streams.core.mapping.organizations import organization_of
from streams.core.mapping.set_mapping import shown
from streams.runtime.kept_up import kept_up

#: Time limit of the requests about one org, seconds. A caller may wait for them; the background task repeats them.
_LAGO_S = 5.0
#: Time limit to create a customer and a subscription with about six requests, seconds.
_SUBSCRIBE_S = 30.0
#: Number of newly mapped orgs that are subscribed at the same time.
_AT_ONCE = 4
#: The most orgs with recorded usage and without a record that are remembered. The oldest are dropped, because Lago's
#: webhooks name them.
_NAMED = 200
#: After this number of consecutive orgs without an answer, Lago counts as unavailable. The next round begins with the
#: last of them.
MOST_FAILURES = 3

_log = structlog.get_logger(__name__)
copy = msgspec.structs.replace


def beginning_after(last: str, org_ids: Iterable[str]) -> list[str]:
    """Return the ids in a cyclic order that begins with the first id after `last` and ends with `last`."""
    return sorted(org_ids, key=lambda org_id: (org_id <= last, org_id))


class _Unanswered:
    """Logs missing answers of Lago: once for each org, and only once for all orgs while Lago does not answer at all."""

    def __init__(self) -> None:
        self._orgs: set[str] = set()
        self._lago_away = False

    def answered(self, org_id: str) -> None:
        self._lago_away = False
        self._orgs.discard(org_id)

    def failed(self, org_id: str, error: MeterbridgeError | TimeoutError) -> bool:
        """Log the error if it is new. False = Lago does not answer at all; True = only the request about this org
        failed.
        """
        if not self._lago_away and org_id not in self._orgs:
            _log.warning("subscriptions_unknown", org=org_id, error=str(error) or "timeout")
        self._orgs.add(org_id)
        self._lago_away = isinstance(error, Unavailable | TimeoutError)
        return not self._lago_away

    def forget_all_but(self, org_ids: Iterable[str]) -> None:
        self._orgs &= set(org_ids)


class _NotSubscribed:
    """Keeps why orgs could not be subscribed. A cause is logged again only after a whole round without it."""

    def __init__(self) -> None:
        self.codes: dict[str, str] = {}
        self._logged: set[str] = set()
        self._logged_before: set[str] = set()

    def begin_round(self, org_ids: Iterable[str]) -> None:
        self._logged, self._logged_before = set(), self._logged
        self.codes = {org_id: self.codes[org_id] for org_id in self.codes.keys() & set(org_ids)}

    def end_round(self, *, whole: bool) -> None:
        """End the round. Causes of orgs that were not reached in this round are kept."""
        if not whole:
            self._logged |= self._logged_before
        self._logged_before = set()

    def add(self, org_id: str, plan: str, error: MeterbridgeError | TimeoutError) -> None:
        code = "timeout"
        if not isinstance(error, TimeoutError):
            code = (error.code if isinstance(error, LagoRejected) else "") or error.reason
        if isinstance(error, LagoRejected):
            self.codes[org_id] = code
        cause = f"{code} {plan}" if code == "plan_not_found" else code
        if cause not in self._logged | self._logged_before:
            _log.warning("org_not_subscribed", org=org_id, plan=plan, reason=code, error=str(error) or "timeout")
        self._logged.add(cause)


class SubscriptionDiscovery:
    """Keeps the subscriptions of the mapped customers' orgs in the orgs' records.

    The state between two rounds of `discover_all`:

    | field | holds | an entry ends |
    |---|---|---|
    | `_to_subscribe` | plan by org, for newly mapped orgs without a subscription | when `AutoSubscriber` handles it |
    | `_recorded_for` | orgs with recorded usage and without a period, at most `_NAMED` | when a period is stored |
    | `_unanswered` | orgs for which the request to Lago failed | when one succeeds, or the org is not asked about any more |
    | `_not_subscribed` | why an org could not be subscribed | when a subscription is stored |
    | `_resume_after` | the org at which the last round stopped: Lago did not answer | when the next round begins |

    Args:
        customers, orgs: views of the two topics.
        now_us: microseconds since 1970 UTC.
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
        is_mine: Callable[[str], bool] = lambda _org_id: True,
    ) -> None:
        self._is_mine = is_mine
        self._customers = customers
        self._orgs = orgs
        self._records = records
        self._lago = lago
        self._now_us = now_us
        self._terms = PlanTermsCache(lago)
        self._subscriber: AutoSubscriber | None = None
        self._to_subscribe: dict[str, str] = {}
        self._woken = asyncio.Event()
        self._recorded_for: dict[str, None] = {}
        self._unanswered = _Unanswered()
        self._not_subscribed = _NotSubscribed()
        self._resume_after = ""

    def subscribe_by(self, subscriber: AutoSubscriber) -> None:
        """Set the subscriber for orgs without a subscription. Without this call no org is subscribed."""
        self._subscriber = subscriber

    def knows(self, org_id: str, subscription: str = "") -> bool:
        """Return whether the org's record has a period of this subscription; `""` = of any subscription."""
        org = self._orgs.get(org_id)
        return org is not None and any(subscription in ("", period.external_id) for period in org.periods)

    def _is_settled(self, org_id: str, subscription: str) -> bool:
        """Return whether the org's record says that a named subscription belongs to the org, or why it does not."""
        org = self._orgs.get(org_id)
        return self.knows(org_id, subscription) or (org is not None and subscription in org.unusable)

    async def is_unknown(self, org_id: str) -> bool | None:
        """Return whether the org has no record and Lago has no such customer; None if Lago does not answer."""
        if org_id in self._orgs:
            return False
        try:
            async with asyncio.timeout(_LAGO_S):
                return await self._lago.customer(org_id) is None
        except (MeterbridgeError, TimeoutError) as error:
            self._unanswered.failed(org_id, error)
            return None

    def refused(self, org_id: str) -> str:
        """Return why the org cannot be subscribed, as a stable code; `""` = no attempt was refused."""
        return self._not_subscribed.codes.get(org_id, "")

    def mapped(self, version: MappingVersion) -> None:
        """Register a new mapping. If its org needs a subscription, it is subscribed at once."""
        org_id = version.lago_customer_id
        if self._subscriber is not None and _wants_subscription(version) and not self.knows(org_id):
            self._to_subscribe.setdefault(org_id, version.billing_plan)
            self._woken.set()

    def named(self, org_id: str) -> None:
        """Register an org for which usage was recorded, mapped or not. The next round asks Lago about it.

        Only the latest `_NAMED` such orgs are kept.
        """
        if self.knows(org_id):
            return
        self._recorded_for.pop(org_id, None)
        self._recorded_for[org_id] = None
        if len(self._recorded_for) > _NAMED:
            del self._recorded_for[next(iter(self._recorded_for))]

    async def learn_every(self, seconds: float) -> None:
        """Run until cancelled: ask Lago about all orgs every `seconds`, and subscribe newly mapped orgs at once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(kept_up("learn_subscriptions", partial(self._learn_orgs_every, seconds)))
            group.create_task(kept_up("subscribe_mapped", self._subscribe_mapped))

    async def discover_all(self) -> None:
        """Ask Lago about each org without a known subscription, one at a time. Usage that is held for them is then
        billed.

        These are the mapped orgs, the orgs that Meterbridge subscribed, and the orgs with recorded usage. If the
        request about an org fails, the org is skipped. After `MOST_FAILURES` consecutive failures the rest waits for
        the next round.
        """
        plans, names, orgs = await self._mapped()
        orgs |= self._recorded_for.keys()
        orgs.update(org.org_id for org in self._orgs.values() if org.subscription_id)
        unknown = [org_id for org_id in orgs if (org_id in names or not self.knows(org_id)) and self._is_mine(org_id)]
        self._not_subscribed.begin_round(unknown)
        self._unanswered.forget_all_but(unknown)
        turns, self._resume_after, failures = beginning_after(self._resume_after, unknown), "", 0
        for org_id in turns:
            failures = 0 if await self.learn(org_id, names.get(org_id, ())) else failures + 1
            if failures == MOST_FAILURES:
                self._resume_after = org_id
                break
            if not failures and org_id in plans and not self.knows(org_id):
                await self._subscribe(org_id, plans[org_id])
        self._not_subscribed.end_round(whole=not failures)

    async def learn(self, org_id: str, names: Iterable[str] = ()) -> bool:
        """Store the org's active subscriptions as Lago reports them; False if Lago does not answer.

        If other processes change the record during each request to Lago, it is left unchanged until the next round.

        Args:
            names: subscriptions that a mapping names. If one does not belong to the org, the record says why.
        """
        for _ in range(ROUNDS):
            before = self._orgs.get(org_id)
            try:
                async with asyncio.timeout(_LAGO_S):
                    listed, unusable = await self._listed(org_id, names, before)
                    customer = await self._lago.customer(org_id) if listed else None
                    periods = to_the_moment(await self._terms.periods(listed, customer))
            except (MeterbridgeError, TimeoutError) as error:
                await self._mark_foreign(org_id, names)
                return self._unanswered.failed(org_id, error)
            self._unanswered.answered(org_id)
            if not (periods or unusable) or await self._stored(org_id, before, customer, periods, unusable):
                break
        return True

    async def _listed(
        self, org_id: str, names: Iterable[str], before: OrgRecord | None
    ) -> tuple[list[Subscription], dict[str, str]]:
        """Return the org's active subscriptions and the named ones that have ended, and why each other named one is
        unusable.

        If a subscription is active in the record and not in Lago, all ended ones are listed, because only Lago knows
        when it ended.
        """
        listed = await self._lago.subscriptions(org_id, ACTIVE)
        missing = set(names).difference(subscription.external_id for subscription in listed)
        over = before is not None and not_running(before.periods, listed, self._now_us())
        unusable: dict[str, str] = {}
        if missing or over:
            everything = await self._lago.subscriptions(org_id, STATUSES)
            listed = [
                subscription
                for subscription in everything
                if subscription.status == "active"
                or (subscription.status == "terminated" and (over or subscription.external_id in missing))
            ]
            for name in missing.difference(subscription.external_id for subscription in listed):
                waits = any(subscription.external_id == name for subscription in everything)
                unusable[name] = NO_SUBSCRIPTION if waits else await self._whose(name)
        return listed, unusable

    async def _whose(self, name: str) -> str:
        try:
            subscription = await self._lago.subscription(name)
        except LagoRejected as error:
            if error.reason != "unsafe_id":
                raise
            subscription = None
        return UNKNOWN_SUBSCRIPTION if subscription is None else FOREIGN_SUBSCRIPTION

    async def _mark_foreign(self, org_id: str, names: Iterable[str]) -> None:
        """Mark, without an answer of Lago, named subscriptions that belong to another org according to our own records."""
        where = organization_of(org_id, self._orgs.get(org_id))
        taken = held_by_others(names, org_id, self._orgs.values(), self._now_us(), where) if names else ()

        def made(org: OrgRecord) -> OrgRecord:
            own = {period.external_id for period in org.periods}
            foreign = {name: FOREIGN_SUBSCRIPTION for name in taken if name not in own}
            return copy(org, unusable={**foreign, **org.unusable}) if foreign else org

        if taken:
            await self._records.change(org_id, made)

    async def _stored(
        self,
        org_id: str,
        before: OrgRecord | None,
        customer: Customer | None,
        periods: Sequence[Period],
        unusable: Mapping[str, str],
    ) -> bool:
        """Store Lago's answer; False if the record is not `before` any more."""

        def made(org: OrgRecord) -> OrgRecord:
            known = org_with(org, customer, periods, self._now_us()) if periods else org
            return copy(known, unusable={**known.unusable, **unusable}) if unusable else known

        stored = await changed_from(self._records, org_id, before, made)
        if stored:
            self._not_subscribed.codes.pop(org_id, None)
            self._recorded_for.pop(org_id, None)
        return stored

    async def _learn_orgs_every(self, seconds: float) -> None:
        while True:
            try:
                await self.discover_all()
            except MeterbridgeError as error:
                _log.warning("subscription_discovery_failed", reason=error.reason, detail=error.detail)
            await asyncio.sleep(seconds)

    async def _subscribe_mapped(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._to_subscribe:
                batch = [self._to_subscribe.popitem() for _ in range(min(_AT_ONCE, len(self._to_subscribe)))]
                await asyncio.gather(*(self._subscribe(org_id, plan) for org_id, plan in batch))

    async def _subscribe(self, org_id: str, plan: str) -> None:
        """Subscribe an org without a subscription. A failure is logged; the next round tries again."""
        if self._subscriber is None:
            return
        try:
            async with asyncio.timeout(_SUBSCRIBE_S):
                await self._subscriber.subscribe(self._orgs.get(org_id) or OrgRecord(org_id), plan)
            await self.learn(org_id)
        except (MeterbridgeError, TimeoutError) as error:
            self._not_subscribed.add(org_id, plan, error)

    async def _mapped(self) -> tuple[dict[str, str], dict[str, set[str]], set[str]]:
        """Collect the orgs from all mappings, in one pass with pauses.

        Returns:
            The plan of every org that an active mapping names; of several plans the first one. By org, the
            subscriptions that active mappings name and that Lago was not asked about yet. All orgs.
        """
        now_us, first = self._now_us(), dict[str, tuple[int, str, str]]()
        names, orgs = dict[str, set[str]](), set[str]()
        async for records in in_slices(self._customers.values()):
            for record in records:
                for version in record.versions:
                    name, org_id = version.external_subscription_id, version.lago_customer_id
                    orgs.add(org_id)
                    if name and version.is_active and not self._is_settled(org_id, name):
                        names.setdefault(org_id, set()).add(name)
                version_shown = shown(record.versions, now_us)
                if version_shown is not None and _wants_subscription(version_shown):
                    named = (version_shown.updated_at, record.litellm_customer_id, version_shown.billing_plan)
                    org_id = version_shown.lago_customer_id
                    first[org_id] = min(named, first.get(org_id, named))
        return {org_id: plan for org_id, (_, _, plan) in first.items()}, names, orgs


def _wants_subscription(version: MappingVersion) -> bool:
    """Return whether the mapping's org may be subscribed. If the mapping names a subscription, a person has chosen it,
    and no other is added.
    """
    return version.is_active and not version.external_subscription_id
