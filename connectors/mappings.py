"""Writes who pays: customer mappings, and the orgs' subscriptions that they need, to their compacted topics.

The topics are the truth and the followers the view: a write is answered once this process's own view holds
it. Changes of one customer wait for each other here; two api processes that change one customer in the same
second are not kept apart, and the later record wins.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec
import structlog

from connectors.kafka.producer import Record
from connectors.lago.shapes import Customer
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import MeterbridgeError, Unavailable
from schemas.moments import to_iso
from schemas.topics import TopicNames
from streams.core.mapping import Target, resolve
from streams.core.remap import MappingRequest, in_force, remap, takes_effect
from streams.followers import Follower

#: Somebody waits for the answer: Lago gets this long, the background asks again.
_LAGO_S = 5.0
#: The view must be at most this old to be changed, and has this long to get there or to show a change.
_FRESH_S, _VIEW_S = 5.0, 10.0

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode
copy = msgspec.structs.replace


class Writer(Protocol):
    """What stores a record; see `KafkaProducer.send_one`."""

    async def send_one(self, record: Record) -> tuple[int, int]: ...


class Directory(Protocol):
    """Lago's customers and subscriptions; see `LagoClient`."""

    async def active_subscriptions(self, external_customer_id: str) -> list[Period]: ...
    async def customer(self, external_id: str) -> Customer | None: ...


@dataclass(frozen=True, slots=True)
class Mapped:
    """A customer's record, the version that was asked for, and where usage goes under it."""

    record: CustomerRecord
    version: MappingVersion
    target: Target
    created: bool = False


class Mappings:
    """The customer mappings of one deployment.

    Args:
        lead_us: `MAPPING_LEAD_SECONDS`; `keep_us`: see `remap`.
        now_us: microseconds since 1970 UTC.
    """

    def __init__(
        self,
        customers: Follower[CustomerRecord],
        orgs: Follower[OrgRecord],
        writer: Writer,
        lago: Directory,
        topics: TopicNames,
        *,
        lead_us: int,
        keep_us: int,
        now_us: Callable[[], int],
    ) -> None:
        self._customers = customers
        self._orgs = orgs
        self._writer = writer
        self._lago = lago
        self._topics = topics
        self._lead_us = lead_us
        self._keep_us = keep_us
        self._now_us = now_us
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unseen: dict[str, tuple[int, int]] = {}
        self._lago_away = False

    async def get(self, customer_id: str) -> Mapped | None:
        """The customer's record and the version in force now. Raises: Unavailable `view_incomplete`."""
        await _within_view_s(self._customers.wait_fresh(float("inf")), "view_incomplete")
        record = self._customers.table.get(customer_id)
        return None if record is None else self._mapped(record, in_force(record.versions, self._now_us()))

    def active_customers(self) -> int:
        """Customers whose version in force is active."""
        now_us = self._now_us()
        return sum(in_force(record.versions, now_us).is_active for record in self._customers.table.values())

    async def put(self, request: MappingRequest) -> Mapped:
        """Map a customer; `get` shows it on return. The same twice is the same once.

        Raises:
            Rejected: see `remap`.
            Unavailable: Kafka does not take the record now, or the view does not follow; repeating is safe.
        """
        customer_id = request.litellm_customer_id
        async with self._locks.setdefault(customer_id, asyncio.Lock()):
            if not self._knows(request.lago_customer_id, request.external_subscription_id):
                await self._learn(request.lago_customer_id)
            await self._see(customer_id)
            now_us = self._now_us()  # after everything slow but Kafka: the lead begins here
            known = self._customers.table.get(customer_id)
            record = remap(known, request, now_us, self._lead_us, self._keep_us)
            version = in_force(record.versions, takes_effect(request, now_us, self._lead_us))
            if record is not known:
                self._unseen[customer_id] = await self._store(self._topics.customers, customer_id, record)
                if known is not None and self._lead_us and self._now_us() > version.effective_from:
                    _log.warning("mapping_stored_late", effective_from=to_iso(version.effective_from))
                await self._see(customer_id)
        return self._mapped(record, version, created=known is None)

    async def learn_orgs_every(self, seconds: float) -> None:
        """For ever: `learn_orgs`, then wait."""
        while True:
            try:
                await self.learn_orgs()
            except MeterbridgeError as error:
                _log.warning("orgs_not_learnt", reason=error.reason, detail=error.detail)
            await asyncio.sleep(seconds)

    async def learn_orgs(self) -> None:
        """Ask Lago, one at a time, for mapped orgs without a known subscription: what is held for them is then billed."""
        versions = (version for record in self._customers.table.values() for version in record.versions)
        for org_id in sorted({version.lago_customer_id for version in versions}):
            if not self._knows(org_id) and not await self._learn(org_id):
                return

    async def _learn(self, org_id: str) -> bool:
        """Store the org's active subscriptions as Lago knows them; False when Lago does not answer."""
        try:
            async with asyncio.timeout(_LAGO_S):
                active = await self._lago.active_subscriptions(org_id)
                customer = await self._lago.customer(org_id) if active else None
        except (MeterbridgeError, TimeoutError) as error:
            if not self._lago_away:
                _log.warning("subscriptions_unknown", org=org_id, error=str(error) or "timeout")
            self._lago_away = isinstance(error, Unavailable | TimeoutError)
            return not self._lago_away
        self._lago_away = False
        known = self._orgs.table.get(org_id)
        if active:
            org = org_with(known or OrgRecord(org_id), customer, active, self._now_us())
            if org != known:
                place = await self._store(self._topics.orgs, org_id, org)
                await _within_view_s(self._orgs.wait_offset(*place), "view_behind")
        return True

    def _knows(self, org_id: str, subscription: str = "") -> bool:
        org = self._orgs.table.get(org_id)
        return org is not None and any(subscription in ("", period.external_id) for period in org.periods)

    def _mapped(self, record: CustomerRecord, version: MappingVersion, *, created: bool = False) -> Mapped:
        at_us = max(self._now_us(), version.effective_from)
        return Mapped(record, version, resolve(record, at_us, version.id_kind, self._orgs.table), created)

    async def _see(self, customer_id: str) -> None:
        """Return once the view holds what was written last, here or elsewhere."""
        if (place := self._unseen.get(customer_id)) is not None:
            await _within_view_s(self._customers.wait_offset(*place), "view_behind")
            del self._unseen[customer_id]
        await _within_view_s(self._customers.wait_fresh(_FRESH_S), "view_stale")

    async def _store(self, topic: str, key: str, value: msgspec.Struct) -> tuple[int, int]:
        return await self._writer.send_one((topic, key, _encode(value), self._now_us() // 1000))


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


async def _within_view_s(seen: Awaitable[None], reason: str) -> None:
    try:
        async with asyncio.timeout(_VIEW_S):
            await seen
    except TimeoutError:
        raise Unavailable(reason, "the customers table does not follow its topic now") from None
