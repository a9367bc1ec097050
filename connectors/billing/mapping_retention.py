"""Removes the records of customers whose mapping was deleted long ago, because their ids may be personal data.

If Lago has a customer with exactly this id, the record stays. Mapping by identity maps each id without a record, so it
would undo the deletion (docs/adr/0014, 0026). Lago stores this id in any case.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from connectors.billing.in_slices import in_slices
from connectors.billing.subscription_discovery import beginning_after
from connectors.kafka.compacted_writer import CompactedTopicWriter
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Customer
from schemas.customers import CustomerRecord
from schemas.errors import MeterbridgeError
from schemas.moments import HOUR_US
from streams.core.mapping.set_mapping import forgettable

#: How long the record of a deleted customer is kept, microseconds: 30 days, while a topic may still have its usage
#: (schemas/topics.py).
FORGET_US: Final = 31 * 24 * HOUR_US
#: Number of ids that Lago is asked about in one round, and the pause after each request, seconds.
ASKED, _PAUSE_S = 1000, 0.1

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class MappingRetention:
    """Removes records from the customers topic.

    Args:
        customers: the customers table.
        customer: returns the Lago customer with exactly this id; None = there is none. Raises: LagoIntegrationError.
        now_us: microseconds since 1970 UTC.
    """

    customers: Mapping[str, CustomerRecord]
    records: CompactedTopicWriter[CustomerRecord]
    customer: Callable[[str], Awaitable[Customer | None]]
    now_us: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _last: str = field(default="", init=False)

    async def work(self, every_s: float) -> None:
        """Run a round every `every_s` seconds until the task is cancelled."""
        while True:
            try:
                await self.look()
            except MeterbridgeError as error:
                _log.warning("customers_not_forgotten", reason=error.reason, detail=error.detail)
            await self.sleep(every_s)

    async def look(self) -> None:
        """Run one round: examine at most `ASKED` records whose mapping was deleted more than `FORGET_US` ago.

        The next round continues after the last id.

        Raises:
            MeterbridgeError: Lago or Kafka does not answer. The next round examines the rest.
        """
        until_us = self.now_us() - FORGET_US
        due = [
            name
            async for records in in_slices(self.customers.items())
            for name, record in records
            if forgettable(record, until_us)
        ]

        def without(known: CustomerRecord | None) -> CustomerRecord | None:
            return None if known is None or forgettable(known, until_us) else known

        for name in beginning_after(self._last, due)[:ASKED]:
            self._last = name  # set before the request, so that an id without an answer does not block the ids after it
            if not await self._is_lagos(name):
                await self.records.change(name, without)
            await self.sleep(_PAUSE_S)

    async def _is_lagos(self, name: str) -> bool:
        try:
            return await self.customer(name) is not None
        except LagoRejected as error:
            if error.reason != "unsafe_id":
                raise
            return False  # Lago refuses such an id, so no customer has it
