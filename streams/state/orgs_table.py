"""The table of orgs, which also knows their Lago organisations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord

from schemas.customers import OrgRecord
from schemas.organizations import is_name
from streams.runtime.compacted_table import FRESH_S, CompactedTable


class OrgsTable(CompactedTable[OrgRecord]):
    """The table of `billing.orgs`.

    Args:
        fresh_s: see `CompactedTable`.

    Fields:
        organizations: names of the further Lago organisations that have an org, or had one since the start of the
            table, independent of the configuration.
    """

    def __init__(
        self, kafka: Mapping[str, Any], topic: str, monotonic: Callable[[], float], fresh_s: float = FRESH_S
    ) -> None:
        super().__init__(kafka, topic, OrgRecord, monotonic, "orgs", fresh_s)
        self.organizations: set[str] = set()

    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Update the table and the names."""
        super().take(partition, records)
        for record in records:
            org = self.table.get((record.key or b"").decode("utf-8", "replace"))
            if org is not None and is_name(org.organization):
                self.organizations.add(org.organization)
