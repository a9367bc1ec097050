"""Reads the orgs' records from this process's table, and changes them one after the other, even if several processes do
it.
"""

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

#: Time limit of the wait for a complete view, seconds.
_VIEW_S = 3.0
#: How often Lago is asked again because another process changed the org's record during the request.
ROUNDS = 3

copy = msgspec.structs.replace


class OrgRecords:
    """Reads and writes `billing.orgs`; nothing else writes it.

    Args:
        orgs: the table of the topic. The caller keeps it up to date.
        kafka: connection options for aiokafka.
        now_us: microseconds since 1970 UTC.
        organizations: names of the further Lago organisations, also of those that are not configured any more. The
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
        """Return the Lago organisation of an org, from its record or otherwise from its key; `""` = the default one."""
        known = self._orgs.table.get(org_id)
        return self.blank(org_id).organization if known is None else known.organization

    def blank(self, org_id: str) -> OrgRecord:
        """Return a new record for an org without one."""
        name = begins_with(org_id)
        return OrgRecord(org_id, organization=name if name in self._organizations else DEFAULT)

    async def get(self, org_id: str) -> OrgRecord | None:
        """Return the org's record; None = there is none. It has all changes of this process, and those of others after
        at most a second.

        Raises:
            Unavailable: `view_incomplete`: the topic has not been read to its end yet.
        """
        try:
            async with asyncio.timeout(_VIEW_S):
                await self._orgs.wait_fresh(float("inf"))
        except TimeoutError:
            raise Unavailable(
                "view_incomplete",
                "the orgs' records have not been read yet: does Kafka answer at KAFKA_BOOTSTRAP_SERVERS?",
            ) from None
        return self.seen(org_id)

    def seen(self, org_id: str) -> OrgRecord | None:
        """Return the org's record as far as the topic has been read; None = there is none, or it was not read yet."""
        return self._orgs.table.get(org_id)

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        """Change the org's record with `make`. On return the new record is durable, and `get` returns it.

        If a subscription begins with an external id that another org used before, that org's subscription ends
        (connectors/billing/reused_subscriptions.py). The record of the other org is changed immediately after this one.

        Args:
            make: returns the new record for the current one (`blank` if there is none). It may be called several times.
                If it returns the same record, nothing is written. `change` sets `updated_at`.

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
        """Close the connections. After this the process cannot write records."""
        await self._records.close()


async def changed_from(
    records: OrgRecords, org_id: str, before: OrgRecord | None, make: Callable[[OrgRecord], OrgRecord]
) -> bool:
    """Replace the org's record by the result of `make` if it is still `before`; False if another process has changed
    it.

    The caller asked Lago after it read `before`. The other process may have a later answer of Lago, and an older answer
    would make an ended subscription active again. So after False the caller asks Lago again.

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
    """Implements `connectors.billing.subscription_id_store.SubscriptionIds` with the orgs' records."""

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
