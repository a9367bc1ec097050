"""The orgs' records: read from this process's table, and changed one after the other, also from several processes."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from connectors.billing.reused_subscriptions import ended_by_all, orgs_left_behind
from connectors.kafka.compacted_writer import CompactedTopicWriter
from schemas.customers import OrgRecord
from schemas.errors import Unavailable
from schemas.organizations import DEFAULT, begins_with
from streams.runtime.compacted_table import CompactedTable

#: Time limit for the view to be complete, seconds.
_VIEW_S = 10.0
#: How often Lago is asked about an org whose record other processes change while it answers.
ROUNDS = 3

copy = msgspec.structs.replace


class OrgRecords:
    """Reads and writes `billing.orgs`; nothing else writes it.

    Args:
        orgs: the table of the topic; its maker follows the topic.
        kafka: connection options for aiokafka.
        now_us: microseconds since 1970 UTC.
        organizations: names of the further Lago organisations, those too that are not configured any more; the
            caller keeps it up to date.
    """

    _organizations: Collection[str] = ()

    def __init__(
        self,
        orgs: CompactedTable[OrgRecord],
        kafka: Mapping[str, Any],
        topic: str,
        *,
        now_us: Callable[[], int],
        organizations: Collection[str] = (),
    ) -> None:
        self._orgs = orgs
        self._records = CompactedTopicWriter(orgs, kafka, topic)
        self._now_us = now_us
        self._organizations = organizations

    def organization_of(self, org_id: str) -> str:
        """The Lago organisation of an org: of its record, else of its key; `""` = the default one."""
        known = self._orgs.table.get(org_id)
        return self.blank(org_id).organization if known is None else known.organization

    def blank(self, org_id: str) -> OrgRecord:
        """The record of an org that has none yet."""
        name = begins_with(org_id)
        return OrgRecord(org_id, organization=name if name in self._organizations else DEFAULT)

    async def get(self, org_id: str) -> OrgRecord | None:
        """The org's record, with all changes of this process, and those of others after at most a second; None = none.

        Raises:
            Unavailable: `view_incomplete`: the topic has not been read to its end yet.
        """
        try:
            async with asyncio.timeout(_VIEW_S):
                await self._orgs.wait_fresh(float("inf"))
        except TimeoutError:
            raise Unavailable("view_incomplete", "the orgs' records have not been read yet") from None
        return self._orgs.table.get(org_id)

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        """Change the org's record by `make`. The new record is durable, and `get` returns it, on return.

        If a subscription begins under an external id that another org used before, that org's subscription ends
        (connectors/billing/reused_subscriptions.py). Its record is changed right after this one.

        Args:
            make: returns the new record from the current one (`blank` if there is none). It may be
                called several times. If it returns the same record, nothing is written. `updated_at` is set here.

        Raises:
            As `CompactedTopicWriter.change`.
        """

        def made(known: OrgRecord | None) -> OrgRecord | None:
            before = known or self.blank(org_id)
            after = copy(make(before), org_id=org_id, updated_at=before.updated_at, organization=before.organization)
            after = ended_by_all(after, self._orgs.table.values())
            return known if after == before else copy(after, updated_at=self._now_us())

        org = await self._records.change(org_id, made) or self.blank(org_id)
        for other_id in orgs_left_behind(org, self._orgs.table.values()):
            await self.change(other_id, lambda other: other)
        return org

    async def close(self) -> None:
        """Close the connections. This process can write no record any more."""
        await self._records.close()


async def changed_from(
    records: OrgRecords, org_id: str, before: OrgRecord | None, make: Callable[[OrgRecord], OrgRecord]
) -> bool:
    """Make the org's record what `make` returns if it is still `before`; False if another process has changed it.

    Lago was asked in between. The other process may have a later answer, and an older one would let an ended
    subscription run again. So the caller asks Lago again.

    Raises:
        As `OrgRecords.change`.
    """
    fresh = True

    def made(org: OrgRecord) -> OrgRecord:
        nonlocal fresh
        fresh = copy(org, organization=DEFAULT) == OrgRecord(org_id) if before is None else org == before
        return make(org) if fresh else org

    await records.change(org_id, made)
    return fresh


class StoredIds:
    """`connectors.billing.subscription_id_store.SubscriptionIds` that keeps the ids in the orgs' records."""

    def __init__(self, records: OrgRecords) -> None:
        self._records = records

    async def recall(self, org_id: str) -> str | None:
        """See `SubscriptionIds`."""
        record = await self._records.get(org_id)
        return record.subscription_id or None if record is not None else None

    async def remember(self, org_id: str, proposed: str) -> str:
        """See `SubscriptionIds`."""
        record = await self._records.change(
            org_id, lambda org: org if org.subscription_id else copy(org, subscription_id=proposed)
        )
        return record.subscription_id
