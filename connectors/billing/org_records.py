"""The orgs' records: read from this process's view, changed one after the other whatever process asks."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from connectors.billing.reused_subscriptions import ended_by_all, overtaken
from connectors.kafka.compacted_writer import CompactedTopicWriter
from schemas.customers import OrgRecord
from schemas.errors import Unavailable
from streams.runtime.compacted_table import CompactedTable

#: Time limit for the view to be complete, seconds.
_VIEW_S = 10.0
#: How often Lago is asked about an org whose record other processes change while it answers.
ROUNDS = 3

copy = msgspec.structs.replace


class OrgRecords:
    """The only way to write `billing.orgs`.

    Args:
        orgs: the view; followed by whoever made it.
        kafka: connection options for aiokafka.
        now_us: microseconds since 1970 UTC.
    """

    def __init__(
        self, orgs: CompactedTable[OrgRecord], kafka: Mapping[str, Any], topic: str, *, now_us: Callable[[], int]
    ) -> None:
        self._orgs = orgs
        self._records = CompactedTopicWriter(orgs, kafka, topic)
        self._now_us = now_us

    async def get(self, org_id: str) -> OrgRecord | None:
        """The org's record as this process sees it: with all changes made here, others' within a second.

        Raises:
            Unavailable: `view_incomplete`: the topic has not been read yet.
        """
        try:
            async with asyncio.timeout(_VIEW_S):
                await self._orgs.wait_fresh(float("inf"))
        except TimeoutError:
            raise Unavailable("view_incomplete", "the orgs' records have not been read yet") from None
        return self._orgs.table.get(org_id)

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        """Make the org's record what `make` says of it; durable, and shown by `get`, on return.

        A life that begins under an id of another org's ends that one's (connectors/billing/reused_subscriptions.py): in the same record at once,
        in the other's right after it.

        Args:
            make: from the record as it is, a new one with the id alone where there is none. The same record again
                writes nothing. It may be called several times. `updated_at` is set by whoever writes.

        Raises:
            As `CompactedTopicWriter.change`.
        """

        def made(known: OrgRecord | None) -> OrgRecord | None:
            before = known or OrgRecord(org_id)
            after = copy(make(before), org_id=org_id, updated_at=before.updated_at)
            after = ended_by_all(after, self._orgs.table.values())
            return known if after == before else copy(after, updated_at=self._now_us())

        org = await self._records.change(org_id, made) or OrgRecord(org_id)
        for other_id in overtaken(org, self._orgs.table.values()):
            await self.change(other_id, lambda other: other)
        return org

    async def close(self) -> None:
        """Let go of the connections; nothing of this process is written any more."""
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
        fresh = org == (before or OrgRecord(org_id))
        return make(org) if fresh else org

    await records.change(org_id, made)
    return fresh


class StoredIds:
    """`connectors.billing.subscription_id_store.SubscriptionIds` in the orgs' records."""

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
