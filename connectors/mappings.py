"""Writes who pays: customer mappings, and the orgs' subscriptions that they need, to their compacted topics.

The topics are the truth and the followers the view: a write is answered once this process's own view holds
it. Changes of one customer wait for each other here; two api processes changing one customer in the same
second are not kept apart, the later record wins.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec
import structlog

from connectors.kafka.producer import Record
from connectors.lago.shapes import Customer
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import MeterbridgeError, Unavailable
from schemas.topics import TopicNames
from streams.core.mapping import Target, resolve
from streams.core.remap import MappingRequest, in_force, remap, takes_effect
from streams.followers import Follower

#: Lago may take this long while somebody waits for the answer; the background asks again.
_LAGO_S = 5.0
#: Kafka has acknowledged: the own view follows within this, or the answer is 503.
_VIEW_S = 10.0
#: Orgs that are asked about in one round of the background.
_ROUND = 100

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
    """A customer's record and the version that was asked for."""

    record: CustomerRecord
    version: MappingVersion
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
        self._unseen: dict[str, tuple[Follower[CustomerRecord] | Follower[OrgRecord], int, int]] = {}
        self._lago_away = False

    def get(self, customer_id: str) -> Mapped | None:
        """The customer's record and the version in force now."""
        record = self._customers.table.get(customer_id)
        return None if record is None else Mapped(record, in_force(record.versions, self._now_us()))

    def target(self, mapped: Mapped) -> Target:
        """Where usage goes under the version, from its beginning or from now on."""
        at_us = max(self._now_us(), mapped.version.effective_from)
        return resolve(mapped.record, at_us, mapped.version.id_kind, self._orgs.table)

    def active_customers(self) -> int:
        """Customers whose version in force is active."""
        now_us = self._now_us()
        return sum(in_force(record.versions, now_us).is_active for record in self._customers.table.values())

    async def put(self, request: MappingRequest) -> Mapped:
        """Map a customer; visible to `get` on return. Twice the same is once.

        Raises:
            Rejected: see `remap`.
            Unavailable: Kafka does not take the record now, or the view does not follow; repeating is safe.
        """
        async with self._lock(request.litellm_customer_id):
            await self._see(request.litellm_customer_id)
            now_us = self._now_us()
            known = self._customers.table.get(request.litellm_customer_id)
            record = remap(known, request, now_us, self._lead_us, self._keep_us)
            if record is not known or not self._has_periods(request.lago_customer_id):
                await self._learn_org(request.lago_customer_id)
            if record is not known:
                await self._write(self._customers, self._topics.customers, record.litellm_customer_id, record)
        version = in_force(record.versions, takes_effect(request, now_us, self._lead_us))
        return Mapped(record, version, created=known is None)

    async def learn_orgs_every(self, seconds: float) -> None:
        """For ever: ask Lago about mapped orgs whose subscriptions are not known; usage held for them is then billed."""
        while True:
            await asyncio.sleep(seconds)
            await self.learn_orgs()

    async def learn_orgs(self) -> None:
        """One round, of at most `_ROUND` orgs; those that were asked about longest ago come first."""
        now_us = self._now_us()
        wanted = {
            in_force(record.versions, max(now_us, record.versions[-1].effective_from)).lago_customer_id
            for record in self._customers.table.values()
        }
        unknown = [org_id for org_id in sorted(wanted) if not self._has_periods(org_id)]
        for org_id in unknown[:_ROUND]:
            if not await self._learn_org(org_id):
                return

    def _has_periods(self, org_id: str) -> bool:
        org = self._orgs.table.get(org_id)
        return org is not None and bool(org.periods)
